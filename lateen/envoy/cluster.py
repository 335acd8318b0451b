"""Clusters (CDS): a port of a service, a subset of it, and the few that are always there.

Clusters of services are made per `Client`, so all sidecars of a namespace share them. `BlackHoleCluster` refuses,
`PassthroughCluster` goes where the client wanted to go, `InboundPassthroughCluster` to a port of the workload that
nothing declares. Inbound clusters dial from 127.0.0.6, so that redirection can tell the proxy's calls to its own
application from the application's calls.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto
"""

from __future__ import annotations

import re

import msgspec
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from google.protobuf.struct_pb2 import Struct

from lateen.engine import Q
from lateen.envoy.dynamic_dns import by_name_cluster, set_dynamic
from lateen.envoy.endpoint import ISTIO_METADATA, locality_endpoints, members
from lateen.envoy.inbound_cluster import (
    INBOUND_PASSTHROUGH,
    inbound_cluster,
    inbound_passthrough,
    passthrough,
)
from lateen.envoy.resource import Resource, resource
from lateen.envoy.sharing import MESH, NAMESPACE, OUTBOUND, cluster_shares
from lateen.envoy.sources import set_ads
from lateen.envoy.tls import (
    ALPN_EITHER,
    ALPN_HTTP1,
    ALPN_HTTP2,
    ALPN_TCP,
    mesh_client,
    origination,
    set_socket,
)
from lateen.envoy.traffic_policy import (
    HTTP_OPTIONS,
    http_options,
    set_connection_pool,
    set_load_balancer,
    set_outlier_detection,
    set_proxy_protocol,
    set_retry_budget,
)
from lateen.features.encoding import pack, set_seconds
from lateen.intent.cluster import (
    OutboundCluster,
    Transport,
    automatic_names,
    names_of_host,
    outbound_cluster,
    outbound_names,
    outbound_of,
    parse_cluster_name,
    sharing,
)
from lateen.intent.destination import BLACK_HOLE, BY_NAME, PASSTHROUGH, cluster_name
from lateen.intent.inbound import inbound_ports
from lateen.intent.locality import by_place, preference_of
from lateen.intent.outbound import address_host
from lateen.intent.route_table import goes_by_name, unknown_cluster
from lateen.intent.scope import Scope
from lateen.model.gateways import automatic_hosts
from lateen.model.hosts import covers, is_wildcard
from lateen.model.listing import visible_services
from lateen.model.mesh import connect_timeout_s, dns_refresh_s, mesh_tls, outer_tls, tcp_keepalive, upgrades_to_http2
from lateen.model.protocols import Protocol
from lateen.model.services import Resolution
from lateen.model.sharing import common
from lateen.model.visibility import Client, client_of
from lateen.model.workloads import Labels

_ADDRESS = re.compile(r"([0-9.]+):([0-9]+)")

_TYPES = {
    Resolution.ENDPOINTS: Cluster.EDS,
    Resolution.DNS: Cluster.STRICT_DNS,
    Resolution.DNS_ROUND_ROBIN: Cluster.LOGICAL_DNS,
    Resolution.PASSTHROUGH: Cluster.ORIGINAL_DST,
}
_BY_TRAFFIC = (Resolution.PASSTHROUGH, Resolution.DYNAMIC)
"""Where the traffic itself says which endpoint it goes to."""


def cluster_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """All clusters of a proxy; of one that discovers on demand only those that it never asks for."""
    client = q(client_of, scope.namespace, scope.labels, scope.router)
    if scope.router:
        return (BLACK_HOLE, *q(outbound_names, common(q, client)), *q(_automatic_names, scope.namespace, scope.labels))
    inbound = (f"inbound|{each.port}||" for each in q(inbound_ports, scope))
    outbound = () if scope.on_demand else q(outbound_names, common(q, client))
    unknown = (PASSTHROUGH, BY_NAME) if q(goes_by_name, client) else (PASSTHROUGH,)
    return (BLACK_HOLE, *unknown, INBOUND_PASSTHROUGH, *inbound, *outbound)


