"""Which VirtualService counts for a host, and which of its rules for a proxy.

For a sidecar one VirtualService counts: the most specific host first, then private before exported to the
client's namespace before public, then the oldest; nothing is merged. On a gateway all that name it count, the oldest
first, then by name and namespace. What a match says about the proxy itself (`gateways`, `sourceLabels`,
`sourceNamespace`, `port`) is decided here; what it says about requests is left to the proxy.

Lookup is by index of the hosts a VirtualService names, so a change dirties only what asked for one of them.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lateen.api.istio.http_match import HTTPMatchRequest
from lateen.api.istio.http_route import Delegate, Destination, HTTPRoute
from lateen.api.istio.stream_route import RouteDestination, TCPRoute, TLSRoute
from lateen.api.istio.traffic_rules import ClientMatch
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import everywhere, get, ref_of, selects
from lateen.engine import Index, Q
from lateen.lib.ids import Ref
from lateen.model.delegates import merged
from lateen.model.hosts import overlap, parse_service_host, resolve, wildcards_over
from lateen.model.mesh import default_virtual_service_export, domain
from lateen.model.services import EVERYWHERE, export_to
from lateen.model.visibility import Client, EgressListener, egress
from lateen.model.workloads import Labels

MESH = "mesh"
"""The gateway name that means all sidecars."""


Order = tuple[str, str, str]
"""Creation time, name, namespace."""
Rank = tuple[int, Order]
"""Export class, then age."""


class Binding(msgspec.Struct, frozen=True):
    """A VirtualService as far as choosing one needs it: full host names or wildcards, namespaces (or `*`) that see
    it, and its age."""

    ref: Ref
    hosts: tuple[str, ...]
    exported: tuple[str, ...]
    creation: str

    @property
    def order(self) -> Order:
        """Where it stands among others: by age, then by name."""
        return (self.creation, self.ref.name, self.ref.namespace)


class Reader(msgspec.Struct, frozen=True, cache_hash=True):
    """Whose rules are read: `gateway` is `mesh` or `namespace/name`; `labels` only those that some match asks
    for (`source_labels`), so that proxies with different labels share what does not depend on them. Requests at a
    gateway come from no workload: it has none, and no `sourceLabels` match."""

    gateway: str
    namespace: str
    labels: Labels = ()


class BoundRule(msgspec.Struct, frozen=True):
    """An HTTP rule with those of its matches that apply to a reader; None means every request."""

    http: HTTPRoute
    matches: tuple[HTTPMatchRequest | None, ...]


class LeftOut(msgspec.Struct, frozen=True):
    """A rule of a delegate that a rule of its root (`rule`) leaves out, and why."""

    rule: int
    delegate: Ref
    number: int
    why: str


def full_gateway(said: str, owner: str) -> str:
    """A gateway as `namespace/name`, as an object in namespace `owner` names it; `mesh` stays. A name with a dot is
    the old `name.namespace[.svc.DOMAIN]`."""
    namespace, slash, name = said.rpartition("/")
    if said == MESH or (slash and namespace != "."):
        return said
    if not slash and "." in name:
        name, namespace, *_ = name.split(".")
        return f"{namespace}/{name}"
    return f"{owner}/{name}"


def mesh_virtual_service(q: Q, client: Client, host: str) -> Ref | None:
    """The VirtualService that counts for sidecars of a client and a full host name, or None."""
    for pattern in _patterns(host):
        ranks = {each.ref: rank for each in q(_bound_to_host, pattern) if (rank := _rank(q, client, each)) is not None}
        if ranks:
            return min(ranks, key=ranks.__getitem__)
    return None


def mesh_rivals(q: Q, client: Client, host: str) -> tuple[Ref, ...]:
    """The VirtualServices for sidecars of a client that name exactly this full host or wildcard; the first counts."""
    ranks = {each.ref: rank for each in q(_bound_to_host, host) if (rank := _rank(q, client, each)) is not None}
    return tuple(sorted(ranks, key=ranks.__getitem__))


def contested(q: Q, host: str) -> bool:
    """True when several VirtualServices for sidecars name exactly this full host or wildcard."""
    return len(q(_bound_to_host, host)) > 1


def mesh_hosts(q: Q, client: Client) -> tuple[str, ...]:
    """The hosts and wildcards that VirtualServices for sidecars of a client name, sorted. Most are services; the
    others are names that exist by the VirtualService alone."""
    seen = (each for each in q(_mesh_bindings) if _rank(q, client, each) is not None)
    return tuple(sorted({host for each in seen for host in each.hosts}))


def named_hosts(q: Q) -> frozenset[str]:
    """The hosts and wildcards that VirtualServices for sidecars name, whoever sees them."""
    return frozenset(host for each in q(_mesh_bindings) for host in each.hosts)


def gateway_virtual_services(q: Q, namespace: str, gateway: str) -> tuple[Binding, ...]:
    """The VirtualServices bound to a gateway (`namespace/name`) that routers of a namespace may see, in the order
    in which their rules are joined."""
    seen = (
        each
        for each in q(_bound_to_gateway, gateway)
        if _export_class(each.exported, each.ref.namespace, namespace) is not None
    )
    return tuple(sorted(seen, key=lambda each: each.order))


def hosts_of(q: Q, ref: Ref) -> tuple[str, ...]:
    """The full host names of a VirtualService."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    return () if found is None else tuple(resolve(each, ref.namespace, q(domain)) for each in found.spec.hosts)


