"""From the rules of the configuration to the routes of a virtual host.

Each match of a rule is a route of its own; every feature is asked for its slot. A route that every request
matches ends the list, because nothing behind it would ever be reached. A service without a VirtualService gets
one such route to itself, with the same defaults as a rule that says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lateen.api.istio.http_route import Destination, HTTPRoute, HTTPRouteDestination
from lateen.api.istio.selectors import PortSelector
from lateen.engine import Q
from lateen.features import FEATURES
from lateen.features.feature import Rule
from lateen.intent.destination import counted, destinations
from lateen.intent.matching import route_match
from lateen.intent.route import DirectResponse, MatchKind, RouteIntent, RouteMatch, Routes
from lateen.intent.route_table import GatewayHost
from lateen.lib.ids import Ref
from lateen.model.destination_rules import destination_rule
from lateen.model.virtual_services import MESH, BoundRule, Reader, http_rules, origins, reader
from lateen.model.visibility import Client, visible
from lateen.model.workloads import Labels

DEFAULT_NAME = "default"
NOWHERE = DirectResponse(500)
"""What a rule does that sends requests nowhere and says nothing else."""


def service_routes(q: Q, client: Client, host: str, port: int, virtual_service: Ref | None, labels: Labels) -> Routes:
    """The routes of a service for sidecars with those labels; `virtual_service` is the one that counts, if any.

    One that has nothing to say to these proxies about this port leaves the service as it is without; a name that no
    service has then has no routes.
    """
    found = q(visible, client, host)
    refs = (found.ref,) if found is not None else ()
    if virtual_service is not None:
        who = q(reader, virtual_service, MESH, client.namespace, labels)
        routes = q(rule_routes, client, virtual_service, who, port)
        if routes.routes:
            return Routes(routes.routes, _joined(routes.origins, refs))
    if found is None:
        return Routes((), refs)
    to = HTTPRouteDestination(destination=Destination(host=host, port=PortSelector(number=port)))
    http = HTTPRoute(route=(to,))
    rule = Rule(http, client, port, destinations(q, client, http.route, port))
    route = msgspec.structs.replace(_route(q, rule, RouteMatch()), name=DEFAULT_NAME)
    return Routes((route,), _joined(refs, _hash_origins(q, client, (route,))))


def gateway_routes(q: Q, client: Client, entry: GatewayHost) -> Routes:
    """The routes of a virtual host of a gateway: those of its VirtualServices in order, what matches every request
    behind the rest."""
    found: list[RouteIntent] = []
    refs: tuple[Ref, ...] = entry.gateways
    for each in entry.bindings:
        routes = q(rule_routes, client, each.virtual_service, Reader(each.gateway, client.namespace), each.number)
        found += routes.routes
        refs = _joined(refs, routes.origins)
    found.sort(key=lambda route: route.match.every)
    return Routes(_until_every(found), refs, entry.https_only)


def rule_routes(q: Q, client: Client, virtual_service: Ref, who: Reader, port: int) -> Routes:
    """The routes that the rules of a VirtualService make for a reader and a port."""
    routes = _until_every(
        route
        for bound in q(http_rules, virtual_service, who, port)
        for route in _rule_routes(q, client, bound, virtual_service, port)
    )
    return Routes(routes, _joined(q(origins, virtual_service), _hash_origins(q, client, routes)))


def _rule_routes(q: Q, client: Client, bound: BoundRule, source: Ref, port: int) -> list[RouteIntent]:
    http = msgspec.structs.replace(bound.http, route=counted(bound.http.route))
    rule = Rule(http, client, port, destinations(q, client, http.route, port))
    routes: list[RouteIntent] = []
    for each in bound.matches:
        match = route_match(each, tokens=client.router)
        if match is None:
            continue
        route = _route(q, rule, match, source)
        if each is not None:
            name = ".".join(part for part in (http.name, each.name) if part)
            route = msgspec.structs.replace(route, name=name, stat_prefix=each.stat_prefix or "")
        routes.append(route)
    return routes


def _route(q: Q, rule: Rule, match: RouteMatch, source: Ref | None = None) -> RouteIntent:
    slots: dict[str, Any] = {each.name: each.intent(q, rule) for each in FEATURES if not each.forwards}
    forwards = slots["redirect"] is None and slots["direct_response"] is None
    if forwards and not rule.destinations:
        slots["direct_response"] = NOWHERE
    elif forwards:
        slots |= {each.name: each.intent(q, rule) for each in FEATURES if each.forwards}
    return RouteIntent(
        name=rule.http.name or "",
        match=match,
        destinations=rule.destinations if forwards else (),
        operation=_operation(rule, match, source),
        source=source,
        **slots,
    )


def _operation(rule: Rule, match: RouteMatch, source: Ref | None) -> str:
    """`host:port/path` for one destination, else the VirtualService's name in place of the host."""
    path = match.path.value + ("*" if match.path.kind is MatchKind.PREFIX else "")
    if len(rule.destinations) == 1 or source is None:
        return f"{rule.destinations[0].host}:{rule.destinations[0].port}{path}"
    return f"{source.name}:{rule.port}{path}"


def _until_every(routes: Iterable[RouteIntent]) -> tuple[RouteIntent, ...]:
    found: list[RouteIntent] = []
    for each in routes:
        found.append(each)
        if each.match.every:
            break
    return tuple(found)


def _hash_origins(q: Q, client: Client, routes: tuple[RouteIntent, ...]) -> tuple[Ref, ...]:
    hosts = {to.host for each in routes if each.hash_policy is not None for to in each.destinations}
    rules = [rule for host in sorted(hosts) if (rule := q(destination_rule, client, host)) is not None]
    return tuple(ref for rule in rules for ref in rule.refs)


def _joined(*groups: tuple[Ref, ...]) -> tuple[Ref, ...]:
    return tuple(dict.fromkeys(ref for group in groups for ref in group))
