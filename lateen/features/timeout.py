"""Timeout: a request, its retries included, takes at most so long; then the client gets 504.

Without a timeout there is none. A gRPC client's own deadline (`grpc-timeout`) counts as well, and can only
shorten what the route says.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute-timeout
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route

from lateen.engine import Q
from lateen.features.encoding import set_seconds
from lateen.features.feature import Feature, Rule
from lateen.intent.route import Timeout


def intent(_: Q, rule: Rule) -> Timeout:
    """The timeout of a rule; zero when it says none, because Envoy's own default is 15 s."""
    return Timeout(rule.http.timeout.seconds if rule.http.timeout else 0)


def envoy(slot: Timeout, route: Route) -> None:
    """Writes the timeout of a route that forwards.

    The field that lets a gRPC deadline count is `max_stream_duration`, but where it is set Envoy looks at no
    `timeout` any more; so a route with one uses the older `max_grpc_timeout`, which caps deadlines.
    """
    set_seconds(route.route.timeout, slot.seconds)
    if slot.seconds:
        set_seconds(route.route.max_grpc_timeout, slot.seconds)
    else:
        set_seconds(route.route.max_stream_duration.grpc_timeout_header_max, 0)


def words(slot: Timeout) -> str:
    """For people."""
    if not slot.seconds:
        return "There is no time limit."
    return f"The whole request, retries included, takes at most {slot.seconds:g} s, then it is answered with 504."


FEATURE = Feature("timeout", intent, envoy, words)
