"""Redirect: the client is told to ask elsewhere.

What the rule does not name stays as it was in the request. `uri` replaces the whole path, `prefixRewrite` only
the prefix that matched. Without a port the client uses the scheme's own, or with FROM_REQUEST_PORT the one it
came by.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRedirect
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import RedirectAction, Route

from lateen.engine import Q
from lateen.features.feature import Feature, Rule
from lateen.intent.route import Redirect

DEFAULT_CODE = 301
_CODES = {
    301: RedirectAction.MOVED_PERMANENTLY,
    302: RedirectAction.FOUND,
    303: RedirectAction.SEE_OTHER,
    307: RedirectAction.TEMPORARY_REDIRECT,
    308: RedirectAction.PERMANENT_REDIRECT,
}


def intent(_: Q, rule: Rule) -> Redirect | None:
    """The redirect of a rule, or None."""
    said = rule.http.redirect
    if said is None:
        return None
    port = said.port or 0
    if not port and said.derive_port == "FROM_REQUEST_PORT":
        port = rule.port
    return Redirect(
        code=said.redirect_code if said.redirect_code in _CODES else DEFAULT_CODE,
        scheme=said.scheme or "",
        authority=said.authority or "",
        port=port,
        path=said.uri or "",
        prefix="" if said.uri else said.prefix_rewrite or "",
    )


def envoy(slot: Redirect, route: Route) -> None:
    """Makes the route a redirect."""
    action = route.redirect
    action.response_code = _CODES[slot.code]
    action.scheme_redirect = slot.scheme
    action.host_redirect = slot.authority
    action.port_redirect = slot.port
    if slot.path:
        action.path_redirect = slot.path
    elif slot.prefix:
        action.prefix_rewrite = slot.prefix
    action.SetInParent()


def words(slot: Redirect) -> str:
    """For people."""
    parts = [
        f"{name} {value}"
        for name, value in (
            ("scheme", slot.scheme),
            ("host", slot.authority),
            ("port", slot.port),
            ("path", slot.path),
            ("path prefix", slot.prefix),
        )
        if value
    ]
    return f"The client is redirected ({slot.code}) to {', '.join(parts) or 'the same place'}."


FEATURE = Feature("redirect", intent, envoy, words, forwards=False)
