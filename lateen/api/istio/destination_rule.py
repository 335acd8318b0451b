"""DestinationRule: subsets and the policies of connections to a host (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.selectors import PolicySelector, PortSelector
from lateen.api.problems import Problem, at, deprecated, warning
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

    def problems(self) -> Iterator[Problem]:
        for name, value in (
            ("http1MaxPendingRequests", self.http1_max_pending_requests),
            ("http2MaxRequests", self.http2_max_requests),
            ("maxConcurrentStreams", self.max_concurrent_streams),
            ("maxRequestsPerConnection", self.max_requests_per_connection),
            ("maxRetries", self.max_retries),
        ):
            yield from rules.not_negative(name, value)
        if self.max_concurrent_streams is not None and not 0 <= self.max_concurrent_streams <= _STREAMS_MAX:
            yield Problem("maxConcurrentStreams", "HTTP/2 allows 1 to 2147483647 streams", "set less")
        if self.use_client_protocol and self.h2_upgrade_policy == "UPGRADE":
            message = '"useClientProtocol" and the upgrade to HTTP/2 exclude each other'
            yield Problem("useClientProtocol", message, "keep one of them")


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

    def problems(self) -> Iterator[Problem]:
        yield from rules.not_negative("maxConnections", self.max_connections)
        if self.idle_timeout is not None and self.idle_timeout.nanoseconds < 0:
            yield Problem("idleTimeout", "a time-out cannot be negative", "0s means none")


class ConnectionPoolSettings(Struct, frozen=True):
    """Limits of connections and requests to each destination."""

    http: HTTPSettings | None = None
    tcp: TCPSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if self.http is None and self.tcp is None:
            yield Problem("", "the limits are empty", 'set "tcp" or "http"')


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

    def problems(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem("name", "the cookie has no name", "name it")
        if self.ttl is not None and self.ttl.nanoseconds < 0:
            yield Problem("ttl", "a life time cannot be negative", "0s makes a session cookie")


class MagLev(Struct, frozen=True):
    """Consistent hashing by a Maglev table."""

    table_size: UInt64 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.table_size is not None and not (_is_prime(self.table_size) and self.table_size <= _TABLE_MAX):
            yield Problem("tableSize", f"{self.table_size} is not a prime up to {_TABLE_MAX}", "the default is 65537")


class RingHash(Struct, frozen=True):
    """Consistent hashing by a ring."""

    minimum_ring_size: UInt64 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.minimum_ring_size is not None and self.minimum_ring_size > _RING_MAX:
            yield Problem("minimumRingSize", f"{self.minimum_ring_size} is too large", f"at most {_RING_MAX}")


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

    def problems(self) -> Iterator[Problem]:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if not any(keys):
            remedy = 'set "httpHeaderName", "httpCookie", "useSourceIp" or "httpQueryParameterName"'
            yield Problem("", "what is hashed is missing", remedy)
        if self.http_header_name:
            yield from rules.header_name("httpHeaderName", self.http_header_name)
        if self.minimum_ring_size is not None:
            yield deprecated("minimumRingSize", "ringHash.minimumRingSize")
            if self.ring_hash is not None or self.maglev is not None:
                yield Problem("minimumRingSize", "it excludes ringHash and maglev", "keep one of them")


class Distribute(Struct, frozen=True):
    """Shares of the traffic that starts in one locality."""

    from_: str | None = None
    to: Mapping[str, UInt32] = {}

    def problems(self) -> Iterator[Problem]:
        if not self.from_:
            yield Problem("", '"from" is missing', "write region/zone/subzone, * stands for any")
        for name in (self.from_ or "", *self.to):
            if name and not _is_locality(name):
                yield Problem("", f'"{name[:80]}" is no locality', "write region/zone/subzone, a last * stands for any")
        if sum(self.to.values()) != 100:
            yield Problem("to", f"the shares make {sum(self.to.values())}", "they must make 100")


class Failover(Struct, frozen=True):
    """The region that takes over for a region."""

    from_: str | None = None
    to: str | None = None

    def problems(self) -> Iterator[Problem]:
        for name, region in (("from", self.from_), ("to", self.to)):
            if not region or "/" in region or "*" in region:
                yield Problem(name if region else "", f'"{name}" must be a region', "write the name of a region alone")
        if self.from_ and self.from_ == self.to:
            yield Problem("to", "a region cannot take over for itself", "name another one")


class LocalityLoadBalancerSetting(Struct, frozen=True):
    """Which localities traffic goes to: shares, failover order or label order."""

    distribute: tuple[Distribute, ...] = ()
    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()

    def problems(self) -> Iterator[Problem]:
        said = [
            name
            for name, value in (
                ("distribute", self.distribute),
                ("failover", self.failover),
            )
            if value
        ]
        if self.failover_priority and self.distribute:
            said.append("failoverPriority")
        if len(said) > 1:
            yield Problem(said[1], f"{' and '.join(said)} exclude each other", "keep one of them")
        yield from rules.no_duplicates(("distribute",), [each.from_ for each in self.distribute], "locality", "from")


class WarmupConfiguration(Struct, frozen=True):
    """How slowly a new endpoint gets its full share."""

    duration: PositiveDuration
    aggression: Annotated[float, Meta(ge=0)] | None = None
    minimum_percent: PercentValue | None = None

    def problems(self) -> Iterator[Problem]:
        if self.aggression is not None and self.aggression < 1:
            yield Problem("aggression", f"{self.aggression:g} is less than 1", "1 is linear, more starts slower")


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

    def problems(self) -> Iterator[Problem]:
        if self.simple == "LEAST_CONN":
            yield deprecated("simple", "LEAST_REQUEST")
        if self.warmup_duration_secs is not None:
            yield deprecated("warmupDurationSecs", "warmup")
            if self.warmup is not None:
                yield Problem("warmupDurationSecs", '"warmup" says it already', "leave it out")
        warming = "warmup" if self.warmup is not None else "warmupDurationSecs" if self.warmup_duration_secs else ""
        least_request = self.consistent_hash is None and self.simple in (
            None,
            "UNSPECIFIED",
            "ROUND_ROBIN",
            "LEAST_REQUEST",
            "LEAST_CONN",
        )
        if warming and not least_request:
            yield Problem(warming, "only ROUND_ROBIN and LEAST_REQUEST warm endpoints up", "change simple")
        if self.locality_lb_setting is not None and self.zone_aware_lb_setting is not None:
            yield Problem("zoneAwareLbSetting", "it excludes localityLbSetting", "keep one of them")


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

    def problems(self) -> Iterator[Problem]:
        if self.consecutive_errors is not None:
            yield deprecated("consecutiveErrors", "consecutiveGatewayErrors or consecutive5xxErrors")
        yield from rules.share("maxEjectionPercent", self.max_ejection_percent)
        yield from rules.share("minHealthPercent", self.min_health_percent)
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            message = "it only counts with splitExternalLocalOriginErrors"
            yield Problem("consecutiveLocalOriginFailures", message, "set splitExternalLocalOriginErrors: true")
        gateway, all_errors = self.consecutive_gateway_errors, self.consecutive_5xx_errors
        if gateway and gateway >= (5 if all_errors is None else all_errors) > 0:
            message = "it has no effect: consecutive5xxErrors is reached first"
            yield warning("consecutiveGatewayErrors", message, "set less, or consecutive5xxErrors: 0")


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

    def problems(self) -> Iterator[Problem]:
        files = {
            "clientCertificate": self.client_certificate,
            "privateKey": self.private_key,
            "caCertificates": self.ca_certificates,
            "caCrl": self.ca_crl,
        }
        mode = self.mode or "DISABLE"
        for name, value in files.items():
            if value and self.credential_name and name != "caCrl":
                yield Problem(name, f'"{name}" and "credentialName" exclude each other', "keep one of them")
        if mode == "MUTUAL" and not self.credential_name:
            for name in ("clientCertificate", "privateKey"):
                if not files[name]:
                    yield Problem("", f"mode MUTUAL needs {name}", f"set {name}, or credentialName")
        if mode in ("ISTIO_MUTUAL", "DISABLE"):
            names = (
                [*files, "credentialName", "subjectAltNames"] if mode == "ISTIO_MUTUAL" else [*files, "credentialName"]
            )
            said = {**files, "credentialName": self.credential_name, "subjectAltNames": self.subject_alt_names}
            for name in names:
                if said[name]:
                    yield Problem(name, f"mode {mode} uses no {name}", "leave it out, or use MUTUAL")
        if self.insecure_skip_verify and (self.ca_certificates or self.subject_alt_names):
            yield Problem("insecureSkipVerify", "it excludes what is to be verified", "leave it out")
        if mode in ("SIMPLE", "MUTUAL") and not (
            self.ca_certificates or self.credential_name or self.insecure_skip_verify
        ):
            yield warning("", _SYSTEM_ROOTS, "set caCertificates to say whom to trust", "IST0128")


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

    def problems(self) -> Iterator[Problem]:
        if self.protocol and self.protocol not in ("CONNECT", "POST"):
            yield Problem("protocol", f'"{self.protocol[:40]}" is no way to tunnel', "use CONNECT or POST")
        yield from rules.port("targetPort", self.target_port)
        if not self.target_host:
            yield Problem("targetHost", "the host is empty", "name a host")


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

    def problems(self) -> Iterator[Problem]:
        if self == TrafficPolicy():
            yield Problem("", "the policy is empty", "leave it out, or say something")
        ports = [each.port.number if each.port is not None else None for each in self.port_level_settings]
        yield from rules.no_duplicates(("portLevelSettings",), [each for each in ports if each], "port", "port.number")
        for index, number in enumerate(ports):
            if number is None:
                yield Problem(at("portLevelSettings", index), "which port is missing", "set port.number")


class Subset(Struct, frozen=True):
    """A named part of the endpoints of a host."""

    name: str
    labels: Mapping[str, str] = {}
    traffic_policy: TrafficPolicy | None = None

    def problems(self) -> Iterator[Problem]:
        yield from traffic.subset("name", self.name)
        yield from rules.labels(("labels",), self.labels)


class DestinationRuleSpec(Struct, frozen=True):
    """What applies to traffic for one host, after routing chose it."""

    host: str
    export_to: tuple[str, ...] = ()
    subsets: tuple[Subset, ...] = ()
    traffic_policy: TrafficPolicy | None = None
    workload_selector: PolicySelector | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.host_pattern("host", self.host)
        yield from rules.export_to(self.export_to)
        yield from rules.no_duplicates(("subsets",), [each.name for each in self.subsets], "subset", "name")
        if self.workload_selector is not None and not self.workload_selector.match_labels:
            yield Problem("workloadSelector", "the selector is empty", "leave it out to mean every workload")


class DestinationRule(Object, frozen=True):
    """What applies to traffic for one host, after routing chose it."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "DestinationRule"

    spec: DestinationRuleSpec


_SYSTEM_ROOTS = "the server's certificate is checked against the system's roots only"
_STREAMS_MAX = 2**31 - 1
_TABLE_MAX = 5000011
_RING_MAX = 8 * 1024 * 1024


def _is_prime(number: int) -> bool:
    return 1 < number <= _TABLE_MAX and all(number % each for each in range(2, int(number**0.5) + 1))


def _is_locality(text: str) -> bool:
    parts = text.split("/")
    return len(parts) <= 3 and all(parts) and "*" not in "".join(parts[:-1]) and parts[-1].count("*") <= 1
