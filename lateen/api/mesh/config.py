"""MeshConfig: settings of the whole mesh, from ConfigMap `istio` in the root namespace, key `mesh`.

Field names and defaults are Istio's (istio.io/latest/docs/reference/config/istio.mesh.v1alpha1). Fields whose
default depends on another setting are None here and resolved by the query that reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from lateen.api.core.selectors import LabelSelector
from lateen.api.istio.destination_rule import ClientTLSSettings, ConnectionPoolSettings, OutlierDetection, TcpKeepalive
from lateen.api.istio.http_route import HTTPRetry
from lateen.api.istio.load_balancer import LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting
from lateen.api.struct import Meta, PercentValue, Struct, UInt32, field
from lateen.lib.durations import Duration, seconds

ROOT_NAMESPACE = "istio-system"
MESH_CONFIG_NAME = "istio"
"""The ConfigMap in the root namespace that holds the keys `mesh` and `meshNetworks`."""


class TrafficPolicyMode(Struct, frozen=True):
    """What becomes of traffic to hosts the mesh does not know. `tls`: how requests go on that are looked up by name."""

    mode: Literal["ALLOW_ANY", "REGISTRY_ONLY", "ALLOW_ANY_DYNAMIC_DNS"] = "ALLOW_ANY"
    tls: ClientTLSSettings | None = None


class InboundTrafficPolicyMode(Struct, frozen=True):
    """What becomes of inbound traffic for ports that no Service names."""

    mode: Literal["PASSTHROUGH", "LOCALHOST"] = "PASSTHROUGH"


class CertificateData(Struct, frozen=True):
    """A root that is trusted besides the mesh's own."""

    cert_signers: tuple[str, ...] = ()
    pem: str | None = None
    spiffe_bundle_url: str | None = None
    trust_domains: tuple[str, ...] = ()


class TLSConfig(Struct, frozen=True):
    """Bounds of TLS versions and ciphers."""

    cipher_suites: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = ()
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"] = "TLS_AUTO"


class PathNormalization(Struct, frozen=True):
    """How request paths are normalised before anything reads them."""

    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "DEFAULT"


class DefaultProviders(Struct, frozen=True):
    """The providers used where no Telemetry names one."""

    access_logging: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    tracing: tuple[str, ...] = ()


class DefaultTrafficPolicy(Struct, frozen=True):
    """The policy of destinations, under every DestinationRule."""

    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None


class ServiceSettingsSettings(Struct, frozen=True):
    """Settings of some services."""

    cluster_local: bool | None = None


class ServiceSettings(Struct, frozen=True):
    """Settings of the services whose host one of `hosts` matches."""

    hosts: tuple[str, ...] = ()
    settings: ServiceSettingsSettings | None = None


class Topology(Struct, frozen=True):
    """How many proxies stand before a gateway, and what it does with client certificates."""

    forward_client_cert_details: (
        Literal["UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"] | None
    ) = None
    num_trusted_proxies: UInt32 | None = None
    proxy_protocol: Mapping[str, Any] | None = None


class ProxyStatsMatcher(Struct, frozen=True):
    """Which of Envoy's statistics are kept besides the necessary ones."""

    inclusion_prefixes: tuple[str, ...] = ()
    inclusion_regexps: tuple[str, ...] = ()
    inclusion_suffixes: tuple[str, ...] = ()


class TracingSettings(Struct, frozen=True):
    """Tracing of the proxies; Telemetry is the newer place for it."""

    custom_tags: Mapping[str, Any] = {}
    datadog: Mapping[str, Any] | None = None
    lightstep: Mapping[str, Any] | None = None
    max_path_tag_length: UInt32 | None = None
    open_census_agent: Mapping[str, Any] | None = None
    sampling: PercentValue | None = None
    stackdriver: Mapping[str, Any] | None = None
    tls_settings: Mapping[str, Any] | None = None
    zipkin: Mapping[str, Any] | None = None


