"""CORS: which web pages of other origins a browser may let call this route.

The proxy answers the preflight (OPTIONS) of an origin that is allowed and adds the response headers browsers
look for. `unmatchedPreflights` says what becomes of the preflight of any other origin: FORWARD (the default)
leaves it to the application, IGNORE answers it without permission.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#CorsPolicy
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.http.cors.v3 import cors_pb2

from lateen.api.istio.http_match import StringMatch
from lateen.engine import Q
from lateen.features.encoding import pack, set_percent, set_text
from lateen.features.feature import Direction, Feature, HttpFilter, Phase, Rule
from lateen.intent.matching import text_match
from lateen.intent.route import Cors, MatchKind, TextMatch

FILTER = "envoy.filters.http.cors"
ANY_ORIGIN = TextMatch(MatchKind.REGEX, ".*")


def intent(_: Q, rule: Rule) -> Cors | None:
    """The policy of a rule, or None."""
    said = rule.http.cors_policy
    if said is None:
        return None
    origins = [_origin(text_match(each)) for each in said.allow_origins if each != StringMatch()]
    origins += [_origin(TextMatch(MatchKind.EXACT, each)) for each in said.allow_origin]
    return Cors(
        origins=tuple(origins),
        methods=said.allow_methods,
        headers=said.allow_headers,
        expose=said.expose_headers,
        max_age_s=int(said.max_age.seconds) if said.max_age else None,
        credentials=said.allow_credentials,
        forward_unmatched=said.unmatched_preflights != "IGNORE",
    )


def _origin(match: TextMatch) -> TextMatch:
    """Presence and a lone star both mean every origin."""
    every = match.kind is MatchKind.PRESENT or match == TextMatch(MatchKind.EXACT, "*")
    return ANY_ORIGIN if every else match


def envoy(slot: Cors, route: Route) -> None:
    """Writes the route's own configuration of the CORS filter."""
    config = cors_pb2.CorsPolicy()
    for origin in slot.origins:
        set_text(config.allow_origin_string_match.add(), origin)
    config.allow_methods = ",".join(slot.methods)
    config.allow_headers = ",".join(slot.headers)
    config.expose_headers = ",".join(slot.expose)
    if slot.max_age_s is not None:
        config.max_age = str(slot.max_age_s)
    if slot.credentials is not None:
        config.allow_credentials.value = slot.credentials
    set_percent(config.filter_enabled.default_value, 100)
    config.forward_not_matching_preflights.value = slot.forward_unmatched
    pack(route.typed_per_filter_config[FILTER], config)


def words(slot: Cors) -> str:
    """For people."""
    origins = ", ".join(f"{each.kind} {each.value}" for each in slot.origins) or "no other origin"
    return f"Browsers may call it from pages of {origins}."


FEATURE = Feature(
    "cors",
    intent,
    envoy,
    words,
    forwards=False,
    phase=Phase.CORS,
    filter=HttpFilter(FILTER, cors_pb2.Cors, frozenset({Direction.OUTBOUND, Direction.GATEWAY})),
)
