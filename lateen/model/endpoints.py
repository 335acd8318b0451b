"""Endpoints: the addresses behind a port of a service, with what clients must know of each.

For a Kubernetes Service they come from its EndpointSlices and the WorkloadEntries that its selector picks, for a
ServiceEntry from its inline endpoints or from the Pods and WorkloadEntries its `workloadSelector` picks. Only
endpoints that take new connections are listed. A readiness change therefore changes the answer of one query per port
of the service and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from lateen.api.core.endpoint_slice import EndpointSlice
from lateen.api.core.pod import Pod
from lateen.api.core.service import Service
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.api.objects import get, ref_of
from lateen.engine import Index, Q
from lateen.lib.ids import Ref
from lateen.lib.names import UNIX_PREFIX, is_address
from lateen.model.hosts import is_wildcard
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.services import MeshService, Resolution, ServicePort, entry_service, kubernetes_service
from lateen.model.workloads import (
    TLS_MODE_LABEL,
    Labels,
    Locality,
    Workload,
    entry_healthy,
    entry_workload,
    node_locality,
    parse_locality,
    pod_account,
    pod_ready,
    pod_workload,
    selected_entries,
    selected_pods,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one service port. `address` is an IP, a DNS name or `unix://PATH` (then `port` is 0).

    `tls` says a proxy there answers mutual TLS; `identity` is namespace and service account of who answers.
    """

    address: str
    port: int
    labels: Labels = ()
    locality: Locality = Locality()
    weight: int = 1
    tls: bool = False
    identity: tuple[str, str] | None = None
    namespace: str = ""
    name: str = ""
    workload: str = ""
    canonical_name: str = ""
    canonical_revision: str = ""
    network: str = ""
    source: Ref | None = None
    """The Pod or WorkloadEntry that it is."""
    node: str = ""


def endpoints(q: Q, ref: Ref, host: str, port: int) -> tuple[Endpoint, ...]:
    """The endpoints of one port of the service that the object `ref` makes of `host`, in a stable order."""
    found = q(_service, ref, host)
    service_port = found.port(port) if found is not None else None
    if found is None or service_port is None:
        return ()
    if ref.kind == Service.KIND:
        listed = _of_slices(q, found, service_port)
    elif found.selector:
        listed = _of_selector(q, found, service_port)
    else:
        listed = _of_entry(q, found, service_port)
    usable = (each for each in listed if reachable(found.resolution, each.address))
    return tuple(sorted(usable, key=lambda each: (each.locality, each.address, each.port)))


def reachable(resolution: Resolution, address: str) -> bool:
    """Whether a client can use an endpoint's address: names need a resolution that looks them up, sockets one that
    doesn't. Others are left out, or a proxy would refuse all endpoints for the one."""
    if address.startswith(UNIX_PREFIX):
        return resolution is Resolution.ENDPOINTS
    if resolution in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN):
        return bool(address)
    return is_address(address)


def identities(q: Q, ref: Ref, host: str, port: int) -> tuple[tuple[str, str], ...]:
    """Namespaces and service accounts that may answer for a service, sorted.

    With a selector they are those of all selected workloads, ready or not: clients know who may answer before an
    endpoint takes traffic, and a restart changes nothing.
    """
    found = q(_service, ref, host)
    if found is None:
        return ()
    if not found.selector:
        return tuple(sorted({each.identity for each in q(endpoints, ref, host, port) if each.identity is not None}))
    namespace = found.namespace
    accounts = {q(pod_account, namespace, name) for name in q(selected_pods, namespace, found.selector)}
    entries = (q(entry_workload, namespace, name) for name in q(selected_entries, namespace, found.selector))
    accounts |= {each.service_account for each in entries if each is not None}
    return tuple((namespace, account) for account in sorted(accounts))


def hosts_at(q: Q, address: str) -> tuple[tuple[str, str, str, int], ...]:
    """Services whose EndpointSlices list an address: (namespace, Service name, port name, target port)."""
    found = [
        (each.namespace, name, port.name or "", port.port)
        for each in q.group(_SLICES_BY_ADDRESS, address)
        if (name := each.metadata.labels.get(SERVICE_NAME_LABEL))
        for port in each.ports
        if port.port is not None
    ]
    return tuple(sorted(set(found)))


def _service(q: Q, ref: Ref, host: str) -> MeshService | None:
    if ref.kind == Service.KIND:
        return q(kubernetes_service, ref.namespace, ref.name)
    return q(entry_service, ref.namespace, ref.name, host)