def routes_streams(q: Q, ref: Ref) -> bool:
    """True when a VirtualService has rules for TLS or TCP."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    return found is not None and bool(found.spec.tls or found.spec.tcp)


def source_labels(q: Q, ref: Ref) -> frozenset[tuple[str, str]]:
    """The labels that matches of a VirtualService ask the client's proxy for."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    if found is None:
        return frozenset()
    return frozenset(_labels(q(rules_of, ref), found))


def asked_labels(q: Q) -> frozenset[tuple[str, str]]:
    """The labels that matches of any VirtualService ask the client's proxy for."""
    return q.groups(_BY_SOURCE_LABEL)


def reader(q: Q, ref: Ref, gateway: str, namespace: str, labels: Labels) -> Reader:
    """The Reader of a VirtualService for proxies with those labels."""
    asked = q(source_labels, ref)
    return Reader(gateway, namespace, tuple(each for each in labels if each in asked))


def http_rules(q: Q, ref: Ref, who: Reader, port: int) -> tuple[BoundRule, ...]:
    """The HTTP rules of a VirtualService that apply to a reader and requests that come by `port`."""
    bound: list[BoundRule] = []
    for rule in q(rules_of, ref):
        if not rule.match:
            bound.append(BoundRule(rule, (None,)))
        elif matches := tuple(each for each in rule.match if _applies(each, ref.namespace, who, port)):
            bound.append(BoundRule(rule, matches))
    return tuple(bound)


def tls_rules(q: Q, ref: Ref, who: Reader, port: int) -> tuple[TLSRoute, ...]:
    """The TLS rules of a VirtualService that apply to a reader, each with only the matches that do and
    full host names."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    rules = found.spec.tls if found is not None else ()
    return tuple(
        msgspec.structs.replace(rule, match=matches, route=_full_routes(q, rule.route, ref))
        for rule in rules
        if (matches := tuple(each for each in rule.match if _applies(each, ref.namespace, who, port)))
    )


def tcp_rules(q: Q, ref: Ref, who: Reader, port: int) -> tuple[TCPRoute, ...]:
    """The TCP rules of a VirtualService that apply to a reader, each with only the matches that do and
    full host names."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    bound: list[TCPRoute] = []
    for rule in found.spec.tcp if found is not None else ():
        matches = tuple(each for each in rule.match if _applies(each, ref.namespace, who, port))
        if matches or not rule.match:
            bound.append(msgspec.structs.replace(rule, match=matches, route=_full_routes(q, rule.route, ref)))
    return tuple(bound)


def rules_of(q: Q, ref: Ref) -> tuple[HTTPRoute, ...]:
    """The HTTP rules of a VirtualService with full names, those of its delegates in place of the rules that name
    them."""
    return q(_joined, ref)[0]


def left_out(q: Q, ref: Ref) -> tuple[LeftOut, ...]:
    """The rules of its delegates that a VirtualService cannot take over."""
    return q(_joined, ref)[1]


