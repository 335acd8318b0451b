"""What a client may see: `exportTo` of the services and `egress` of the Sidecar that applies to the client.

A `Client` is the facet of a proxy that decides about everything outbound: its namespace, the Sidecar resource that
applies to it, and the DestinationRules with a `workloadSelector` that pick it. All proxies of a namespace usually
share one Client, and with it every cluster, route and endpoint.

A Sidecar with a selector that matches outranks the one without a selector in the namespace, which outranks the one
in the root namespace; routers have none. An egress listener with a port says which hosts are seen on that port;
the one without a port says it for all other ports; a Unix socket or a forward proxy (protocol HTTP_PROXY) gives all
ports of its hosts. `~ns/host` takes away what other patterns of the listener gave.

Source: https://istio.io/latest/docs/reference/config/networking/sidecar/
"""

from __future__ import annotations

import msgspec

from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.sidecar import IstioEgressListener, Sidecar
from lateen.api.objects import get, in_namespace, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.lib.names import UNIX_PREFIX
from lateen.model.hosts import covers
from lateen.model.mesh import root_namespace
from lateen.model.protocols import Protocol, parse_protocol
from lateen.model.services import MeshService, ServicePort, candidates
from lateen.model.workloads import Labels

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)


class Client(msgspec.Struct, frozen=True, cache_hash=True):
    """Who asks, as far as outbound translation cares."""

    namespace: str
    sidecar: Ref | None = None
    rules: tuple[str, ...] = ()
    """Names of DestinationRules of the namespace whose workloadSelector picks this client."""
    router: bool = False


class EgressListener(msgspec.Struct, frozen=True):
    """One egress listener: hosts as (namespace or `*`, host pattern); port 0 for all ports. `protocol` is what it
    says its traffic is, empty when it says nothing. `bind` is where it said it listens: an address or `unix://PATH`;
    `captures` says that redirection brings connections to it, so that it opens no port of its own."""

    port: int
    hosts: tuple[tuple[str, str], ...]
    excluded: tuple[tuple[str, str], ...] = ()
    protocol: str = ""
    bind: str = ""
    captures: bool = True

    @property
    def address(self) -> str:
        """Where it listens; empty: at the addresses of its services."""
        return self.bind or (LOOPBACK if not self.captures else ANY_ADDRESS[1] if self.whole else "")

    @property
    def socket(self) -> bool:
        """True for a Unix socket."""
        return self.bind.startswith(UNIX_PREFIX)

    @property
    def whole(self) -> bool:
        """True when the request says which port of a host it is for: on a Unix socket and at a forward proxy."""
        return self.socket or parse_protocol(self.protocol) is Protocol.HTTP_PROXY

    def port_seen(self, port: ServicePort) -> ServicePort:
        """A port as clients use it: by the listener's protocol. HTTP of any version leaves the service's own."""
        said = parse_protocol(self.protocol) if self.protocol else port.protocol
        if said is port.protocol or (said.is_http and port.protocol.is_http):
            return port
        return msgspec.structs.replace(port, protocol=said)

    def sees(self, service: MeshService) -> bool:
        """True when it imports that service."""
        return _any(self.hosts, service) and not _any(self.excluded, service)


def client_of(q: Q, namespace: str, labels: Labels, router: bool) -> Client:
    """The Client facet of proxies with those labels in a namespace."""
    have = dict(labels)
    rules = tuple(name for name, selector in q(_selecting_rules, namespace) if selects(dict(selector), have))
    return Client(namespace, None if router else q(sidecar_for, namespace, labels), rules, router)


def sidecar_for(q: Q, namespace: str, labels: Labels) -> Ref | None:
    """The Sidecar resource that applies to sidecars with those labels, or None."""
    have = dict(labels)
    own = q(_sidecars, namespace)
    for ref, selector in own:
        if selector and selects(dict(selector), have):
            return ref
    default = next((ref for ref, selector in own if not selector), None)
    if default is None and namespace != (root := q(root_namespace)):
        default = next((ref for ref, selector in q(_sidecars, root) if not selector), None)
    return default


def egress(q: Q, client: Client) -> tuple[EgressListener, ...]:
    """The egress listeners that scope a client; empty when nothing scopes it."""
    found = get(q, Sidecar, client.sidecar.namespace, client.sidecar.name) if client.sidecar is not None else None
    if found is None:
        return ()
    return tuple(_listener(each, client) for each in found.spec.egress)