def _of_slices(q: Q, service: MeshService, port: ServicePort) -> Iterable[Endpoint]:
    seen: set[tuple[str, int]] = set()
    for each in q.group(_SLICES_BY_SERVICE, (service.namespace, service.name)):
        target = next((p.port for p in each.ports if (p.name or "") == port.name or len(service.ports) == 1), None)
        if target is None:
            continue
        for endpoint in each.endpoints:
            ready = endpoint.conditions.ready is not False
            if not ready or not endpoint.addresses or (endpoint.addresses[0], target) in seen:
                continue
            seen.add((endpoint.addresses[0], target))
            pod = endpoint.target_ref
            workload = (
                q(pod_workload, pod.namespace or service.namespace, pod.name or "")
                if pod is not None and pod.kind == "Pod"
                else None
            )
            if workload is not None:
                yield _of_workload(q, workload, endpoint.addresses[0], target)
            else:
                yield Endpoint(
                    address=endpoint.addresses[0],
                    port=target,
                    locality=q(node_locality, endpoint.node_name or ""),
                    namespace=service.namespace,
                    node=endpoint.node_name or "",
                )
    yield from _of_entries(q, service, port)


def _of_selector(q: Q, service: MeshService, port: ServicePort) -> Iterable[Endpoint]:
    namespace = service.namespace
    for name in q(selected_pods, namespace, service.selector):
        workload = q(pod_workload, namespace, name)
        if workload is not None and workload.addresses and q(pod_ready, namespace, name):
            target = workload_port(port, dict(workload.ports))
            yield _of_workload(q, workload, workload.addresses[0], target)
    yield from _of_entries(q, service, port)


def _of_entries(q: Q, service: MeshService, port: ServicePort) -> Iterable[Endpoint]:
    """The WorkloadEntries that a service selects."""
    for name in q(selected_entries, service.namespace, service.selector):
        workload = q(entry_workload, service.namespace, name)
        if workload is not None and workload.addresses and q(entry_healthy, service.namespace, name):
            yield _at(q, workload, port)


def _of_entry(q: Q, service: MeshService, port: ServicePort) -> Iterable[Endpoint]:
    entry = get(q, ServiceEntry, service.namespace, service.ref.name)
    assert entry is not None
    by_name = service.resolution in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)
    if not entry.spec.endpoints and by_name and not is_wildcard(service.host):
        yield Endpoint(address=service.host, port=workload_port(port, {}), namespace=service.namespace)
    for each in entry.spec.endpoints:
        workload = Workload(
            namespace=service.namespace,
            name=service.ref.name,
            addresses=(each.address or "",),
            labels=tuple(sorted(each.labels.items())),
            service_account=each.service_account or "",
            tls=not service.external and each.labels.get(TLS_MODE_LABEL) == "istio",
            locality=parse_locality(each.locality or ""),
            ports=tuple(sorted(each.ports.items())),
            weight=each.weight or 1,
            network=each.network or "",
            ref=service.ref,
        )
        yield _at(q, workload, port)


def workload_port(port: ServicePort, named: Mapping[str, int]) -> int:
    """The port of a workload behind a service port: its target port, looked up by name among the workload's named
    ports, else the service port's own number."""
    if isinstance(port.target_port, str):
        return named.get(port.target_port, port.number)
    return port.target_port or port.number


def entry_port(port: ServicePort, named: Mapping[str, int]) -> int:
    """The port of a WorkloadEntry or inline endpoint behind a service port: what it says itself for a port of that
    name outranks the target port."""
    return named[port.name] if port.name in named else workload_port(port, {})


def _at(q: Q, workload: Workload, port: ServicePort) -> Endpoint:
    """An endpoint at a WorkloadEntry or inline endpoint."""
    address = workload.addresses[0]
    if address.startswith(UNIX_PREFIX):
        return _of_workload(q, workload, address, 0)
    return _of_workload(q, workload, address, entry_port(port, dict(workload.ports)))


def _of_workload(q: Q, workload: Workload, address: str, port: int) -> Endpoint:
    accepts = workload.tls and q(peer_policy, workload.namespace, workload.labels).at(port) is not MtlsMode.DISABLE
    account = workload.service_account
    return Endpoint(
        address=address,
        port=port,
        labels=workload.labels,
        locality=workload.locality,
        weight=workload.weight,
        tls=accepts,
        identity=(workload.namespace, account) if account else None,
        namespace=workload.namespace,
        name=workload.name,
        workload=workload.workload,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        network=workload.network,
        source=workload.ref if workload.ref.kind in (Pod.KIND, WorkloadEntry.KIND) else None,
        node=workload.node,
    )


def _slice_service(key: Ref, value: EndpointSlice) -> Iterable[tuple[str, str]]:
    return [(key.namespace, name)] if (name := value.metadata.labels.get(SERVICE_NAME_LABEL)) else []


def _slice_addresses(_key: Ref, value: EndpointSlice) -> Iterable[str]:
    return [address for endpoint in value.endpoints for address in endpoint.addresses]


_SLICE = ref_of(EndpointSlice, "", "").collection
_SLICES_BY_SERVICE: Index[tuple[str, str], EndpointSlice] = Index(_SLICE, _slice_service, "EndpointSlice by Service")
_SLICES_BY_ADDRESS: Index[str, EndpointSlice] = Index(_SLICE, _slice_addresses, "EndpointSlice by address")
