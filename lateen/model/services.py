"""Services of the mesh: Kubernetes Services and the hosts of ServiceEntries in one shape.

A service has one full host name. A host claimed several times (a Service and ServiceEntries, in one or more
namespaces) is a list of candidates: the Kubernetes Service first, then the oldest; who asks gets the one of its
own namespace, else the first it may see. A ServiceEntry host without addresses gets a virtual one
(`auto_addresses`).

Source: https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from lateen.api.core.service import Service
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import everywhere, get, ref_of
from lateen.engine import Index, Q
from lateen.lib.ids import Ref
from lateen.model.auto_addresses import AUTO_RANGE, allocates, auto_address, auto_hosts, hosts_without_address
from lateen.model.distribution import distribution
from lateen.model.hosts import parse_service_host, service_host
from lateen.model.mesh import default_service_export, domain
from lateen.model.protocols import Protocol, parse_protocol, port_protocol

EXPORT_ANNOTATION = "networking.istio.io/exportTo"
EVERYWHERE = ("*",)


class Resolution(enum.StrEnum):
    """How a client finds the endpoints of a service."""

    ENDPOINTS = "endpoints"
    """The control plane knows them (EDS)."""
    DNS = "dns"
    """Every address the name resolves to."""
    DNS_ROUND_ROBIN = "dns-round-robin"
    """The first address the name resolves to, at each connection."""
    DYNAMIC = "dynamic"
    """Every address that the name in the traffic resolves to, looked up when it is first asked for."""
    PASSTHROUGH = "passthrough"
    """The address the client dialled."""


class ServicePort(msgspec.Struct, frozen=True, gc=False):
    """One port. `target_port` is a number, the name of a container port, or 0 when it equals the number."""

    number: int
    name: str
    protocol: Protocol
    target_port: int | str = 0


class MeshService(msgspec.Struct, frozen=True, kw_only=True):
    """A service by its host.

    `addresses` are virtual addresses or CIDRs clients dial, `exported_to` namespaces or `*`, `alias` the other
    name an ExternalName Service stands for, `selector` what its workloads have, `creation` an RFC 3339 time.
    """

    host: str
    namespace: str
    name: str
    ports: tuple[ServicePort, ...] = ()
    addresses: tuple[str, ...] = ()
    resolution: Resolution = Resolution.ENDPOINTS
    headless: bool = False
    external: bool = False
    alias: str = ""
    exported_to: tuple[str, ...] = EVERYWHERE
    selector: tuple[tuple[str, str], ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    distribution: str = ""
    """Whose endpoints a client prefers: those of its `zone`, of its `node`."""
    node_local: bool = False
    """Clients get the endpoints of their node only."""
    sticky: bool = False
    """A client stays with its endpoint."""
    ref: Ref
    creation: str = ""

    def port(self, number: int) -> ServicePort | None:
        """The port of that number, or None; a number may be one of UDP too, which no proxy looks at."""
        found = [each for each in self.ports if each.number == number]
        return min(found, key=lambda each: each.protocol is Protocol.UDP, default=None)

    def seen_from(self, namespace: str) -> bool:
        """True when clients of that namespace may see it."""
        return "*" in self.exported_to or namespace in self.exported_to


def service(q: Q, host: str) -> MeshService | None:
    """The first candidate for a host, whoever may see it."""
    return next(iter(q(candidates, host)), None)


def service_for(q: Q, host: str, namespace: str) -> MeshService | None:
    """The service that clients of a namespace get for a host by `exportTo` alone: that of their own namespace,
    else the first they may see."""
    seen = [each for each in q(candidates, host) if each.seen_from(namespace)]
    return next((each for each in seen if each.namespace == namespace), seen[0] if seen else None)


def candidates(q: Q, host: str) -> tuple[MeshService, ...]:
    """All services of that host: the Kubernetes Service first, then ServiceEntries, oldest first."""
    found: list[MeshService] = []
    if (parts := parse_service_host(host, q(domain))) is not None:
        name, namespace = parts
        if (own := q(kubernetes_service, namespace, name)) is not None:
            found.append(own)
    entries = [q(entry_service, each.namespace, each.name, host) for each in q.group(_BY_HOST, host)]
    found += sorted((each for each in entries if each is not None), key=_age)
    if len(found) > 1 and not found[0].subject_alt_names:  # who may answer is not for other namespaces to say
        beside = [each for each in found[1:] if each.namespace == found[0].namespace]
        names = tuple(dict.fromkeys(name for each in beside for name in each.subject_alt_names))
        found[0] = msgspec.structs.replace(found[0], subject_alt_names=names)
    return tuple(found)


def all_hosts(q: Q) -> tuple[str, ...]:
    """Every host of the mesh, sorted. Changes only when a host comes or goes."""
    named = {host for each in q(service_namespaces) for host in q(services_in, each)}
    return tuple(sorted(named | q(entry_hosts)))


def service_namespaces(q: Q) -> frozenset[str]:
    """The namespaces that have Kubernetes Services."""
    return q.groups(_SERVICES_IN)


def entries_in(q: Q, namespace: str) -> tuple[str, ...]:
    """The hosts of the ServiceEntries of a namespace, sorted."""
    return tuple(sorted({host.lower() for each in q.group(_ENTRIES_IN, namespace) for host in each.spec.hosts}))


def entry_hosts(q: Q) -> frozenset[str]:
    """The hosts of all ServiceEntries."""
    return frozenset(host.lower() for each in everywhere(q, ServiceEntry) for host in each.spec.hosts)


def services_in(q: Q, namespace: str) -> tuple[str, ...]:
    """The full names of the Kubernetes Services of a namespace, sorted."""
    cluster_domain = q(domain)
    return tuple(
        sorted(service_host(each.name, namespace, cluster_domain) for each in q.group(_SERVICES_IN, namespace))
    )


def address_ranges(q: Q) -> tuple[str, ...]:
    """The ranges that virtual addresses of Services and automatic ones are from, sorted: the first 16 bits of each, so
    that they stay as services come and go."""
    found = set(q.groups(_RANGES))
    if q(hosts_without_address):
        found.add(AUTO_RANGE)
    return tuple(sorted(found))


def hosts_at(q: Q, address: str) -> tuple[str, ...]:
    """The hosts that a virtual address stands for, sorted; mostly one."""
    cluster_domain = q(domain)
    found = {service_host(each.name, each.namespace, cluster_domain) for each in q.group(_SERVICES_AT, address)}
    found.update(host.lower() for each in q.group(_ENTRIES_AT, address) for host in each.spec.hosts)
    if (host := q(auto_hosts).get(address)) is not None:
        found.add(host)
    return tuple(sorted(found))


def kubernetes_service(q: Q, namespace: str, name: str) -> MeshService | None:
    """A Kubernetes Service, or None."""
    found = get(q, Service, namespace, name)
    if found is None:
        return None
    spec = found.spec
    alias = (spec.external_name or "").lower().rstrip(".") if spec.type == "ExternalName" else ""
    addresses = tuple(each for each in (spec.cluster_ips or (spec.cluster_ip,)) if each and each != "None")
    ports = tuple(
        ServicePort(
            port.port,
            port.name or "",
            port_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol or "TCP"),
            port.target_port or 0,
        )
        for port in spec.ports
        if port.protocol != "SCTP"
    )
    return MeshService(
        host=service_host(name, namespace, q(domain)),
        namespace=namespace,
        name=name,
        ports=ports,
        addresses=() if alias else addresses,
        headless=spec.cluster_ip == "None",
        alias=alias,
        exported_to=annotated_export(found.metadata.annotations, namespace) or q(_default_export, namespace),
        selector=() if alias else tuple(sorted(spec.selector.items())),
        distribution=distribution(q, namespace, spec.traffic_distribution, found.metadata.annotations),
        node_local=spec.internal_traffic_policy == "Local",
        sticky=spec.session_affinity == "ClientIP",
        ref=found.ref,
        creation=found.metadata.creation_timestamp,
    )


def entry_service(q: Q, namespace: str, name: str, host: str) -> MeshService | None:
    """The service that a ServiceEntry makes of one of its hosts, or None when it has no such host."""
    found = get(q, ServiceEntry, namespace, name)
    if found is None or host not in (each.lower() for each in found.spec.hosts):
        return None
    spec = found.spec
    ports = tuple(
        ServicePort(port.number, port.name, _entry_protocol(port.number, port.protocol or ""), port.target_port or 0)
        for port in spec.ports
    )
    addresses = spec.addresses
    if not addresses and (auto := q(auto_address, host)) is not None and q(allocates, namespace, name):
        addresses = (auto,)
    selector: Mapping[str, str] = spec.workload_selector.labels if spec.workload_selector is not None else {}
    return MeshService(
        host=host,
        namespace=namespace,
        name=name,
        ports=ports,
        addresses=addresses,
        resolution=_RESOLUTIONS.get(spec.resolution or "NONE", Resolution.PASSTHROUGH),
        external=spec.location != "MESH_INTERNAL",
        exported_to=export_to(spec.export_to, namespace) or q(_default_export, namespace),
        selector=tuple(sorted(selector.items())),
        subject_alt_names=spec.subject_alt_names,
        distribution=distribution(q, namespace, None, found.metadata.annotations),
        ref=found.ref,
        creation=found.metadata.creation_timestamp,
    )


def export_to(said: Iterable[str], namespace: str) -> tuple[str, ...]:
    """`exportTo` with `.` replaced by the object's own namespace, sorted; empty when nothing was said. `~` is
    kept: no namespace has that name, so nobody sees the object."""
    return tuple(sorted({namespace if each == "." else each for each in said}))


def selected_by(q: Q, namespace: str, labels: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Hosts of the services in a namespace whose selector picks workloads with those labels, sorted."""
    own = set(labels)
    return tuple(host for host, selector in q(_selectors, namespace) if own.issuperset(selector))


