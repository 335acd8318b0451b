"""Direct response: the proxy answers by itself, with a status and a body.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPDirectResponse
"""

from __future__ import annotations

import base64
import binascii

from envoy.config.route.v3.route_components_pb2 import Route

from lateen.engine import Q
from lateen.features.feature import Feature, Rule
from lateen.intent.route import DirectResponse


def intent(_: Q, rule: Rule) -> DirectResponse | None:
    """The answer of a rule, or None."""
    said = rule.http.direct_response
    if said is None:
        return None
    body = b""
    if said.body is not None:
        body = said.body.string.encode() if said.body.string else _decoded(said.body.bytes or "")
    return DirectResponse(said.status or 200, body)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # refused when the object is checked; an older one in the store may still say it
        return b""


def envoy(slot: DirectResponse, route: Route) -> None:
    """Makes the route an answer."""
    route.direct_response.status = slot.status
    if slot.body:
        route.direct_response.body.inline_bytes = slot.body


def words(slot: DirectResponse) -> str:
    """For people."""
    body = f" and a body of {len(slot.body)} bytes" if slot.body else ""
    return f"The proxy itself answers with {slot.status}{body}."


FEATURE = Feature("direct_response", intent, envoy, words, forwards=False)
