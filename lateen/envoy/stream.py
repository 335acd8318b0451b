"""Connections passed on as bytes: the TCP proxy with one or several clusters, and what a stream to a cluster needs.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/network_filters/tcp_proxy_filter
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as SetFilterState
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy

from lateen.api.istio.destination_rule import ConnectionPoolSettings
from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
from lateen.envoy.dynamic_dns import server_name_lookup
from lateen.envoy.sources import CLUSTER_TIMEOUT_S, set_ads
from lateen.envoy.tls import ALPN_TCP
from lateen.features.dynamic_host import set_state
from lateen.features.encoding import pack, set_seconds
from lateen.intent.cluster import OutboundCluster, outbound_cluster
from lateen.intent.destination import dynamic_port
from lateen.intent.route import Destination
from lateen.model.mesh import access_log
from lateen.model.protocols import Protocol
from lateen.model.visibility import Client

TCP_PROXY = "envoy.filters.network.tcp_proxy"
SET_FILTER_STATE = "envoy.filters.network.set_filter_state"
EARLY_DATA_BYTES = 8192
"""How much of a client is read before the application is dialled, where its first bytes decide."""
NOWHERE = "BlackHoleCluster"
_ALPN_STATE = "envoy.network.application_protocols"
_CLUSTER_STATE = "envoy.tcp_proxy.cluster"


def tcp_proxy(q: Q, cluster: str) -> Filter:
    """A TCP proxy to one cluster."""
    return _filter(q, _proxy(cluster, cluster))


def inbound_tcp_proxy(
    q: Q, cluster: str, *, tls: bool, waits: bool = False, pool: ConnectionPoolSettings | None = None
) -> Filter:
    """A TCP proxy to the application. Under TLS it dials only after the handshake: nobody unknown reaches it.

    `waits`: it dials only when the client has sent something that the filters before it let through.
    """
    proxy = _proxy(cluster, cluster)
    _set_times(proxy, pool)
    if waits:
        _wait(proxy)
    elif tls:
        proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        proxy.max_early_data_bytes.value = 0
    return _filter(q, proxy)


def add_stream(
    q: Q,
    client: Client,
    chain: FilterChain,
    destinations: Sequence[Destination],
    *,
    waits: bool = False,
    stat_prefix: str = "",
) -> None:
    """Adds the filters that pass connections on to outbound clusters by weight; `waits` as above. Counters are named
    after the first cluster unless said otherwise."""
    intents = [q(outbound_cluster, client, each.cluster) for each in destinations]
    first = intents[0] if intents else None
    if any(each is not None and each.protocol is Protocol.AUTO for each in intents):
        # The cluster of a port whose protocol is found out announces HTTP; these connections carry something else.
        chain.filters.append(_announce_tcp())
    for each in destinations:
        if port := q(dynamic_port, client, each.host, each.port):
            chain.filters.append(server_name_lookup(q, each.cluster, port))
    one = destinations[0].cluster
    proxy = _proxy(stat_prefix or one, one if len(destinations) == 1 else "")
    if waits:
        _wait(proxy)
    if len(destinations) > 1:
        for each in destinations:
            weighted = proxy.weighted_clusters.clusters.add()
            weighted.name = each.cluster
            weighted.weight = each.weight
    if first is not None:
        _set_policy(proxy, first)
    chain.filters.append(_filter(q, proxy))


def add_address_stream(q: Q, chain: FilterChain) -> None:
    """Adds the filters that pass connections on to a cluster called as the address they were meant for
    (`10.96.0.5:3306`), which is asked for when it is not there."""
    chain.filters.append(_set_state(_CLUSTER_STATE, "%DOWNSTREAM_LOCAL_ADDRESS%"))
    proxy = _proxy(chain.name, NOWHERE)
    set_ads(proxy.on_demand.odcds_config)
    proxy.on_demand.timeout.seconds = CLUSTER_TIMEOUT_S
    chain.filters.append(_filter(q, proxy))


def add_named_stream(q: Q, chain: FilterChain, cluster: str, *, waits: bool = False) -> None:
    """Adds the filters that pass connections on to the cluster whose name a format string gives; a cluster that is
    not there closes them."""
    chain.filters.append(_set_state(_CLUSTER_STATE, cluster))
    proxy = _proxy(chain.name, NOWHERE)
    if waits:
        _wait(proxy)
    chain.filters.append(_filter(q, proxy))


def _proxy(stat_prefix: str, cluster: str) -> TcpProxy:
    proxy = TcpProxy()
    proxy.stat_prefix = stat_prefix
    if cluster:
        proxy.cluster = cluster
    return proxy


def _wait(proxy: TcpProxy) -> None:
    proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_DATA
    proxy.max_early_data_bytes.value = EARLY_DATA_BYTES


def _filter(q: Q, proxy: TcpProxy) -> Filter:
    add_access_log(proxy.access_log.add, q(access_log))
    message = Filter()
    message.name = TCP_PROXY
    pack(message.typed_config, proxy)
    return message


def _set_policy(proxy: TcpProxy, intent: OutboundCluster) -> None:
    policy = intent.policy
    _set_times(proxy, policy.connection_pool)
    balancer = policy.load_balancer
    if balancer is not None and balancer.consistent_hash is not None and balancer.consistent_hash.use_source_ip:
        proxy.hash_policy.add().source_ip.SetInParent()
    if policy.tunnel is not None:
        proxy.tunneling_config.hostname = f"{policy.tunnel.target_host}:{policy.tunnel.target_port}"
        proxy.tunneling_config.use_post = policy.tunnel.protocol == "POST"


def _set_times(proxy: TcpProxy, pool: ConnectionPoolSettings | None) -> None:
    tcp = pool.tcp if pool is not None else None
    if tcp is not None and tcp.idle_timeout is not None:
        set_seconds(proxy.idle_timeout, tcp.idle_timeout.seconds)
    if tcp is not None and tcp.max_connection_duration is not None:
        set_seconds(proxy.max_downstream_connection_duration, tcp.max_connection_duration.seconds)


def _announce_tcp() -> Filter:
    return _set_state(_ALPN_STATE, ",".join(ALPN_TCP))


def _set_state(key: str, said: str) -> Filter:
    state = SetFilterState()
    set_state(state.on_new_connection.add(), key, said)
    message = Filter()
    message.name = SET_FILTER_STATE
    pack(message.typed_config, state)
    return message
