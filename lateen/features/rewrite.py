"""Rewrite: the upstream sees another path or host name than the client asked for.

`uri` replaces the part of the path that the rule matched: the prefix, or the whole path of an exact or regular
expression match. `uriRegexRewrite` replaces whatever its expression finds, and wins over `uri`.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRewrite
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route

from lateen.engine import Q
from lateen.features.feature import Feature, Rule
from lateen.intent.route import Rewrite


def intent(_: Q, rule: Rule) -> Rewrite | None:
    """The rewrite of a rule, or None."""
    said = rule.http.rewrite
    if said is None:
        return None
    authority = said.authority or ""
    if (expression := said.uri_regex_rewrite) is not None:
        found = Rewrite(regex=expression.match or "", substitution=expression.rewrite or "", authority=authority)
    else:
        found = Rewrite(prefix=said.uri or "", authority=authority)
    return found if found != Rewrite() else None


def envoy(slot: Rewrite, route: Route) -> None:
    """Writes the rewrite of a route that forwards."""
    action = route.route
    if slot.prefix:
        action.prefix_rewrite = slot.prefix
    if slot.regex:
        action.regex_rewrite.pattern.regex = slot.regex
        action.regex_rewrite.substitution = slot.substitution
    if slot.authority:
        action.host_rewrite_literal = slot.authority


def words(slot: Rewrite) -> str:
    """For people."""
    parts: list[str] = []
    if slot.prefix:
        parts.append(f"{slot.prefix} in place of the path that matched")
    if slot.regex:
        parts.append(f"{slot.substitution!r} where the path has {slot.regex!r}")
    if slot.authority:
        parts.append(f"the host name {slot.authority}")
    return f"The upstream sees {' and '.join(parts)}."


FEATURE = Feature("rewrite", intent, envoy, words)
