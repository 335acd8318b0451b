"""What a sidecar serves: the ports of its workload that Services (or a Sidecar's `ingress`) declare.

A port that nothing declares is still let in, by the passthrough chains. Several Services may declare one port; the
first by host decides its protocol.

Source: https://istio.io/latest/docs/reference/config/networking/sidecar/#IstioIngressListener
"""

from __future__ import annotations

import msgspec

from lateen.api.istio.destination_rule import ConnectionPoolSettings
from lateen.api.istio.gateway import ServerTLSSettings
from lateen.api.istio.sidecar import IstioIngressListener, Sidecar
from lateen.api.objects import get
from lateen.engine import Q
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.lib.names import UNIX_PREFIX
from lateen.model.destination_rules import destination_rule, port_policy
from lateen.model.endpoints import Endpoint, endpoints, entry_port, hosts_at, workload_port
from lateen.model.hosts import service_host
from lateen.model.mesh import domain
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.protocols import Protocol, parse_protocol
from lateen.model.services import MeshService, candidates, selected_by
from lateen.model.visibility import ANY_ADDRESS, LOOPBACK, client_of, sidecar_for
from lateen.model.workloads import pod_workload, selected_pods


class InboundPort(msgspec.Struct, frozen=True, kw_only=True):
    """One declared port of a workload.

    `host` and `service_port` name the Service port it belongs to (empty and 0 for a Sidecar's ingress listener),
    `endpoint` where the application listens when it isn't the address that was dialled: `IP:PORT` or `unix:PATH`;
    `rewritten_port` the port it listens on at that address when it's another one. `bind` is where the proxy itself
    listens, empty when connections are captured. `tls` is the TLS of clients that ends here; `protocol` is then what
    is inside.
    """

    port: int
    protocol: Protocol
    mode: MtlsMode
    host: str = ""
    namespace: str = ""
    service: str = ""
    service_port: int = 0
    endpoint: str = ""
    rewritten_port: int = 0
    bind: str = ""
    tls: ServerTLSSettings | None = None
    pool: ConnectionPoolSettings | None = None
    origins: tuple[Ref, ...] = ()


def inbound_ports(q: Q, scope: Scope) -> tuple[InboundPort, ...]:
    """The declared ports of the workload behind a sidecar, by number; empty for a router."""
    if scope.router:
        return ()
    policy = q(peer_policy, scope.namespace, scope.labels)
    sidecar = _sidecar(q, scope)
    default_pool = sidecar.spec.inbound_connection_pool if sidecar is not None else None
    if sidecar is not None and sidecar.spec.ingress:
        return tuple(
            _of_ingress(scope, each, policy.at(each.port.number or 0), default_pool, sidecar.ref)
            for each in sidecar.spec.ingress
        )
    ports: dict[int, InboundPort] = {}
    for service, target, number in q(served, scope):
        declared = service.port(number)
        if declared is None or declared.protocol is Protocol.UDP or target in ports:
            continue
        pool, rules = (default_pool, ()) if default_pool is not None else _own_pool(q, scope, service.host, number)
        ports[target] = InboundPort(
            port=target,
            protocol=declared.protocol,
            mode=policy.at(target),
            host=service.host,
            namespace=service.namespace,
            service=service.name,
            service_port=number,
            pool=pool,
            origins=(service.ref, *rules, *policy.origins, *((sidecar.ref,) if sidecar is not None else ())),
        )
    return tuple(ports[each] for each in sorted(ports))


