"""Checks of VirtualServices: what they refer to, and whether they count at all."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.conflicts import sidecar_losses
from lateen.analysis.lookup import known_host, unknown_host_remedy
from lateen.api.core.service import Service
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.http_route import Destination
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import everywhere, get
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.lib.suggest import nearest
from lateen.model.destination_rules import destination_rule
from lateen.model.gateways import gateway_exists, server_hosts
from lateen.model.hosts import overlap, parse_service_host, resolve
from lateen.model.mesh import default_virtual_service_export, domain, root_namespace
from lateen.model.virtual_services import MESH, delegate, delegate_ref, full_gateway, left_out, roots_of
from lateen.model.visibility import Client


@check("IST0101", Level.WARNING, "A VirtualService names a gateway that is not there", VirtualService)
def unknown_gateway(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A VirtualService is bound to a Gateway that does not exist. Its rules apply to no request at that gateway.

    Usually the name is mistyped, or the Gateway is in another namespace: a name without a namespace means the
    VirtualService's own.

        gateways: [bookinfo-gatewy]

    Write the name as `namespace/name`, or create the Gateway.
    """
    for path, name in _gateways(subject):
        namespace, own = _gateway_name(subject, name)
        if name != MESH and not q(gateway_exists, namespace, own):
            by_name = {each.partition("/")[2]: each for each in q(_gateway_names)}
            near = by_name.get(own) or by_name.get(nearest(own, by_name) or "")
            remedy = f"did you mean {near}?" if near else "create the Gateway"
            yield Said(path, f"there is no Gateway {namespace}/{own}", remedy)


