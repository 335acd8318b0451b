"""What an outbound cluster is to do: one port (and subset) of one service as one client sees it.

The name is `outbound|port|subset|host`. Transport is decided here: what a DestinationRule says about TLS counts;
without it, services of the mesh get automatic mutual TLS (to the endpoints that can), others are left alone.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/tls-configuration/
"""

from __future__ import annotations

import enum

import msgspec

from lateen.api.istio.destination_rule import ClientTLSSettings
from lateen.engine import Q
from lateen.intent.destination import cluster_name
from lateen.intent.policy import Policy, effective_policy
from lateen.lib.ids import Ref
from lateen.lib.spiffe import SpiffeId
from lateen.model.destination_rules import destination_rule
from lateen.model.endpoints import endpoints, identities
from lateen.model.hosts import covers
from lateen.model.listing import parts, seen, visible_services
from lateen.model.mesh import auto_mtls, mesh_ref, trust_domain
from lateen.model.protocols import Protocol
from lateen.model.services import MeshService, Resolution
from lateen.model.sharing import alike
from lateen.model.visibility import Client, visible
from lateen.model.workloads import Labels

AUTOMATIC_PREFIX = "automatic|"
"""Before the server name of mutual TLS that is passed on: the name of a cluster that does so."""


class Transport(enum.StrEnum):
    """How connections of a cluster are secured."""

    PLAIN = "plain"
    AUTO = "auto"
    """Mutual TLS to the endpoints that can, plain to others."""
    MESH = "mesh"
    """Mutual TLS with the workload's own certificate."""
    TLS = "tls"
    """What `policy.tls` says (SIMPLE, MUTUAL)."""