def cluster_names_at(q: Q, scope: Scope, level: int) -> tuple[str, ...]:
    """The clusters of a level: the proxy's own, those of hosts that its namespace sees otherwise, those of the mesh."""
    if level == MESH:
        return () if scope.on_demand else q(outbound_names, q(client_of, "", (), scope.router))
    if level == NAMESPACE and not scope.on_demand:
        client, shares = q(client_of, scope.namespace, scope.labels, scope.router), q(cluster_shares, scope)
        if shares.levels[MESH] != scope:
            hosts = shares.apart.exact if not shares.apart.patterns else q(visible_services, client)
            names = (q(names_of_host, client, each) for each in sorted(hosts) if each in shares.apart)
            return tuple(name for each in names for name in each)
        return q(outbound_names, client)
    if level == NAMESPACE:
        return ()
    return tuple(each for each in q(cluster_names, scope) if not each.startswith(OUTBOUND))


def cluster_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """A cluster of a proxy by name, or None when it has none of that name."""
    if name.startswith(OUTBOUND):
        client = q(client_of, scope.namespace, scope.labels, scope.router)
        return q(outbound, sharing(q, client, name), name)
    if name == BLACK_HOLE:
        return q(black_hole)
    if scope.router:
        return q(_automatic, scope.namespace, scope.labels, name)
    if scope.on_demand and (place := _ADDRESS.fullmatch(name)) is not None:
        client = q(client_of, scope.namespace, scope.labels, scope.router)
        return q(address_cluster, client, place[1], int(place[2]))
    if name == PASSTHROUGH:
        return q(passthrough)
    if name == BY_NAME:
        return q(by_name_cluster) if q(goes_by_name, q(client_of, scope.namespace, scope.labels, False)) else None
    if name == INBOUND_PASSTHROUGH:
        return q(inbound_passthrough)
    port = next((each for each in q(inbound_ports, scope) if name == f"inbound|{each.port}||"), None)
    return q(inbound_cluster, port) if port is not None else None


def address_cluster(q: Q, client: Client, address: str, port: int) -> Resource:
    """The cluster for connections to an address of the mesh: that of the service there, by another name. Where there
    is none they go on to the address, or nowhere when only known hosts may be called."""
    name = f"{address}:{port}"
    host = q(address_host, client, address, port)
    if host is not None:
        own = cluster_name(host, port)
        base = q(outbound, sharing(q, client, own), own)
        if base is not None:
            renamed = Cluster(name=name, alt_stat_name=own).SerializeToString()  # the last word on a field counts
            return resource(name, base.body + renamed, base.origins, endpoints=own)
    base = q(passthrough if q(unknown_cluster, client) == PASSTHROUGH else black_hole)
    return resource(name, base.body + Cluster(name=name).SerializeToString())


def endpoint_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The clusters of a proxy whose endpoints come by EDS."""
    client = q(client_of, scope.namespace, scope.labels, scope.router)
    automatic = q(_automatic_names, scope.namespace, scope.labels) if scope.router else ()
    return (*q(_discovered, common(q, client)), *automatic)


def _discovered(q: Q, client: Client) -> tuple[str, ...]:
    found = ((name, q(outbound_cluster, sharing(q, client, name), name)) for name in q(outbound_names, client))
    return tuple(name for name, each in found if each is not None and each.resolution is Resolution.ENDPOINTS)


def _automatic_names(q: Q, namespace: str, labels: Labels) -> tuple[str, ...]:
    hosts = q(automatic_hosts, namespace, labels)
    return automatic_names(q, q(client_of, namespace, labels, True), hosts) if hosts else ()


def _automatic(q: Q, namespace: str, labels: Labels, name: str) -> Resource | None:
    """The cluster of a service for mutual TLS that comes from its client as it is."""
    ordinary = outbound_of(name)
    parts = parse_cluster_name(ordinary)
    if parts is None or not any(covers(pattern, parts[0]) for pattern in q(automatic_hosts, namespace, labels)):
        return None
    client = q(client_of, namespace, labels, True)
    return q(automatic, sharing(q, client, ordinary), ordinary, name)


def automatic(q: Q, client: Client, ordinary: str, name: str) -> Resource | None:
    """An ordinary cluster's endpoints, balancing and limits under another name, and nothing around the bytes."""
    intent = q(outbound_cluster, client, ordinary)
    if intent is None or intent.resolution is not Resolution.ENDPOINTS or intent.external:
        return None
    cluster = _described(q, msgspec.structs.replace(intent, name=name))
    cluster.metadata.filter_metadata[ISTIO_METADATA].CopyFrom(_metadata(intent))
    return resource(name, cluster.SerializeToString(deterministic=True), intent.origins)