@check("IST0101", Level.WARNING, "A route leads to a host or port that is not there", VirtualService)
def unknown_destination(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A route, mirror or TCP rule sends traffic to a host for which there is no Service and no ServiceEntry (or
    none that is exported to this namespace), or to a port that the service does not have. Requests it matches are
    answered with 503.

        route:
        - destination: {host: reviws}

    Correct the name, or create the Service or ServiceEntry. A short name means a service in the VirtualService's
    own namespace.
    """
    for path, destination in _destinations(subject):
        host = resolve(destination.host, subject.namespace, q(domain))
        service = q(known_host, host, subject.namespace)
        if service is None:
            yield Said(f"{path}.host", f"there is no service {host}", unknown_host_remedy(q, host, subject.namespace))
        elif destination.port is not None and destination.port.number and not service.alias:
            number = destination.port.number
            if service.port(number) is None:
                ports = ", ".join(str(each.number) for each in service.ports)
                yield Said(f"{path}.port.number", f"{host} has no port {number}", f"it has {ports or 'none'}")


@check("IST0101", Level.WARNING, "A route leads to a subset that is not there", VirtualService)
def unknown_subset(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A route names a subset that no DestinationRule for the host defines. Requests it matches are answered with
    503.

        route:
        - destination: {host: reviews, subset: v4}

    Define the subset in a DestinationRule for that host, or correct its name. Which DestinationRule counts depends
    on the client's namespace first, then the service's, then the root namespace.
    """
    for path, destination in _destinations(subject):
        host = resolve(destination.host, subject.namespace, q(domain))
        if not destination.subset or q(known_host, host, subject.namespace) is None:
            continue
        rule = q(destination_rule, Client(subject.namespace), host)
        if rule is None:
            message = f"there is no subset {destination.subset}: no DestinationRule is for {host}"
            yield Said(f"{path}.subset", message, "create a DestinationRule with that subset")
        elif rule.subset(destination.subset) is None:
            names = ", ".join(each.name for each in rule.subsets)
            message = f"{rule.refs[0].short} has no subset {destination.subset}"
            yield Said(f"{path}.subset", message, f"it has {names}" if names else "add the subset to it")


@check("IST0101", Level.WARNING, "A rule delegates to a VirtualService that is not there", VirtualService)
def unknown_delegate(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A rule hands over to another VirtualService that does not exist, that names hosts itself and so is no delegate,
    or that is not exported to this namespace. The rule then has no effect.

        http:
        - delegate: {name: reviews-rules, namespace: team-a}

    Create that VirtualService without `hosts`, export it, or correct the name.
    """
    for index, rule in enumerate(subject.spec.http):
        if rule.delegate is None:
            continue
        ref = delegate_ref(rule.delegate, subject.ref)
        hosts = q(_hosts, ref.namespace, ref.name)
        path = at("spec", "http", index, "delegate")
        if hosts is None:
            yield Said(path, f"there is no VirtualService {ref.namespace}/{ref.name}", "create it")
        elif hosts:
            message = f"VirtualService {ref.namespace}/{ref.name} names hosts, so it is no delegate"
            yield Said(path, message, "take its hosts away")
        elif q(delegate, ref, subject.namespace) is None:
            message = f"VirtualService {ref.namespace}/{ref.name} is not exported to namespace {subject.namespace}"
            yield Said(path, message, "add the namespace to its exportTo")


@check("LTN0240", Level.WARNING, "A rule of a delegate is left out", VirtualService)
def left_out_rules(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A root VirtualService delegates to another, and one of that one's rules cannot be taken over: one of its matches
    is not within any match of the root's rule, or an expression stands beside another match of the same property.
    The whole rule has no effect there. Both objects say so, each in its own place.

        http:                                       # the root
        - match: [{uri: {prefix: /shop}}]
          delegate: {name: shop, namespace: team-a}

        http:                                       # VirtualService team-a/shop
        - match: [{uri: {prefix: /basket}}]         # not within /shop: left out
          route: [{destination: {host: basket}}]

    Narrow the delegate's match (`/shop/basket`), leave it away, or widen the root's.
    """
    for each in q(left_out, subject.ref):
        path = at("spec", "http", each.rule, "delegate")
        yield Said(path, f"{each.delegate.short} http[{each.number}] is left out: {each.why}", "widen the match here")
    for root in q(roots_of, subject.ref):
        for each in q(left_out, root):
            if each.delegate == subject.ref:
                message = f"{root.short} http[{each.rule}] leaves this rule out: {each.why}"
                yield Said(at("spec", "http", each.number), message, "narrow the match here")


@check("LTN0241", Level.WARNING, "A delegate to which nothing delegates", VirtualService)
def unused_delegate(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A VirtualService without hosts is a delegate: its rules apply where another VirtualService names it. None does,
    so they apply to no request.

    Name it in a rule (`delegate: {name: ..., namespace: ...}`), or give it `hosts`.
    """
    if not subject.spec.hosts and not q(roots_of, subject.ref):
        yield Said("spec", "it has no hosts and no VirtualService delegates to it", "set hosts, or delegate to it")


@check("IST0112", Level.WARNING, "A destination needs a port", VirtualService)
def ambiguous_port(q: Q, subject: VirtualService) -> Iterator[Said]:
    """The service of a destination has several ports and the destination names none, so it is not clear which is
    meant.

        route:
        - destination: {host: prometheus}

    Add `port: {number: ...}` to the destination.
    """
    for path, destination in _destinations(subject):
        host = resolve(destination.host, subject.namespace, q(domain))
        service = q(known_host, host, subject.namespace)
        if service is not None and destination.port is None and len(service.ports) > 1:
            ports = ", ".join(f"{each.number} ({each.name})" for each in service.ports)
            yield Said(path, f"{host} has several ports and the destination names none", f"set port.number: {ports}")


@check("IST0132", Level.WARNING, "A host is on none of the gateways", VirtualService)
def host_not_on_gateway(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A VirtualService bound to gateways names a host that no server of any of them accepts. Requests for the host
    never reach the rules.

        hosts: [shop.example.com]   # and the Gateway has hosts: [www.example.com]

    Add the host to the Gateway, or correct it here. A Gateway may also restrict a host to VirtualServices of some
    namespace: `team-a/*.example.com`.
    """
    named = [_gateway_name(subject, each) for each in subject.spec.gateways if each != MESH]
    accepted = [hosts for namespace, name in named if (hosts := q(_accepted, namespace, name)) is not None]
    if MESH in subject.spec.gateways or not accepted:
        return
    for index, host in enumerate(subject.spec.hosts):
        full = resolve(host, subject.namespace, q(domain))
        patterns = {
            pattern for hosts in accepted for namespace, pattern in hosts if namespace in ("*", subject.namespace)
        }
        if not any(overlap(pattern, name) for pattern in patterns for name in (full, host.lower())):
            gateways = ", ".join("/".join(each) for each in named)
            remedy = f"accepted from this namespace: {', '.join(sorted(patterns)) or 'none'}"
            yield Said(at("spec", "hosts", index), f"no server of {gateways} accepts {host}", remedy)


@check("IST0109", Level.WARNING, "Another VirtualService counts for the host", VirtualService)
def conflicting_hosts(q: Q, subject: VirtualService) -> Iterator[Said]:
    """Two VirtualServices for sidecars (gateway `mesh`) name the same host. They are not merged: for a client only
    one counts, private ones before those exported to its namespace before public ones, then the oldest. The finding
    names the winner, the reason, and the namespaces whose clients it is about when it is not all of them. All other
    hosts of this VirtualService keep their rules.

    Put the rules into one VirtualService, or let one delegate to the other.
    """
    for index, loss in q(sidecar_losses, subject.ref):
        host = subject.spec.hosts[index]
        message = f"requests for {host} follow {loss.winner.short} and not this one, {loss.why}"
        yield Said(loss.path, message, "merge the two")


def _gateways(subject: VirtualService) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(subject.spec.gateways):
        yield at("spec", "gateways", index), name
    for part in ("http", "tls", "tcp"):
        for index, rule in enumerate(getattr(subject.spec, part)):
            for inner, match in enumerate(rule.match):
                for last, name in enumerate(match.gateways):
                    yield at("spec", part, index, "match", inner, "gateways", last), name


def _gateway_name(subject: VirtualService, name: str) -> tuple[str, str]:
    namespace, _, own = full_gateway(name, subject.namespace).rpartition("/")
    return namespace, own


@check("LTN0320", Level.INFO, "A VirtualService routes the service of another namespace", VirtualService)
def anothers_service(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A VirtualService says where requests for a Service of another namespace go, for clients of all namespaces that
    it is exported to. That is Istio's way, and how a team of its own keeps the routes of others; it is also how whoever
    may write in any namespace takes over the traffic to a service.

        metadata: {namespace: guest}
        spec: {hosts: [payments.shop.svc.cluster.local], ...}

    Set `defaultVirtualServiceExportTo: ["."]` in the mesh configuration, so that a VirtualService is for the clients of
    its own namespace unless it says more, or write it in the namespace of the service.
    """
    exported = set(subject.spec.export_to or q(default_virtual_service_export))
    in_mesh = not subject.spec.gateways or MESH in subject.spec.gateways
    if not in_mesh or subject.namespace == q(root_namespace) or exported <= {".", subject.namespace}:
        return
    for index, host in enumerate(subject.spec.hosts):
        found = parse_service_host(resolve(host, subject.namespace, q(domain)), q(domain))
        if found is not None and found[1] != subject.namespace and get(q, Service, found[1], found[0]) is not None:
            yield Said(
                at("spec", "hosts", index),
                f"clients of other namespaces call {found[0]} of {found[1]} by these rules",
                f"write it in {found[1]}, or set exportTo: [.]",
            )


def _destinations(subject: VirtualService) -> Iterator[tuple[str, Destination]]:
    for index, rule in enumerate(subject.spec.http):
        for inner, route in enumerate(rule.route):
            yield at("spec", "http", index, "route", inner, "destination"), route.destination
        if rule.mirror is not None:
            yield at("spec", "http", index, "mirror"), rule.mirror
        for inner, mirror in enumerate(rule.mirrors):
            yield at("spec", "http", index, "mirrors", inner, "destination"), mirror.destination
    for part, rules in (("tls", subject.spec.tls), ("tcp", subject.spec.tcp)):
        for index, rule in enumerate(rules):
            for inner, route in enumerate(rule.route):
                yield at("spec", part, index, "route", inner, "destination"), route.destination


def _gateway_names(q: Q) -> tuple[str, ...]:
    return tuple(f"{each.namespace}/{each.name}" for each in everywhere(q, Gateway))


def _accepted(q: Q, namespace: str, name: str) -> tuple[tuple[str, str], ...] | None:
    """What the servers of a Gateway accept, as (namespace or `*`, host pattern); None when there is no such one."""
    found = get(q, Gateway, namespace, name)
    if found is None:
        return None
    return tuple(pair for server in found.spec.servers for pair in server_hosts(server.hosts, namespace))


def _hosts(q: Q, namespace: str, name: str) -> tuple[str, ...] | None:
    found = get(q, VirtualService, namespace, name)
    return found.spec.hosts if found is not None else None