class OutboundCluster(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. `service` answers for it: for an alias that is the service it stands for."""

    name: str
    host: str
    port: int
    subset: str
    namespace: str
    service_name: str
    protocol: Protocol
    resolution: Resolution
    source: Ref
    source_host: str
    source_port: int
    policy: Policy
    transport: Transport
    external: bool = False
    subject_alt_names: tuple[str, ...] = ()
    """Of the service itself (a ServiceEntry)."""
    labels: Labels = ()
    distribution: str = ""
    node_local: bool = False
    peers: tuple[str, ...] = ()
    """URI names of who may answer; empty: anybody the root certificate vouches for."""
    origins: tuple[Ref, ...] = ()

    @property
    def sni(self) -> str:
        """The server name of mutual TLS inside the mesh."""
        return f"outbound_.{self.port}_.{self.subset}_.{self.host}"


def parse_cluster_name(name: str) -> tuple[str, int, str] | None:
    """Host, port and subset of an outbound cluster's name, or None for another name."""
    parts = name.split("|")
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdigit():
        return None
    return parts[3], int(parts[1]), parts[2]


def outbound_names(q: Q, client: Client) -> tuple[str, ...]:
    """The names of all outbound clusters a client may use."""
    return tuple(dict.fromkeys(name for by, part in parts(q, client) for name in q(_names_in, by, part)))


def _names_in(q: Q, client: Client, part: str) -> tuple[str, ...]:
    return tuple(name for host in q(seen, client, part) for name in q(names_of_host, alike(q, client, host), host))


def names_of_host(q: Q, client: Client, host: str) -> tuple[str, ...]:
    """The names of the clusters of one host: each port, and each port with each subset."""
    service = q(visible, client, host)
    if service is None:
        return ()
    rule = q(destination_rule, client, host)
    subsets = ["", *(each.name for each in rule.subsets)] if rule is not None else [""]
    ports = [port.number for port in service.ports if port.protocol is not Protocol.UDP]
    return tuple(cluster_name(host, port, subset) for port in ports for subset in subsets)


def automatic_names(q: Q, client: Client, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the clusters that take mutual TLS for services below `hosts` as it came, by its server name. Their
    endpoints must be known and part of the mesh."""
    return tuple(
        f"{AUTOMATIC_PREFIX}outbound_.{'_.'.join(name.split('|')[1:])}"
        for host in q(visible_services, client)
        if any(covers(pattern, host) for pattern in hosts)
        for name in q(names_of_host, alike(q, client, host), host)
        if (found := q(outbound_cluster, sharing(q, client, name), name)) is not None
        and found.resolution is Resolution.ENDPOINTS
        and not found.external
    )


def outbound_of(automatic: str) -> str:
    """The name of the ordinary cluster for the name of one that takes mutual TLS as it came; empty for another."""
    port, _, rest = automatic.removeprefix(f"{AUTOMATIC_PREFIX}outbound_.").partition("_.")
    subset, _, host = rest.partition("_.")
    return f"outbound|{port}|{subset}|{host}" if automatic.startswith(AUTOMATIC_PREFIX) and host else ""


def sharing(q: Q, client: Client, name: str) -> Client:
    """The client to make a cluster for: `anybody` where this one sees what others see."""
    parts = parse_cluster_name(name)
    return client if parts is None else alike(q, client, parts[0])


def outbound_cluster(q: Q, client: Client, name: str) -> OutboundCluster | None:
    """The cluster of that name for a client, or None when its service, port or subset isn't there."""
    if (parts := parse_cluster_name(name)) is None:
        return None
    host, number, subset = parts
    service = q(visible, client, host)
    port = service.port(number) if service is not None else None
    if service is None or port is None or port.protocol is Protocol.UDP:
        return None
    rule = q(destination_rule, client, host)
    chosen = rule.subset(subset) if rule is not None and subset else None
    if subset and chosen is None:
        return None
    answering, answering_port, resolution = _answering(q, client, service, number)
    policy = effective_policy(q, rule, subset, number, sticky=answering.sticky)
    load_balancer = policy.load_balancer.simple if policy.load_balancer is not None else None
    if resolution is Resolution.ENDPOINTS and (answering.headless or load_balancer == "PASSTHROUGH"):
        resolution = Resolution.PASSTHROUGH
    transport = _transport(q, answering, answering_port, resolution, policy.tls)
    origins = [service.ref, *(rule.refs if rule is not None else ()), mesh_ref()]
    return OutboundCluster(
        name=name,
        host=host,
        port=number,
        subset=subset,
        namespace=service.namespace,
        service_name=service.name,
        protocol=port.protocol,
        resolution=resolution,
        source=answering.ref,
        source_host=answering.host,
        source_port=answering_port,
        policy=policy,
        transport=transport,
        external=answering.external,
        subject_alt_names=answering.subject_alt_names,
        labels=tuple(sorted(chosen.labels.items())) if chosen is not None else (),
        distribution=answering.distribution,
        node_local=answering.node_local,
        peers=_peers(q, answering, answering_port, policy.tls) if transport in _MUTUAL else (),
        origins=tuple(dict.fromkeys(origins)),
    )


def _answering(q: Q, client: Client, service: MeshService, port: int) -> tuple[MeshService, int, Resolution]:
    """Who answers for a service: itself, or for an ExternalName the service or the DNS name it stands for."""
    if not service.alias:
        return service, port, service.resolution
    target = q(visible, client, service.alias)
    if target is not None and not target.alias and target.port(port) is not None:
        return target, port, target.resolution
    return service, port, Resolution.DNS


def _transport(
    q: Q, service: MeshService, port: int, resolution: Resolution, tls: ClientTLSSettings | None
) -> Transport:
    if tls is not None and tls.mode is not None:
        return _TRANSPORTS[tls.mode]
    if service.external or service.alias or not q(auto_mtls):
        return Transport.PLAIN
    if resolution is Resolution.DYNAMIC:
        return Transport.PLAIN  # nobody knows who answers
    if resolution is Resolution.PASSTHROUGH:
        # The address is the client's choice, so no endpoint tells what it can: all of them must.
        return Transport.MESH if q(all_secured, service.ref, service.host, port) else Transport.PLAIN
    return Transport.AUTO


def all_secured(q: Q, ref: Ref, host: str, port: int) -> bool:
    """True when a service port has endpoints and each answers mutual TLS."""
    found = q(endpoints, ref, host, port)
    return bool(found) and all(each.tls for each in found)


def _peers(q: Q, service: MeshService, port: int, tls: ClientTLSSettings | None) -> tuple[str, ...]:
    if tls is not None and tls.subject_alt_names:
        return tls.subject_alt_names
    domain = q(trust_domain)
    known = [str(SpiffeId(domain, *each)) for each in q(identities, service.ref, service.host, port)]
    return (*known, *service.subject_alt_names) if known or service.external else service.subject_alt_names


_MUTUAL = (Transport.AUTO, Transport.MESH)
_TRANSPORTS = {
    "DISABLE": Transport.PLAIN,
    "SIMPLE": Transport.TLS,
    "MUTUAL": Transport.TLS,
    "ISTIO_MUTUAL": Transport.MESH,
}