def leads_to(q: Q, ref: Ref) -> tuple[str, ...]:
    """The hosts that the rules of a VirtualService send anything to, sorted."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    hosts: set[str] = set()
    for rule in q(rules_of, ref):
        hosts.update(each.destination.host for each in rule.route)
        hosts.update(each.destination.host for each in rule.mirrors)
        if rule.mirror is not None:
            hosts.add(rule.mirror.host)
    for stream in (*found.spec.tls, *found.spec.tcp) if found is not None else ():
        hosts.update(resolve(each.destination.host, ref.namespace, q(domain)) for each in stream.route)
    return tuple(sorted(hosts))


def roots_of(q: Q, ref: Ref) -> tuple[Ref, ...]:
    """The VirtualServices that delegate to one."""
    return tuple(each.ref for each in q.group(_BY_DELEGATE, ref))


def _joined(q: Q, ref: Ref) -> tuple[tuple[HTTPRoute, ...], tuple[LeftOut, ...]]:
    found = get(q, VirtualService, ref.namespace, ref.name)
    cluster_domain = q(domain)
    rules: list[HTTPRoute] = []
    lost: list[LeftOut] = []
    for number, each in enumerate(found.spec.http if found is not None else ()):
        rule = _with_full_names(each, ref.namespace, cluster_domain)
        if rule.delegate is None or rule.route or rule.redirect is not None:
            rules.append(rule)
        elif (other := q(delegate, delegate_ref(rule.delegate, ref), ref.namespace)) is not None:
            theirs = tuple(_with_full_names(inner, other.namespace, cluster_domain) for inner in other.spec.http)
            taken, dropped = merged(rule, theirs)
            rules += taken
            lost += [LeftOut(number, other.ref, each.number, each.why) for each in dropped]
    return tuple(rules), tuple(lost)


def origins(q: Q, ref: Ref) -> tuple[Ref, ...]:
    """The VirtualService and those it delegates to."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    rules = found.spec.http if found is not None else ()
    return (ref, *dict.fromkeys(delegate_ref(rule.delegate, ref) for rule in rules if rule.delegate is not None))


def delegate(q: Q, ref: Ref, namespace: str) -> VirtualService | None:
    """A VirtualService that a root in that namespace may delegate to: it names no hosts and is exported there."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    if found is None or found.spec.hosts:
        return None
    exported = _exported(found, q(default_virtual_service_export))
    return found if _export_class(exported, ref.namespace, namespace) is not None else None


def delegate_ref(said: Delegate, root: Ref) -> Ref:
    """The VirtualService that a rule of a root delegates to."""
    return ref_of(VirtualService, said.namespace or root.namespace, said.name or "")


def _with_full_names(rule: HTTPRoute, namespace: str, cluster_domain: str) -> HTTPRoute:
    def full(said: Destination) -> Destination:
        return msgspec.structs.replace(said, host=resolve(said.host, namespace, cluster_domain))

    return msgspec.structs.replace(
        rule,
        match=tuple(
            msgspec.structs.replace(each, gateways=_gateways(each.gateways, namespace)) if each.gateways else each
            for each in rule.match
        ),
        route=tuple(msgspec.structs.replace(each, destination=full(each.destination)) for each in rule.route),
        mirror=full(rule.mirror) if rule.mirror is not None else None,
        mirrors=tuple(msgspec.structs.replace(each, destination=full(each.destination)) for each in rule.mirrors),
    )


def _full_routes(q: Q, routes: tuple[RouteDestination, ...], ref: Ref) -> tuple[RouteDestination, ...]:
    cluster_domain = q(domain)
    return tuple(
        msgspec.structs.replace(
            each,
            destination=msgspec.structs.replace(
                each.destination, host=resolve(each.destination.host, ref.namespace, cluster_domain)
            ),
        )
        for each in routes
    )


def _applies(match: ClientMatch, owner: str, who: Reader, port: int) -> bool:
    if match.port and match.port != port:
        return False
    if match.gateways and who.gateway not in _gateways(match.gateways, owner):
        return False
    if match.source_namespace and match.source_namespace != who.namespace:
        return False
    return selects(match.source_labels, dict(who.labels))


def _gateways(said: tuple[str, ...], owner: str) -> tuple[str, ...]:
    """Gateways by their full names; none said means the mesh."""
    return tuple(full_gateway(each, owner) for each in said) or (MESH,)


def _rank(q: Q, client: Client, each: Binding) -> Rank | None:
    """Where a VirtualService stands among those for the same host, the least first; None when not seen."""
    export = _export_class(each.exported, each.ref.namespace, client.namespace)
    if export is None or (not client.router and not _imported(q(egress, client), each)):
        return None
    return (export, each.order)


def _export_class(exported: tuple[str, ...], owner: str, namespace: str) -> int | None:
    """0 private to the client's namespace, 1 exported to it by name, 2 public, None when it may not see it."""
    if "*" in exported:
        return 2
    if namespace not in exported:
        return None
    return 0 if exported == (owner,) else 1


