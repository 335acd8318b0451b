"""Hosts that are looked up when the traffic names them: the cluster, and what a connection needs before it.

Cluster and filter share one DNS cache per cluster, found by its name, so both must say the same about it. Requests
wait for a lookup by themselves; connections of the TCP proxy do not, so a filter of their own looks the server name up
before them.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/network_filters/sni_dynamic_forward_proxy_filter
"""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.extensions.clusters.dynamic_forward_proxy.v3.cluster_pb2 import ClusterConfig
from envoy.extensions.common.dynamic_forward_proxy.v3.dns_cache_pb2 import DnsCacheConfig
from envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.sni_dynamic_forward_proxy_pb2 import (
    FilterConfig,
)

from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.tls import origination, set_socket
from lateen.envoy.traffic_policy import HTTP_OPTIONS, http_options, set_connection_pool
from lateen.features.encoding import pack, set_seconds
from lateen.intent.destination import BY_NAME
from lateen.model.mesh import connect_timeout_s, dns_refresh_s, mesh_ref, outbound_policy, outer_tls, tcp_keepalive
from lateen.model.protocols import Protocol

SERVER_NAME_FILTER = "envoy.filters.network.sni_dynamic_forward_proxy"


def set_dynamic(q: Q, cluster: Cluster) -> None:
    """Makes a cluster one whose host is that of the traffic."""
    config = ClusterConfig()
    _set_cache(q, config.dns_cache_config, cluster.name)
    config.allow_insecure_cluster_options = True  # a DestinationRule may say which names of a certificate count
    cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
    pack(cluster.cluster_type.typed_config, config)


def by_name_cluster(q: Q) -> Resource:
    """The cluster of requests to hosts that nobody knows, where the mesh looks them up; TLS as its policy says."""
    cluster = Cluster()
    cluster.name = BY_NAME
    set_dynamic(q, cluster)
    cluster.lb_policy = Cluster.CLUSTER_PROVIDED
    set_connection_pool(cluster, None, q(connect_timeout_s), q(tcp_keepalive))
    tls = q(outbound_policy).tls
    checked = tls is not None and not tls.insecure_skip_verify and not tls.subject_alt_names
    if tls is not None:
        names = tls.subject_alt_names
        context = origination(tls, tls.sni or "", names, (), q(outer_tls), by_control_plane=False)
        set_socket(cluster.transport_socket, context)
    auto_sni = tls is not None and not tls.sni
    options = http_options(Protocol.AUTO, None, None, upgrade=False, auto_sni=auto_sni, auto_san=checked)
    pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)
    return resource(BY_NAME, cluster.SerializeToString(deterministic=True), (mesh_ref(),))


def server_name_lookup(q: Q, cluster: str, port: int) -> Filter:
    """The filter that holds a connection until its server name is looked up for that cluster."""
    config = FilterConfig()
    _set_cache(q, config.dns_cache_config, cluster)
    config.port_value = port
    message = Filter()
    message.name = SERVER_NAME_FILTER
    pack(message.typed_config, config)
    return message


def _set_cache(q: Q, cache: DnsCacheConfig, name: str) -> None:
    cache.name = name
    cache.dns_lookup_family = Cluster.V4_ONLY
    set_seconds(cache.dns_refresh_rate, q(dns_refresh_s))