def _of_ingress(
    scope: Scope,
    listener: IstioIngressListener,
    mode: MtlsMode,
    default_pool: ConnectionPoolSettings | None,
    ref: Ref,
) -> InboundPort:
    number = listener.port.number or 0
    said = listener.default_endpoint or ""
    bind = listener.bind or ""
    if listener.capture_mode == "NONE" and bind in ANY_ADDRESS:
        # A listener on every address would take the calls of the application to others' ports of that number.
        bind = scope.addresses[0] if scope.addresses else ANY_ADDRESS[1]
    endpoint = _endpoint(said)
    if listener.capture_mode == "NONE" and not endpoint:  # the address that was dialled is the proxy's own
        endpoint = f"{LOOPBACK}:{_rewritten_port(said, number) or number}"
    protocol = parse_protocol(listener.port.protocol or "")
    tls = listener.tls if mode is MtlsMode.DISABLE else None
    return InboundPort(
        port=number,
        protocol=_INSIDE.get(protocol, protocol) if tls is not None else protocol,
        mode=mode,
        endpoint=endpoint,
        rewritten_port=0 if endpoint else _rewritten_port(said, number),
        bind=bind if listener.capture_mode == "NONE" else "",
        tls=tls,
        pool=listener.connection_pool or default_pool,
        origins=(ref,),
    )


def served(q: Q, scope: Scope) -> tuple[tuple[MeshService, int, int], ...]:
    """The service ports behind which the workload stands: (service, workload port, service port number)."""
    named = dict(scope.ports)
    own = entry_port if scope.entry else workload_port
    found: list[tuple[MeshService, int, int]] = []
    for host in q(selected_by, scope.namespace, scope.labels):
        for each in q(candidates, host):
            if each.namespace == scope.namespace and each.selector and set(scope.labels).issuperset(each.selector):
                found += [(each, own(port, named), port.number) for port in each.ports]
    cluster_domain = q(domain)
    for address in scope.addresses:
        for namespace, name, port_name, target in q(hosts_at, address):
            for each in q(candidates, service_host(name, namespace, cluster_domain)):
                found += [
                    (each, target, port.number)
                    for port in each.ports
                    if (port.name == port_name or len(each.ports) == 1) and each.namespace == namespace
                ]
    return tuple(dict.fromkeys(found))


def peers(q: Q, scope: Scope) -> tuple[Endpoint, ...]:
    """The workloads that are like this one, each once: the endpoints of the first service it serves, else the Pods
    with its labels."""
    for service, _, number in q(served, scope):
        if found := q(endpoints, service.ref, service.host, number):
            return found
    pods = (q(pod_workload, scope.namespace, name) for name in q(selected_pods, scope.namespace, scope.labels))
    return tuple(
        Endpoint(address=each.addresses[0], port=1, locality=each.locality)
        for each in pods
        if each is not None and each.addresses
    )


def _sidecar(q: Q, scope: Scope) -> Sidecar | None:
    ref = q(sidecar_for, scope.namespace, scope.labels)
    return get(q, Sidecar, ref.namespace, ref.name) if ref is not None else None


def _own_pool(q: Q, scope: Scope, host: str, port: int) -> tuple[ConnectionPoolSettings | None, tuple[Ref, ...]]:
    rule = q(destination_rule, q(client_of, scope.namespace, scope.labels, False), host)
    policy = port_policy(rule.policy, port) if rule is not None else None
    if rule is None or policy is None or policy.connection_pool is None:
        return None, ()
    return policy.connection_pool, rule.refs


def _endpoint(said: str) -> str:
    """A `defaultEndpoint` other than the workload's own address."""
    if said.startswith(UNIX_PREFIX):
        return "unix:" + said.removeprefix(UNIX_PREFIX)
    address, _, port = said.rpartition(":")
    return said if port.isdigit() and address not in _OWN_ADDRESS else ""


def _rewritten_port(said: str, listened: int) -> int:
    """The port of a `defaultEndpoint` at the workload's own address, 0 when it's the one listened on."""
    address, _, port = said.rpartition(":")
    return int(port) if port.isdigit() and address in _OWN_ADDRESS and int(port) != listened else 0


_INSIDE = {Protocol.HTTPS: Protocol.HTTP, Protocol.TLS: Protocol.TCP}
"""What is inside of TLS that has ended."""
_OWN_ADDRESS = ("", "0.0.0.0", "[::]")  # noqa: S104 (compared, not bound)
