"""DestinationRule: subsets and the policies of connections to a host (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.istio.selectors import PolicySelector, PortSelector
from lateen.api.struct import Int32, Meta, Object, PercentValue, PositiveDuration, Struct, UInt32, UInt64, field
from lateen.lib.durations import Duration


class HTTP2KeepAlive(Struct, frozen=True):
    """When idle HTTP/2 connections are probed."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None


class HTTPSettings(Struct, frozen=True):
    """Limits and timeouts of HTTP/1.1 and HTTP/2."""

    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    http1_max_pending_requests: Int32 | None = None
    http2_keep_alive: HTTP2KeepAlive | None = None
    http2_max_requests: Int32 | None = None
    idle_timeout: PositiveDuration | None = None
    max_concurrent_streams: Int32 | None = None
    max_requests_per_connection: Int32 | None = None
    max_retries: Int32 | None = None
    use_client_protocol: bool | None = None


class TcpKeepalive(Struct, frozen=True):
    """When the kernel probes idle connections."""

    interval: PositiveDuration | None = None
    probes: UInt32 | None = None
    time: PositiveDuration | None = None


class TCPSettings(Struct, frozen=True):
    """Limits and timeouts of TCP connections."""

    connect_timeout: PositiveDuration | None = None
    idle_timeout: Duration | None = None
    max_connection_duration: PositiveDuration | None = None
    max_connections: Int32 | None = None
    tcp_keepalive: TcpKeepalive | None = None


class ConnectionPoolSettings(Struct, frozen=True):
    """Limits of connections and requests to each destination."""

    http: HTTPSettings | None = None
    tcp: TCPSettings | None = None


class HTTPCookieAttribute(Struct, frozen=True):
    """One more attribute of a generated cookie."""

    name: str
    value: str | None = None


class HTTPCookie(Struct, frozen=True):
    """A cookie that sticks a client to an endpoint; generated when the request has none."""

    name: str
    attributes: tuple[HTTPCookieAttribute, ...] = ()
    path: str | None = None
    ttl: Duration | None = None


class MagLev(Struct, frozen=True):
    """Consistent hashing by a Maglev table."""

    table_size: UInt64 | None = None


class RingHash(Struct, frozen=True):
    """Consistent hashing by a ring."""

    minimum_ring_size: UInt64 | None = None


class ConsistentHashLB(Struct, frozen=True):
    """The same endpoint for the same header, cookie, parameter or address, as far as possible."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
        ("ringHash", "maglev"),
    )

    http_cookie: HTTPCookie | None = None
    http_header_name: str | None = None
    http_query_parameter_name: str | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 | None = None
    ring_hash: RingHash | None = None
    use_source_ip: bool | None = None


class Distribute(Struct, frozen=True):
    """Shares of the traffic that starts in one locality."""

    from_: str | None = None
    to: Mapping[str, UInt32] = {}


class Failover(Struct, frozen=True):
    """The region that takes over for a region."""

    from_: str | None = None
    to: str | None = None


class LocalityLoadBalancerSetting(Struct, frozen=True):
    """Which localities traffic goes to: shares, failover order or label order."""

    distribute: tuple[Distribute, ...] = ()
    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()


class WarmupConfiguration(Struct, frozen=True):
    """How slowly a new endpoint gets its full share."""

    duration: PositiveDuration
    aggression: Annotated[float, Meta(ge=0)] | None = None
    minimum_percent: PercentValue | None = None


class ZoneAwareLoadBalancerSetting(Struct, frozen=True):
    """Keeping traffic inside a zone as far as the endpoints there suffice."""

    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: Annotated[int, Meta(ge=1)] | None = None


class LoadBalancerSettings(Struct, frozen=True):
    """How an endpoint is chosen."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("simple", "consistentHash"),)

    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    warmup: WarmupConfiguration | None = None
    warmup_duration_secs: PositiveDuration | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None


class OutlierDetection(Struct, frozen=True):
    """When a failing endpoint is taken out, and for how long."""

    base_ejection_time: PositiveDuration | None = None
    consecutive_5xx_errors: UInt32 | None = field(default=None, name="consecutive5xxErrors")
    consecutive_errors: Int32 | None = None
    consecutive_gateway_errors: UInt32 | None = None
    consecutive_local_origin_failures: UInt32 | None = None
    interval: PositiveDuration | None = None
    max_ejection_percent: Int32 | None = None
    min_health_percent: Int32 | None = None
    outlier_detection_http_error_codes: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()
    split_external_local_origin_errors: bool | None = None


class ClientTLSSettings(Struct, frozen=True):
    """The TLS a client uses towards a destination."""

    ca_certificates: str | None = None
    ca_crl: str | None = None
    client_certificate: str | None = None
    credential_name: str | None = None
    insecure_skip_verify: bool | None = None
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] | None = None
    private_key: str | None = None
    sni: str | None = None
    subject_alt_names: tuple[str, ...] = ()


class PortTrafficPolicy(Struct, frozen=True):
    """A policy for one port; it replaces the policy of the destination, block by block."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port: PortSelector | None = None
    tls: ClientTLSSettings | None = None


class ProxyProtocol(Struct, frozen=True):
    """Which version of the PROXY protocol is sent to the destination."""

    version: Literal["V1", "V2"] | None = None


class RetryBudget(Struct, frozen=True):
    """How many retries may be under way, relative to the requests."""

    budget_interval: Duration | None = None
    min_retry_concurrency: UInt32 | None = None
    percent: PercentValue | None = None


class TunnelSettings(Struct, frozen=True):
    """Traffic is sent through an HTTP CONNECT or POST tunnel to this target."""

    target_host: str
    target_port: UInt32
    protocol: str | None = None


class TrafficPolicy(Struct, frozen=True):
    """How connections to a destination are made, balanced, secured and given up."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port_level_settings: Annotated[tuple[PortTrafficPolicy, ...], Meta(max_length=4096)] = ()
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None


class Subset(Struct, frozen=True):
    """A named part of the endpoints of a host."""

    name: str
    labels: Mapping[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Struct, frozen=True):
    """What applies to traffic for one host, after routing chose it."""

    host: str
    export_to: tuple[str, ...] = ()
    subsets: tuple[Subset, ...] = ()
    traffic_policy: TrafficPolicy | None = None
    workload_selector: PolicySelector | None = None


class DestinationRule(Object, frozen=True):
    """What applies to traffic for one host, after routing chose it."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "DestinationRule"

    spec: DestinationRuleSpec