class MeshProxyConfig(Struct, frozen=True):
    """Settings of the proxies, unless a ProxyConfig or an annotation says otherwise."""

    binary_path: str | None = None
    ca_certificates_pem: tuple[str, ...] = ()
    concurrency: Annotated[int, Meta(ge=0)] | None = None
    config_path: str | None = None
    connection_settings: Mapping[str, Any] | None = None
    control_plane_auth_policy: str | None = None
    custom_config_file: str | None = None
    discovery_address: str | None = None
    drain_duration: Duration | None = None
    envoy_access_log_service: Mapping[str, Any] | None = None
    envoy_metrics_service: Mapping[str, Any] | None = None
    extra_stat_tags: tuple[str, ...] = ()
    file_flush_interval: Duration | None = None
    file_flush_min_size_kb: UInt32 | None = None
    gateway_topology: Topology | None = None
    hold_application_until_proxy_starts: bool | None = None
    image: Mapping[str, Any] | None = None
    interception_mode: Literal["REDIRECT", "TPROXY", "NONE"] = "REDIRECT"
    mesh_id: str | None = None
    private_key_provider: Mapping[str, Any] | None = None
    proxy_admin_port: int | None = None
    proxy_bootstrap_template_path: str | None = None
    proxy_headers: Mapping[str, Any] | None = None
    proxy_metadata: Mapping[str, str] = {}
    proxy_stats_matcher: ProxyStatsMatcher | None = None
    readiness_probe: Mapping[str, Any] | None = None
    runtime_values: Mapping[str, str] = {}
    sds: Mapping[str, Any] | None = None
    service_cluster: str | None = None
    stat_name_length: int | None = None
    statsd_udp_address: str | None = None
    stats_udp_address: str | None = None
    status_port: int | None = None
    termination_drain_duration: Duration | None = None
    tracing: TracingSettings | None = None
    tracing_service_name: str | None = None
    zipkin_address: str | None = None


class MeshConfig(Struct, frozen=True):
    """Settings of the whole mesh. `cluster_domain` is lateen's own (Istio has it as a flag), as are `discovery`:
    whether sidecars get what their workload calls when it calls it, or everything it may call at once; and
    `count_requests`: whether proxies count what they send, to tell after which change calls failed more often."""

    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    access_log_file: str = ""
    access_log_format: str = ""
    ca: Mapping[str, Any] | None = None
    ca_certificates: tuple[CertificateData, ...] = ()
    certificates: tuple[Mapping[str, Any], ...] = ()
    cluster_domain: str = "cluster.local"
    config_sources: tuple[Mapping[str, Any], ...] = ()
    connect_timeout: Duration = seconds(10)
    count_requests: bool = True
    default_config: MeshProxyConfig = MeshProxyConfig()
    default_destination_rule_export_to: tuple[str, ...] = ("*",)
    default_http_retry_policy: HTTPRetry | None = None
    default_providers: DefaultProviders = DefaultProviders()
    default_service_export_to: tuple[str, ...] = ("*",)
    default_traffic_policy: DefaultTrafficPolicy | None = None
    default_virtual_service_export_to: tuple[str, ...] = ("*",)
    discovery: Literal["ON_DEMAND", "EAGER"] = "ON_DEMAND"
    disable_envoy_listener_log: bool | None = None
    discovery_selectors: tuple[LabelSelector, ...] = ()
    dns_refresh_rate: Duration = seconds(60)
    enable_auto_mtls: bool = True
    enable_envoy_access_log_service: bool | None = None
    enable_prometheus_merge: bool | None = None
    enable_tracing: bool = False
    extension_providers: tuple[Mapping[str, Any], ...] = ()
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] = "DO_NOT_UPGRADE"
    hbone_idle_timeout: Duration = seconds(3600)
    inbound_cluster_stat_name: str = ""
    inbound_traffic_policy: InboundTrafficPolicyMode = InboundTrafficPolicyMode()
    ingress_class: str | None = None
    ingress_controller_mode: Literal["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"] | None = None
    ingress_selector: str | None = None
    ingress_service: str | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    mesh_mtls: TLSConfig = field(default=TLSConfig(), name="meshMTLS")
    outbound_cluster_stat_name: str = ""
    outbound_traffic_policy: TrafficPolicyMode = TrafficPolicyMode()
    path_normalization: PathNormalization = PathNormalization()
    protocol_detection_timeout: Duration = seconds(0)
    proxy_http_port: int | None = None
    proxy_inbound_listen_port: int = 15006
    proxy_listen_port: int = 15001
    root_namespace: str = ROOT_NAMESPACE
    service_entry_visibility: tuple[Mapping[str, Any], ...] = ()
    service_scope_configs: tuple[Mapping[str, Any], ...] = ()
    service_settings: tuple[ServiceSettings, ...] = ()
    tcp_keepalive: TcpKeepalive | None = None
    tls_defaults: TLSConfig = TLSConfig()
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    verify_certificate_at_client: bool | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None
