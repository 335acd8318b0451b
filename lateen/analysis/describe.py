"""What applies to a service or a Pod: the effective value of each setting, the object and field it comes from, and
what lost against it. Answered by the queries that translation itself asks, so it cannot tell another story.

    for section in graph.pull(service_sections, "default", "reviews", "default"): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from lateen.analysis.conflicts import losses
from lateen.analysis.lookup import selected
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.http_route import HTTPRoute
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import everywhere, get
from lateen.api.problems import at
from lateen.engine import Q
from lateen.features import FEATURES
from lateen.features.compile import service_routes
from lateen.intent.matching import route_match
from lateen.intent.policy import Policy, effective_policy
from lateen.intent.route import MatchKind, NamedMatch, RouteIntent, RouteMatch, TextMatch
from lateen.lib.ids import Ref
from lateen.model.authorization import authorization_policies
from lateen.model.destination_rules import Rule, destination_rule, named_by
from lateen.model.gateways import gateways_for
from lateen.model.hosts import service_host
from lateen.model.mesh import domain, mesh_ref
from lateen.model.peer_authentication import peer_policy
from lateen.model.policy_attachment import Workloads
from lateen.model.request_authentication import jwt_rules
from lateen.model.services import MeshService, selected_by
from lateen.model.virtual_services import MESH, http_rules, mesh_rivals, mesh_virtual_service, reader, rules_of
from lateen.model.visibility import Client, client_of, sidecar_for, visible
from lateen.model.workloads import Labels, pod_workload


class Line(msgspec.Struct, frozen=True):
    """One statement. `ref` and `path` say where it comes from; without a `ref` nobody said it: it is the default."""

    what: str
    value: str
    ref: Ref | None = None
    path: str = ""


class Section(msgspec.Struct, frozen=True):
    """Statements on one subject."""

    title: str
    lines: tuple[Line, ...]


_ADDED: Final = frozenset({"pod-template-hash", "controller-revision-hash", "security.istio.io/tlsMode"})
_FIELDS: Final = {
    "redirect": "redirect",
    "direct_response": "direct_response",
    "rewrite": "rewrite",
    "timeout": "timeout",
    "retries": "retries",
    "headers": "headers",
    "fault": "fault",
    "cors": "cors_policy",
}
"""The slots of a route and the fields of a rule that fill them."""


def service_sections(q: Q, namespace: str, name: str, client_namespace: str) -> tuple[Section, ...] | None:
    """A service of a namespace as clients of another see it; None when they see none of that name."""
    client = q(client_of, client_namespace, (), False)
    found = q(visible, client, service_host(name, namespace, q(domain)))
    if found is None:
        return None
    sections = [_service(found)]
    winner = q(mesh_virtual_service, client, found.host)
    sections.append(
        Section(f"Who decides, for clients in {client_namespace}", tuple(_deciders(q, client, found, winner)))
    )
    for port in found.ports:
        if port.protocol.is_http:
            lines = tuple(_routes(q, client, found.host, port.number, winner))
            sections.append(Section(f"Requests to port {port.number}", lines))
        sections.append(
            Section(f"Traffic policy on port {port.number}", tuple(_policies(q, client, found, port.number)))
        )
    groups = q(selected, found.namespace, found.selector) if found.selector else ()
    alike: dict[tuple[Line, ...], dict[str, None]] = {}
    for each in groups:
        alike.setdefault(tuple(_received(q, found.namespace, each.labels)), {})[_shown(each.labels)] = None
    for lines, labels in alike.items():
        sections.append(Section(f"At its workloads {' | '.join(labels)}", lines))
    return tuple(sections)


def _shown(labels: Labels) -> str:
    """Labels as people gave them, without those that controllers and injection add."""
    own = [(key, value) for key, value in labels if key not in _ADDED]
    return ", ".join(f"{key}={value}" for key, value in own) or "without labels"


def pod_sections(q: Q, namespace: str, name: str) -> tuple[Section, ...] | None:
    """A Pod: what it belongs to, and what its proxy was told; None when there is none."""
    found = q(pod_workload, namespace, name)
    if found is None:
        return None
    labels = found.labels
    own = [
        Line("labels", ", ".join(f"{key}={value}" for key, value in labels) or "none", found.ref),
        Line("identity", f"service account {found.service_account}", found.ref),
        *(Line("behind", host) for host in q(selected_by, namespace, labels)),
    ]
    client = q(client_of, namespace, labels, False)
    outward: list[Line] = []
    sidecar = q(sidecar_for, namespace, labels)
    scoped = (
        Line("sees", "what a Sidecar lets it see", sidecar, "spec.egress") if sidecar else Line("sees", "all services")
    )
    outward.append(scoped)
    outward += [
        Line(
            "own rule",
            f"DestinationRule {rule} picks it",
            Ref(DestinationRule.GROUP, DestinationRule.KIND, namespace, rule),
        )
        for rule in client.rules
    ]
    outward += [
        Line("gateway", "opens ports here", ref, "spec.servers")
        for ref in q(gateways_for, namespace, labels)
        if (gateway := q(_selector_of, ref)) and gateway
    ]
    return (
        Section("Pod", tuple(own)),
        Section("What it sends", tuple(outward)),
        Section("What it receives", tuple(_received(q, namespace, labels))),
    )


def _selector_of(q: Q, ref: Ref) -> Labels:
    found = q.read(ref)
    return tuple(sorted(found.spec.selector.items())) if found is not None else ()


def _service(found: MeshService) -> Section:
    ports = ", ".join(f"{each.number} ({each.protocol.name})" for each in found.ports)
    lines = [Line("host", found.host, found.ref), Line("ports", ports or "none", found.ref, "spec.ports")]
    if found.addresses:
        lines.append(Line("addresses", ", ".join(found.addresses), found.ref))
    return Section("Service", tuple(lines))


def _deciders(q: Q, client: Client, found: MeshService, winner: Ref | None) -> Iterator[Line]:
    yield Line("requests follow", winner.short if winner else "the service itself", winner)
    for other in q(mesh_rivals, client, found.host):
        if other != winner:
            yield from _lost(q, other)
    rule = q(destination_rule, client, found.host)
    for ref in rule.refs if rule is not None else ():
        yield Line("connections follow", ref.short, ref)
        yield from _lost(q, ref)
    counted = set(rule.refs) if rule is not None else set[Ref]()
    for each in everywhere(q, DestinationRule):
        if each.ref not in counted and counted & set(q(named_by, each.ref)):
            yield from _lost(q, each.ref)


def _lost(q: Q, ref: Ref) -> Iterator[Line]:
    for each in q(losses, ref).fields:
        yield Line("lost", f"{ref.short}: {each.winner.short} counts, {each.why}", ref, each.path)


# -- requests ----------------------------------------------------------------------------------------------


def _routes(q: Q, client: Client, host: str, port: int, winner: Ref | None) -> Iterator[Line]:
    routes = q(service_routes, client, host, port, winner, ()).routes
    own = get(q, VirtualService, winner.namespace, winner.name) if winner is not None else None
    delegates = own is not None and any(each.delegate is not None for each in own.spec.http)
    rules = list(_rules(q, client, winner, port)) if winner is not None and not delegates else []
    for number, route in enumerate(routes):
        index, rule = rules[number] if route.source is not None and number < len(rules) else (0, None)
        base = at("spec", "http", index) if rule is not None else ""
        source = route.source
        yield Line(match_words(route.match), _destinations(route), source, f"{base}.route" if base else "")
        for feature in FEATURES:
            slot = getattr(route, feature.name)
            if slot is None:
                continue
            field = _FIELDS.get(feature.name, "")
            said = rule is not None and bool(field and getattr(rule, field))
            path = f"{base}.{_wire(field)}" if said else ""
            yield Line(f"  {feature.name.replace('_', ' ')}", feature.words(slot), source if said else None, path)


def _rules(q: Q, client: Client, winner: Ref, port: int) -> Iterator[tuple[int, HTTPRoute]]:
    """The rule behind each route, with its place in the VirtualService, in the order of the routes."""
    places = {id(rule): index for index, rule in enumerate(q(rules_of, winner))}
    who = q(reader, winner, MESH, client.namespace, ())
    for bound in q(http_rules, winner, who, port):
        for said in bound.matches:
            if route_match(said) is not None:
                yield places[id(bound.http)], bound.http


def match_words(match: RouteMatch) -> str:
    """Which requests a match takes."""
    parts = [] if match.path == RouteMatch().path else [f"path {_text(match.path)}"]
    parts += [_named("header", each) for each in match.headers]
    parts += [_named("parameter", each) for each in match.queries]
    return "requests with " + " and ".join(parts) if parts else "every request"


def _named(what: str, each: NamedMatch) -> str:
    return f"{what} {each.name} {'not ' if each.invert else ''}{_text(each.text)}"


def _text(text: TextMatch) -> str:
    return "present" if text.kind is MatchKind.PRESENT else f"{text.kind.value} {text.value}"


def _destinations(route: RouteIntent) -> str:
    total = sum(each.weight for each in route.destinations)
    if not route.destinations:
        return "answered by the proxy itself"
    if len(route.destinations) == 1:
        return f"to {route.destinations[0].words}"
    return "to " + ", ".join(f"{each.words} {each.weight * 100 / total:g} %" for each in route.destinations)


# -- connections -------------------------------------------------------------------------------------------


def _policies(q: Q, client: Client, found: MeshService, port: int) -> Iterator[Line]:
    rule = q(destination_rule, client, found.host)
    for subset in ("", *(each.name for each in rule.subsets)) if rule is not None else ("",):
        policy = effective_policy(q, rule, subset, port)
        of = f"subset {subset}: " if subset else ""
        for field in Policy.__struct_fields__:
            value = getattr(policy, field)
            if value is None:
                continue
            ref, path = _said_by(q, rule, subset, port, field)
            yield Line(f"{of}{_wire(field)}", _compact(value), ref, path)
    if rule is None:
        yield Line("settings", "the defaults")


def _said_by(q: Q, rule: Rule | None, subset: str, port: int, field: str) -> tuple[Ref, str]:
    """The object and field that a block of the policy comes from."""
    for ref in rule.refs if rule is not None else ():
        each = get(q, DestinationRule, ref.namespace, ref.name)
        for index, own in enumerate(each.spec.subsets if each is not None else ()):
            if own.name == subset and (path := _level(own.traffic_policy, port, field)):
                return ref, f"{at('spec', 'subsets', index)}.trafficPolicy{path}"
    for ref in rule.refs if rule is not None else ():
        each = get(q, DestinationRule, ref.namespace, ref.name)
        if each is not None and each.spec.traffic_policy is not None:
            if path := _level(each.spec.traffic_policy, port, field):
                return ref, f"spec.trafficPolicy{path}"
            break
    return mesh_ref(), "data.mesh"


def _level(policy: Any, port: int, field: str) -> str:
    if policy is None:
        return ""
    for index, level in enumerate(policy.port_level_settings):
        if level.port is not None and level.port.number == port:
            return f".portLevelSettings[{index}].{_wire(field)}" if getattr(level, field, None) is not None else ""
    return f".{_wire(field)}" if getattr(policy, field, None) is not None else ""


# -- what comes in -----------------------------------------------------------------------------------------


def _received(q: Q, namespace: str, labels: Labels) -> Iterator[Line]:
    policy = q(peer_policy, namespace, labels)
    origin: Ref | None = policy.origins[-1] if policy.origins else None
    yield Line("mutual TLS", policy.mode.value, origin, "spec.mtls.mode" if origin else "")
    for port, mode in policy.ports:
        yield Line(f"mutual TLS on port {port}", mode.value, origin, f'spec.portLevelMtls["{port}"].mode')
    for lesser in policy.origins[:-1]:
        yield Line(
            "lost", f"{lesser.short}: {policy.origins[-1].short} counts, being narrower", lesser, "spec.mtls.mode"
        )
    workloads = Workloads(namespace, labels)
    attached = q(authorization_policies, workloads)
    for each in attached:
        words = f"{each.action}{' (dry run)' if each.dry_run else ''}, {len(each.policy.spec.rules)} rules"
        yield Line("authorization", words, each.policy.ref, "spec.rules")
    if not attached:
        yield Line("authorization", "every request is allowed")
    for rule in q(jwt_rules, workloads):
        yield Line("tokens of", str(rule.rule.issuer), rule.ref, at("spec", "jwtRules", rule.index))


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _wire(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(each.capitalize() for each in rest)