def _imported(listeners: tuple[EgressListener, ...], each: Binding) -> bool:
    """True when no Sidecar scopes the client, or one of its listeners imports a host of the VirtualService."""
    return not listeners or any(
        namespace in ("*", each.ref.namespace) and overlap(pattern, host)
        for listener in listeners
        for namespace, pattern in listener.hosts
        for host in each.hosts
    )


def _exported(each: VirtualService, default: tuple[str, ...]) -> tuple[str, ...]:
    return export_to(each.spec.export_to or default, each.namespace) or EVERYWHERE


def _bindings(q: Q, found: Iterable[VirtualService]) -> tuple[Binding, ...]:
    cluster_domain, default = q(domain), q(default_virtual_service_export)
    return tuple(
        Binding(
            each.ref,
            tuple(resolve(host, each.namespace, cluster_domain) for host in each.spec.hosts),
            _exported(each, default),
            each.metadata.creation_timestamp or "9999",
        )
        for each in found
    )


def _bound_to_host(q: Q, pattern: str) -> tuple[Binding, ...]:
    """The VirtualServices for sidecars that name a full host or wildcard."""
    found = q.group(_BY_HOST, pattern)
    if (parts := parse_service_host(pattern, q(domain))) is not None:
        found += q.group(_BY_HOST, ".".join(parts) + _SHORT)
    return _bindings(q, found)


def _bound_to_gateway(q: Q, gateway: str) -> tuple[Binding, ...]:
    return _bindings(q, q.group(_BY_GATEWAY, gateway))


def _mesh_bindings(q: Q) -> tuple[Binding, ...]:
    found = everywhere(q, VirtualService)
    return _bindings(q, (each for each in found if MESH in _gateways(each.spec.gateways, each.namespace)))


def _patterns(host: str) -> Iterator[str]:
    """The host and the wildcards that cover it, the most specific first."""
    yield host
    yield from wildcards_over(host)


_SHORT = "/short"
"""What follows `name.namespace` in the index, for a host without a dot: its full name needs the mesh's domain."""


def _hosts(key: Ref, value: VirtualService) -> Iterable[str]:
    if MESH not in _gateways(value.spec.gateways, key.namespace):
        return ()
    return [
        host
        if (host := resolve(each, key.namespace, "")) == each.lower()
        else f"{each.lower()}.{key.namespace}{_SHORT}"
        for each in value.spec.hosts
    ]


def _gateway_names(key: Ref, value: VirtualService) -> Iterable[str]:
    return [each for each in _gateways(value.spec.gateways, key.namespace) if each != MESH]


def _delegates(key: Ref, value: VirtualService) -> Iterable[Ref]:
    return [delegate_ref(each.delegate, key) for each in value.spec.http if each.delegate is not None]


def _labels(rules: Iterable[HTTPRoute], value: VirtualService) -> Iterable[tuple[str, str]]:
    matches: list[ClientMatch] = [match for rule in rules for match in rule.match]
    matches += [match for rule in (*value.spec.tls, *value.spec.tcp) for match in rule.match]
    return [label for match in matches for label in match.source_labels.items()]


def _source_labels(_key: Ref, value: VirtualService) -> Iterable[tuple[str, str]]:
    return _labels(value.spec.http, value)


_KIND = ref_of(VirtualService, "", "").collection
_BY_HOST: Index[str, VirtualService] = Index(_KIND, _hosts, "VirtualService by host")
_BY_GATEWAY: Index[str, VirtualService] = Index(_KIND, _gateway_names, "VirtualService by gateway")
_BY_DELEGATE: Index[Ref, VirtualService] = Index(_KIND, _delegates, "VirtualService by delegate")
_BY_SOURCE_LABEL: Index[tuple[str, str], VirtualService] = Index(
    _KIND, _source_labels, "VirtualService by source label"
)
