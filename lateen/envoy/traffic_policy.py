"""The blocks of a traffic policy as fields of an Envoy cluster: load balancer, connection pool, outlier detection.

Envoy's own defaults differ from Istio's: nothing is limited unless somebody says so (Envoy would allow 1,024
connections), least request is the default balancer, and panic routing is off.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from envoy.config.core.v3.proxy_protocol_pb2 import ProxyProtocolConfig
from envoy.extensions.transport_sockets.proxy_protocol.v3.upstream_proxy_protocol_pb2 import (
    ProxyProtocolUpstreamTransport,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream
from google.protobuf.duration_pb2 import Duration

from lateen.api.istio.destination_rule import (
    ConnectionPoolSettings,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TcpKeepalive,
)
from lateen.api.istio.load_balancer import LoadBalancerSettings, WarmupConfiguration
from lateen.envoy.virtual_host import field
from lateen.features.encoding import pack, set_seconds
from lateen.model.protocols import Protocol

UNLIMITED = 2**32 - 1
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PROXY_PROTOCOL = "envoy.transport_sockets.upstream_proxy_protocol"
DEFAULT_IDLE_S = 3600.0
_DEFAULT_WARMUP_PERCENT = 10.0
_MIN_RING = 1024
_BUDGET_INTERVAL = 3
"""The number of the field `RetryBudget.budget_interval`."""


def set_load_balancer(cluster: Cluster, settings: LoadBalancerSettings | None) -> None:
    """Writes how endpoints are chosen. The cluster's discovery type must be set: where the traffic says
    which endpoint it goes to, there is no choice."""
    if cluster.type == Cluster.ORIGINAL_DST or cluster.HasField("cluster_type"):
        cluster.lb_policy = Cluster.CLUSTER_PROVIDED
        return
    simple = settings.simple if settings is not None else None
    cluster.lb_policy = {"RANDOM": Cluster.RANDOM, "ROUND_ROBIN": Cluster.ROUND_ROBIN}.get(
        simple or "", Cluster.LEAST_REQUEST
    )
    if settings is None:
        return
    if (consistent := settings.consistent_hash) is not None:
        if consistent.maglev is not None:
            cluster.lb_policy = Cluster.MAGLEV
            if consistent.maglev.table_size:
                cluster.maglev_lb_config.table_size.value = consistent.maglev.table_size
        else:
            cluster.lb_policy = Cluster.RING_HASH
            ring = consistent.ring_hash.minimum_ring_size if consistent.ring_hash is not None else None
            cluster.ring_hash_lb_config.minimum_ring_size.value = ring or consistent.minimum_ring_size or _MIN_RING
    warmup = settings.warmup
    if warmup is None and settings.warmup_duration_secs is not None:
        warmup = WarmupConfiguration(duration=settings.warmup_duration_secs)
    if warmup is not None:
        _set_warmup(cluster, warmup)


def set_connection_pool(
    cluster: Cluster,
    settings: ConnectionPoolSettings | None,
    connect_timeout_s: float,
    default_keepalive: TcpKeepalive | None,
) -> None:
    """Writes limits and time-outs of connections. What nobody limits is unlimited."""
    tcp = settings.tcp if settings is not None else None
    http = settings.http if settings is not None else None
    timeout = tcp.connect_timeout.seconds if tcp is not None and tcp.connect_timeout else connect_timeout_s
    set_seconds(cluster.connect_timeout, timeout)
    limits = cluster.circuit_breakers.thresholds.add()
    limits.max_connections.value = _limit(tcp.max_connections if tcp is not None else None)
    limits.max_pending_requests.value = _limit(http.http1_max_pending_requests if http is not None else None)
    limits.max_requests.value = _limit(http.http2_max_requests if http is not None else None)
    limits.max_retries.value = _limit(http.max_retries if http is not None else None)
    limits.track_remaining = True
    said = tcp.tcp_keepalive if tcp is not None and tcp.tcp_keepalive is not None else default_keepalive
    if said is not None:
        keepalive = cluster.upstream_connection_options.tcp_keepalive
        keepalive.SetInParent()
        if said.probes:
            keepalive.keepalive_probes.value = said.probes
        if said.time is not None:
            keepalive.keepalive_time.value = max(1, round(said.time.seconds))
        if said.interval is not None:
            keepalive.keepalive_interval.value = max(1, round(said.interval.seconds))


def set_retry_budget(cluster: Cluster, budget: RetryBudget | None) -> None:
    """Writes how many retries may be under way relative to requests. Call after `set_connection_pool`."""
    if budget is None:
        return
    written = cluster.circuit_breakers.thresholds[0].retry_budget
    written.SetInParent()
    if budget.percent is not None:
        written.budget_percent.value = budget.percent
    if budget.min_retry_concurrency is not None:
        written.min_retry_concurrency.value = budget.min_retry_concurrency
    if budget.budget_interval is not None:
        # The messages we have are older than this field, so it goes in as bytes.
        interval = Duration()
        set_seconds(interval, budget.budget_interval.seconds)
        written.MergeFromString(field(_BUDGET_INTERVAL, interval.SerializeToString()))


def set_outlier_detection(cluster: Cluster, settings: OutlierDetection | None) -> None:
    """Writes when an endpoint is taken out for a while. Panic routing stays off, or starts below
    `minHealthPercent`."""
    cluster.common_lb_config.healthy_panic_threshold.SetInParent()
    if settings is None:
        return
    out = cluster.outlier_detection
    out.SetInParent()
    cluster.common_lb_config.healthy_panic_threshold.value = float(settings.min_health_percent or 0)
    out.enforcing_success_rate.value = 0
    if settings.interval is not None:
        set_seconds(out.interval, settings.interval.seconds)
    if settings.base_ejection_time is not None:
        set_seconds(out.base_ejection_time, settings.base_ejection_time.seconds)
    if settings.max_ejection_percent:
        out.max_ejection_percent.value = settings.max_ejection_percent
    # 10 % of three endpoints is none: without this, the default would take nobody out where there are few.
    out.always_eject_one_host.value = True
    consecutive = settings.consecutive_5xx_errors
    if consecutive is None and settings.consecutive_errors is not None:
        consecutive = settings.consecutive_errors
    if consecutive is not None:
        out.consecutive_5xx.value = consecutive
        out.enforcing_consecutive_5xx.value = 100 if consecutive else 0
    if settings.consecutive_gateway_errors is not None:
        out.consecutive_gateway_failure.value = settings.consecutive_gateway_errors
        out.enforcing_consecutive_gateway_failure.value = 100 if settings.consecutive_gateway_errors else 0
    if settings.split_external_local_origin_errors:
        out.split_external_local_origin_errors = True
        local = settings.consecutive_local_origin_failures
        if local is not None:
            out.consecutive_local_origin_failure.value = local
            out.enforcing_consecutive_local_origin_failure.value = 100 if local else 0
        out.enforcing_local_origin_success_rate.value = 0


def http_options(
    protocol: Protocol,
    settings: ConnectionPoolSettings | None,
    outlier: OutlierDetection | None,
    *,
    upgrade: bool,
    auto_sni: bool,
    auto_san: bool,
) -> upstream.HttpProtocolOptions:
    """How HTTP is spoken to the endpoints: HTTP/1.1, HTTP/2, or what the client speaks."""
    http = settings.http if settings is not None else None
    options = upstream.HttpProtocolOptions()
    options.common_http_protocol_options.SetInParent()
    if http is not None and http.idle_timeout is not None:
        set_seconds(options.common_http_protocol_options.idle_timeout, http.idle_timeout.seconds)
    if http is not None and http.max_requests_per_connection:
        options.common_http_protocol_options.max_requests_per_connection.value = http.max_requests_per_connection
    if settings is not None and settings.tcp is not None and settings.tcp.max_connection_duration is not None:
        set_seconds(
            options.common_http_protocol_options.max_connection_duration, settings.tcp.max_connection_duration.seconds
        )
    if auto_sni:
        options.upstream_http_protocol_options.auto_sni = True
    if auto_san:
        options.upstream_http_protocol_options.auto_san_validation = True
    http2: Http2ProtocolOptions | None
    if (http is not None and http.use_client_protocol) or (protocol is Protocol.AUTO and not upgrade):
        options.use_downstream_protocol_config.http_protocol_options.SetInParent()
        http2 = options.use_downstream_protocol_config.http2_protocol_options
        http2.SetInParent()
    elif protocol.is_http2 or upgrade:
        http2 = options.explicit_http_config.http2_protocol_options
        http2.SetInParent()
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
        http2 = None
    if http2 is not None and http is not None:
        if http.max_concurrent_streams:
            http2.max_concurrent_streams.value = http.max_concurrent_streams
        if (alive := http.http2_keep_alive) is not None:
            if alive.interval is not None:
                set_seconds(http2.connection_keepalive.interval, alive.interval.seconds)
            set_seconds(http2.connection_keepalive.timeout, alive.timeout.seconds if alive.timeout else 20)
    if outlier is not None and outlier.outlier_detection_http_error_codes:
        codes = tuple(dict.fromkeys(outlier.outlier_detection_http_error_codes))
        matcher = options.outlier_detection.error_matcher
        rules = [matcher] if len(codes) == 1 else [matcher.or_match.rules.add() for _ in codes]
        for rule, code in zip(rules, codes, strict=True):
            header = rule.http_response_headers_match.headers.add()
            header.name = ":status"
            header.string_match.exact = str(code)
    return options


def set_proxy_protocol(socket: TransportSocket, settings: ProxyProtocol | None) -> None:
    """Wraps a transport socket so that each connection starts with a PROXY header."""
    if settings is None:
        return
    wrapped = ProxyProtocolUpstreamTransport()
    wrapped.config.version = ProxyProtocolConfig.V2 if settings.version == "V2" else ProxyProtocolConfig.V1
    wrapped.transport_socket.CopyFrom(socket)
    socket.name = PROXY_PROTOCOL
    pack(socket.typed_config, wrapped)


def _limit(said: int | None) -> int:
    return said if said else UNLIMITED


def _set_warmup(cluster: Cluster, warmup: WarmupConfiguration) -> None:
    if cluster.lb_policy == Cluster.ROUND_ROBIN:
        slow = cluster.round_robin_lb_config.slow_start_config
    elif cluster.lb_policy == Cluster.LEAST_REQUEST:
        slow = cluster.least_request_lb_config.slow_start_config
    else:
        return
    set_seconds(slow.slow_start_window, warmup.duration.seconds)
    slow.min_weight_percent.value = (
        warmup.minimum_percent if warmup.minimum_percent is not None else _DEFAULT_WARMUP_PERCENT
    )
    if warmup.aggression is not None:
        slow.aggression.default_value = max(warmup.aggression, 1.0)
        slow.aggression.runtime_key = "lateen.warmup.aggression"