def _selectors(q: Q, namespace: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    cluster_domain = q(domain)
    found = [
        (service_host(each.name, namespace, cluster_domain), tuple(sorted(each.spec.selector.items())))
        for each in q.group(_SERVICES_IN, namespace)
        if each.spec.selector and each.spec.type != "ExternalName"
    ]
    for entry in q.group(_ENTRIES_IN, namespace):
        if entry.spec.workload_selector is not None and entry.spec.workload_selector.labels:
            selector = tuple(sorted(entry.spec.workload_selector.labels.items()))
            found += [(host.lower(), selector) for host in entry.spec.hosts]
    return tuple(sorted(found))


def _default_export(q: Q, namespace: str) -> tuple[str, ...]:
    return export_to(q(default_service_export), namespace) or EVERYWHERE


def annotated_export(annotations: Mapping[str, str], namespace: str) -> tuple[str, ...]:
    """Where a Kubernetes Service says it is exported to; empty when it says nothing."""
    said = (each.strip() for each in annotations.get(EXPORT_ANNOTATION, "").split(","))
    return export_to((each for each in said if each), namespace)


def _entry_protocol(number: int, said: str) -> Protocol:
    return port_protocol(number, "", said, "UDP" if parse_protocol(said) is Protocol.UDP else "TCP")


def _age(each: MeshService) -> tuple[str, str, str]:
    return (each.creation or "9999", each.namespace, each.name)


_RESOLUTIONS = {
    "STATIC": Resolution.ENDPOINTS,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.DYNAMIC,
    "NONE": Resolution.PASSTHROUGH,
}


def _entry_hosts(_key: Ref, entry: ServiceEntry) -> Iterable[str]:
    return [host.lower() for host in entry.spec.hosts]


def _cluster_addresses(_key: Ref, found: Service) -> Iterable[str]:
    return [each for each in (found.spec.cluster_ips or (found.spec.cluster_ip,)) if each and each != "None"]


def _ranges(key: Ref, found: Service) -> Iterable[str]:
    addresses = (each.split(".") for each in _cluster_addresses(key, found))
    return [f"{parts[0]}.{parts[1]}.0.0/16" for parts in addresses if len(parts) == 4]


def _entry_addresses(_key: Ref, found: ServiceEntry) -> Iterable[str]:
    return found.spec.addresses


def _namespace(key: Ref, _value: object) -> Iterable[str]:
    return (key.namespace,)


_ENTRY = ref_of(ServiceEntry, "", "").collection
_BY_HOST: Index[str, ServiceEntry] = Index(_ENTRY, _entry_hosts, "ServiceEntry by host")
_ENTRIES_IN: Index[str, ServiceEntry] = Index(_ENTRY, _namespace, "ServiceEntry by namespace")
_SERVICE = ref_of(Service, "", "").collection
_SERVICES_IN: Index[str, Service] = Index(_SERVICE, _namespace, "Service by namespace")
_SERVICES_AT: Index[str, Service] = Index(_SERVICE, _cluster_addresses, "Service by address")
_ENTRIES_AT: Index[str, ServiceEntry] = Index(_ENTRY, _entry_addresses, "ServiceEntry by address")
_RANGES: Index[str, Service] = Index(_SERVICE, _ranges, "Service by range")