def black_hole(_: Q) -> Resource:
    """The cluster without endpoints."""
    cluster = Cluster()
    cluster.name = BLACK_HOLE
    cluster.type = Cluster.STATIC
    cluster.connect_timeout.seconds = 10
    return resource(BLACK_HOLE, cluster.SerializeToString())


def outbound(q: Q, client: Client, name: str) -> Resource | None:
    """A service's cluster for a client."""
    intent = q(outbound_cluster, client, name)
    if intent is None:
        return None
    cluster = _described(q, intent)
    policy = intent.policy
    upgrade = _upgrades(q, intent)
    _set_transport(q, cluster, intent, client, upgrade)
    if upgrade or not intent.protocol.is_tcp:
        checked = intent.transport is Transport.TLS and policy.tls is not None
        options = http_options(
            intent.protocol,
            policy.connection_pool,
            policy.outlier_detection,
            upgrade=upgrade,
            auto_sni=checked and policy.tls is not None and not policy.tls.sni,
            auto_san=checked
            and policy.tls is not None
            and not policy.tls.insecure_skip_verify
            and not policy.tls.subject_alt_names,
        )
        pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)
    cluster.metadata.filter_metadata[ISTIO_METADATA].CopyFrom(_metadata(intent))
    return resource(name, cluster.SerializeToString(deterministic=True), intent.origins)


def _described(q: Q, intent: OutboundCluster) -> Cluster:
    """What a cluster has whatever is spoken to its endpoints."""
    cluster = Cluster()
    cluster.name = intent.name
    if intent.resolution is Resolution.DYNAMIC:
        set_dynamic(q, cluster)
    else:
        cluster.type = _TYPES[intent.resolution]
    _set_discovery(q, cluster, intent)
    policy = intent.policy
    set_connection_pool(cluster, policy.connection_pool, q(connect_timeout_s), q(tcp_keepalive))
    set_retry_budget(cluster, policy.retry_budget)
    set_load_balancer(cluster, policy.load_balancer)
    set_outlier_detection(cluster, policy.outlier_detection)
    if policy.outlier_detection is not None:
        # Envoy would gather changes of health for a second: requests would go on to what has just been ejected.
        cluster.common_lb_config.update_merge_window.SetInParent()
    preference = preference_of(q, intent)
    if intent.resolution not in _BY_TRAFFIC and not _hashes(intent) and preference is not None:
        if preference.weighted:
            cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
        else:
            zones = cluster.common_lb_config.zone_aware_lb_config
            zones.routing_enabled.value = 100
            zones.min_cluster_size.value = preference.zones
    return cluster


def _set_discovery(q: Q, cluster: Cluster, intent: OutboundCluster) -> None:
    if intent.resolution is Resolution.ENDPOINTS:
        set_ads(cluster.eds_cluster_config.eds_config)
        cluster.eds_cluster_config.service_name = intent.name
        return
    if intent.resolution in _BY_TRAFFIC:
        return
    cluster.dns_lookup_family = Cluster.V4_ONLY
    cluster.respect_dns_ttl = True
    set_seconds(cluster.dns_refresh_rate, q(dns_refresh_s))
    cluster.load_assignment.cluster_name = intent.name
    found = members(q, intent)
    if cluster.type == Cluster.LOGICAL_DNS:
        found = found[:1]
        if not found:
            cluster.type = Cluster.STATIC
    for group in by_place(found):
        cluster.load_assignment.endpoints.append(locality_endpoints(group, intent.transport))


