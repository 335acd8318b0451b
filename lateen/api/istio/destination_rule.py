"""DestinationRule: subsets and the policies of connections to a host (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.load_balancer import LoadBalancerSettings
from lateen.api.istio.selectors import PolicySelector, PortSelector
from lateen.api.problems import Problem, at, deprecated, warning
from lateen.api.struct import Int32, Meta, Object, PercentValue, PositiveDuration, Struct, UInt32, field
from lateen.lib.durations import Duration
from lateen.lib.findings import Level
from lateen.lib.names import is_address, is_host


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
            if value and self.credential_name:
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
        trusted = self.ca_certificates or (self.credential_name if mode == "SIMPLE" else None)
        if self.insecure_skip_verify and (trusted or self.subject_alt_names):
            yield Problem("insecureSkipVerify", "it excludes what is to be verified", "leave it out")
        if mode in ("SIMPLE", "MUTUAL") and not (
            self.ca_certificates or self.credential_name or self.insecure_skip_verify
        ):
            yield warning("", _SYSTEM_ROOTS, "set caCertificates to say whom to trust", "IST0128")


def _together(load_balancer: LoadBalancerSettings | None, outlier: OutlierDetection | None) -> Iterator[Problem]:
    """What two blocks of one policy say that only works together."""
    setting = load_balancer.locality_lb_setting if load_balancer is not None else None
    if setting is None or setting.distribute or setting.enabled is False or outlier is not None:
        return
    message = "without outlierDetection it has no effect: nothing notices that near endpoints are bad"
    yield warning("loadBalancer.localityLbSetting", message, "add outlierDetection: {}")


class PortTrafficPolicy(Struct, frozen=True):
    """A policy for one port; it replaces the policy of the destination, block by block."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port: PortSelector | None = None
    tls: ClientTLSSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if msgspec.structs.replace(self, port=None) == PortTrafficPolicy():
            yield Problem("", "the policy of the port is empty", "leave it out, or say something")
        yield from _together(self.load_balancer, self.outlier_detection)


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
        if not is_host(self.target_host) and not is_address(self.target_host):
            yield Problem("targetHost", f'"{self.target_host[:80]}" is no host', "write a host name or an address")


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
        if self.tunnel is not None and self.proxy_protocol is not None:
            yield Problem("proxyProtocol", "tunnel and proxyProtocol exclude each other", "keep one of them")
        http = self.connection_pool.http if self.connection_pool is not None else None
        if self.retry_budget is not None and http is not None and http.max_retries is not None:
            message = "beside retryBudget it has no effect"
            yield warning("connectionPool.http.maxRetries", message, "keep one of them")
        yield from _together(self.load_balancer, self.outlier_detection)
        yield from self._replaced()

    def _replaced(self) -> Iterator[Problem]:
        """What the policy says and a port does not get, because port-level settings replace all of it."""
        for index, port in enumerate(self.port_level_settings):
            lost = [
                name
                for name, whole, own in (
                    ("connectionPool", self.connection_pool, port.connection_pool),
                    ("loadBalancer", self.load_balancer, port.load_balancer),
                    ("outlierDetection", self.outlier_detection, port.outlier_detection),
                    ("tls", self.tls, port.tls),
                    ("retryBudget", self.retry_budget, None),
                    ("tunnel", self.tunnel, None),
                    ("proxyProtocol", self.proxy_protocol, None),
                )
                if whole is not None and own is None
            ]
            if lost and port.port is not None:
                message = f"port {port.port.number} gets no {' and no '.join(lost)}: its settings replace the policy's"
                remedy = "say again what it is to keep"
                yield Problem(at("portLevelSettings", index), message, remedy, Level.INFO, "LTN0222")


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
            message = "without labels it is for every workload of the namespace"
            yield warning("workloadSelector", message, "set labels, or leave it out")


class DestinationRule(Object, frozen=True):
    """What applies to traffic for one host, after routing chose it."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "DestinationRule"

    spec: DestinationRuleSpec


_SYSTEM_ROOTS = "the server's certificate is checked against the system's roots only"
_STREAMS_MAX = 2**31 - 1