def visible(q: Q, client: Client, host: str) -> MeshService | None:
    """The service a client gets for a full host name, with only the ports it may see; None when there is none."""
    seen = [each for each in q(candidates, host) if each.seen_from(client.namespace)]
    if listeners := q(egress, client):
        seen = [scoped for each in seen if (scoped := _scoped(each, listeners)) is not None]
    return next((each for each in seen if each.namespace == client.namespace), seen[0] if seen else None)


def listening(listeners: tuple[EgressListener, ...], number: int) -> EgressListener | None:
    """The listener for connections to a port: that of the port, else the one of all other ports."""
    ordinary = [each for each in listeners if not each.whole]
    return next((each for each in ordinary if each.port == number), next((e for e in ordinary if not e.port), None))


def numbered_ports(q: Q, client: Client, host: str) -> tuple[ServicePort, ...]:
    """The ports of a host that a client reaches by their number."""
    found = q(visible, client, host)
    if found is None:
        return ()
    if not (listeners := q(egress, client)):
        return found.ports
    return tuple(
        port for port in found.ports if (each := listening(listeners, port.number)) is not None and each.sees(found)
    )


def listens_itself(q: Q, namespace: str, labels: Labels) -> bool:
    """True when a Sidecar lets proxies with those labels listen at the workload's own address, which they then have
    to know."""
    ref = q(sidecar_for, namespace, labels)
    found = get(q, Sidecar, ref.namespace, ref.name) if ref is not None else None
    listeners = found.spec.ingress if found is not None else ()
    return any(each.capture_mode == "NONE" and (each.bind or "") in ANY_ADDRESS for each in listeners)


def places_listeners(q: Q, namespace: str, labels: Labels) -> bool:
    """True when a Sidecar says where outbound listeners of proxies with those labels are, or where unknown traffic
    goes: they then get all their listeners and tables whole."""
    ref = q(sidecar_for, namespace, labels)
    found = get(q, Sidecar, ref.namespace, ref.name) if ref is not None else None
    if found is None:
        return False
    policy = found.spec.outbound_traffic_policy
    if policy is not None and policy.egress_proxy is not None:
        return True
    said = (_listener(each, Client(namespace, ref)) for each in found.spec.egress)
    return any(each.address or each.whole for each in said)


def _scoped(service: MeshService, listeners: tuple[EgressListener, ...]) -> MeshService | None:
    whole = any(each.whole and each.sees(service) for each in listeners)
    ports: list[ServicePort] = []
    for port in service.ports:
        found = listening(listeners, port.number)
        if found is not None and found.sees(service):
            ports.append(found.port_seen(port))
        elif whole:
            ports.append(port)
    if not ports:
        return None
    return service if tuple(ports) == service.ports else msgspec.structs.replace(service, ports=tuple(ports))


def _listener(listener: IstioEgressListener, client: Client) -> EgressListener:
    port = (listener.port.number or 0) if listener.port is not None else 0
    included: list[tuple[str, str]] = []
    excluded: list[tuple[str, str]] = []
    for each in listener.hosts:
        namespace, _, pattern = each.rpartition("/")
        if namespace == "~":
            continue
        into = excluded if namespace.startswith("~") else included
        namespace = namespace.removeprefix("~")
        into.append((client.namespace if namespace == "." else namespace or "*", pattern.lower()))
    protocol = (listener.port.protocol or "") if listener.port is not None else ""
    bind = listener.bind or ""
    captures = listener.capture_mode != "NONE" and not bind.startswith(UNIX_PREFIX)
    return EgressListener(port, tuple(included), tuple(excluded), protocol, bind, captures)


def _any(patterns: tuple[tuple[str, str], ...], service: MeshService) -> bool:
    return any(
        namespace in ("*", service.namespace) and covers(pattern, service.host) for namespace, pattern in patterns
    )


def selecting_labels(q: Q, namespace: str) -> frozenset[tuple[str, str]]:
    """The labels by which Sidecars and DestinationRules tell clients of a namespace apart."""
    selectors = [selector for _, selector in (*q(_sidecars, namespace), *q(_selecting_rules, namespace))]
    return frozenset(label for each in selectors for label in each)


def _sidecars(q: Q, namespace: str) -> tuple[tuple[Ref, Labels], ...]:
    found = sorted(in_namespace(q, Sidecar, namespace), key=lambda each: each.metadata.creation_timestamp or "9999")
    return tuple(
        (each.ref, tuple(sorted(each.spec.workload_selector.labels.items())) if each.spec.workload_selector else ())
        for each in found
    )


def _selecting_rules(q: Q, namespace: str) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (each.name, tuple(sorted(each.spec.workload_selector.match_labels.items())))
        for each in in_namespace(q, DestinationRule, namespace)
        if each.spec.workload_selector is not None
    )