def _set_transport(q: Q, cluster: Cluster, intent: OutboundCluster, client: Client, upgrade: bool) -> None:
    proxy_protocol = intent.policy.proxy_protocol
    if intent.transport is Transport.TLS and (tls := intent.policy.tls) is not None:
        http = not intent.protocol.is_tcp
        host = "" if is_wildcard(intent.source_host) else intent.source_host
        names = tls.subject_alt_names or intent.subject_alt_names
        context = origination(
            tls,
            tls.sni or ("" if http else host),
            names or ((tls.sni or host,) if not http and (tls.sni or host) else ()),
            ("h2",) if intent.protocol.is_http2 or upgrade else (),
            q(outer_tls),
            by_control_plane=client.router or bool(client.rules),
        )
        set_socket(cluster.transport_socket, context)
        set_proxy_protocol(cluster.transport_socket, proxy_protocol)
        return
    if intent.transport is Transport.PLAIN:
        if proxy_protocol is not None:
            set_socket(cluster.transport_socket, None)
            set_proxy_protocol(cluster.transport_socket, proxy_protocol)
        return
    tls = intent.policy.tls
    sni = tls.sni if tls is not None and tls.sni else intent.sni
    context = mesh_client(intent.peers, sni, _alpn(intent, upgrade), q(mesh_tls))
    if intent.transport is Transport.MESH:
        set_socket(cluster.transport_socket, context)
        set_proxy_protocol(cluster.transport_socket, proxy_protocol)
        return
    match = cluster.transport_socket_matches.add()
    match.name = "tlsMode-istio"
    match.match.fields["tlsMode"].string_value = "istio"
    set_socket(match.transport_socket, context)
    set_proxy_protocol(match.transport_socket, proxy_protocol)
    plain = cluster.transport_socket_matches.add()
    plain.name = "tlsMode-disabled"
    plain.match.SetInParent()
    set_socket(plain.transport_socket, None)
    set_proxy_protocol(plain.transport_socket, proxy_protocol)


def _alpn(intent: OutboundCluster, upgrade: bool) -> tuple[str, ...]:
    pool = intent.policy.connection_pool
    if intent.protocol.is_tcp:
        return ALPN_TCP
    if pool is not None and pool.http is not None and pool.http.use_client_protocol:
        return ALPN_EITHER
    if intent.protocol.is_http2 or upgrade:
        return ALPN_HTTP2
    return ALPN_EITHER if intent.protocol is Protocol.AUTO else ALPN_HTTP1


def _upgrades(q: Q, intent: OutboundCluster) -> bool:
    """True when HTTP/1.1 requests are sent on as HTTP/2. Who asks for it knows that the port speaks HTTP, whatever its
    name says."""
    pool = intent.policy.connection_pool
    said = pool.http.h2_upgrade_policy if pool is not None and pool.http is not None else None
    if said in (None, "DEFAULT"):
        return intent.protocol is Protocol.HTTP and not intent.external and q(upgrades_to_http2)
    return said == "UPGRADE" and not intent.protocol.is_http2


def _hashes(intent: OutboundCluster) -> bool:
    balancer = intent.policy.load_balancer
    return balancer is not None and balancer.consistent_hash is not None


def _metadata(intent: OutboundCluster) -> Struct:
    """Istio's metadata of a cluster: what EnvoyFilters and telemetry read."""
    metadata = Struct()
    service = metadata.fields["services"].list_value.values.add().struct_value
    service.fields["host"].string_value = intent.host
    service.fields["name"].string_value = intent.service_name
    service.fields["namespace"].string_value = intent.namespace
    metadata.fields["default_original_port"].number_value = intent.port
    if intent.subset:
        metadata.fields["subset"].string_value = intent.subset
    return metadata
