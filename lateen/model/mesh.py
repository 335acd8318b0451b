"""Mesh configuration, read through narrow projections.

The ConfigMap `istio` of the root namespace (key `mesh`) is one wide object that nearly everything depends on. Each
query here returns one decision made from it, so that an edit of the access log format leaves every route and
cluster untouched.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/
"""

from __future__ import annotations

import msgspec
import yaml

from lateen.api.codec import DecodeError, decode_as
from lateen.api.core.config_map import ConfigMap
from lateen.api.istio.destination_rule import ClientTLSSettings, ConnectionPoolSettings, OutlierDetection, TcpKeepalive
from lateen.api.istio.http_route import HTTPRetry
from lateen.api.istio.load_balancer import LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting
from lateen.api.mesh.config import MESH_CONFIG_NAME, ROOT_NAMESPACE, MeshConfig, MeshProxyConfig, TLSConfig
from lateen.api.objects import get, ref_of
from lateen.engine import Q
from lateen.lib.ids import Ref


class AccessLog(msgspec.Struct, frozen=True):
    """Where proxies write a line per request; `file` empty: nowhere. `format` empty: Istio's."""

    file: str = ""
    format: str = ""
    json: bool = False


class OutboundPolicy(msgspec.Struct, frozen=True):
    """What becomes of traffic to hosts the mesh does not know."""

    allow_any: bool = True
    by_name: bool = False
    """Requests go where their host's name leads."""
    tls: ClientTLSSettings | None = None
    """How they go on then."""


def mesh_config(q: Q) -> MeshConfig:
    """The mesh configuration with defaults where it says nothing. Wide: read one of the projections instead.

    A text that is no configuration counts as nothing: whoever accepted the object had to refuse it.
    """
    found = get(q, ConfigMap, ROOT_NAMESPACE, MESH_CONFIG_NAME)
    text = found.data.get("mesh", "") if found is not None else ""
    try:
        return decode_as(yaml.load(text, yaml.CSafeLoader) or {}, MeshConfig)
    except (yaml.YAMLError, DecodeError):
        return MeshConfig()


def mesh_ref() -> Ref:
    """The object the mesh configuration comes from."""
    return ref_of(ConfigMap, ROOT_NAMESPACE, MESH_CONFIG_NAME)


def root_namespace(q: Q) -> str:
    """The namespace whose objects count for the whole mesh."""
    return q(mesh_config).root_namespace


def domain(q: Q) -> str:
    """The cluster domain: services are `<name>.<namespace>.svc.<domain>`."""
    return q(mesh_config).cluster_domain


def trust_domain(q: Q) -> str:
    """The trust domain of workload identities."""
    return q(mesh_config).trust_domain


class TlsBounds(msgspec.Struct, frozen=True):
    """What TLS is spoken at least, and with what; empty: what the proxy takes by itself."""

    minimum: str = ""
    cipher_suites: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


def mesh_tls(q: Q) -> TlsBounds:
    """The bounds of mutual TLS between proxies (`meshMTLS`)."""
    return _bounds(q(mesh_config).mesh_mtls)


def outer_tls(q: Q) -> TlsBounds:
    """The bounds of all other TLS (`tlsDefaults`), where a Gateway or DestinationRule has none of its own."""
    return _bounds(q(mesh_config).tls_defaults)


def _bounds(said: TLSConfig) -> TlsBounds:
    minimum = "" if said.min_protocol_version == "TLS_AUTO" else said.min_protocol_version
    return TlsBounds(minimum, tuple(dict.fromkeys(said.cipher_suites)), tuple(dict.fromkeys(said.ecdh_curves)))


def accepted_domains(q: Q) -> tuple[str, ...]:
    """The trust domains whose workloads may connect: the mesh's own, its aliases, those that `caCertificates` name."""
    others = (domain for each in q(mesh_config).ca_certificates for domain in each.trust_domains)
    return tuple(dict.fromkeys((*q(trust_domains), *others)))


def trust_domains(q: Q) -> tuple[str, ...]:
    """The trust domain and its other names."""
    config = q(mesh_config)
    return (config.trust_domain, *config.trust_domain_aliases)


def auto_mtls(q: Q) -> bool:
    """True when services of the mesh get mutual TLS without being told."""
    return q(mesh_config).enable_auto_mtls


def connect_timeout_s(q: Q) -> float:
    """The default time limit of a TCP connection to an endpoint, in seconds."""
    return q(mesh_config).connect_timeout.seconds


def detection_timeout_s(q: Q) -> float:
    """How long a proxy waits for the first bytes to find the protocol of a connection; 0: for ever."""
    return q(mesh_config).protocol_detection_timeout.seconds


def dns_refresh_s(q: Q) -> float:
    """How often names of ServiceEntries are asked again when DNS sets no time to live, in seconds."""
    return q(mesh_config).dns_refresh_rate.seconds


ON_DEMAND = "ON_DEMAND"


def discovery(q: Q) -> str:
    """How proxies that can choose learn of the mesh: `ON_DEMAND` or `EAGER`."""
    return q(mesh_config).discovery


def counts_requests(q: Q) -> bool:
    """True when proxies that can count the requests they send, for each service."""
    return q(mesh_config).count_requests


def upgrades_to_http2(q: Q) -> bool:
    """True when HTTP/1.1 services are called by HTTP/2 unless a DestinationRule forbids it."""
    return q(mesh_config).h2_upgrade_policy == "UPGRADE"


def tcp_keepalive(q: Q) -> TcpKeepalive | None:
    """The keep-alive of TCP connections that have none of their own."""
    return q(mesh_config).tcp_keepalive


def locality_setting(q: Q) -> LocalityLoadBalancerSetting | None:
    """The locality setting of services that have none of their own."""
    return q(mesh_config).locality_lb_setting


def zone_aware_setting(q: Q) -> ZoneAwareLoadBalancerSetting | None:
    """The zone-aware setting of services that have none of their own."""
    return q(mesh_config).zone_aware_lb_setting


def outbound_policy(q: Q) -> OutboundPolicy:
    """The mesh's policy for unknown hosts; a Sidecar may have its own."""
    said = q(mesh_config).outbound_traffic_policy
    by_name = said.mode == "ALLOW_ANY_DYNAMIC_DNS"
    return OutboundPolicy(said.mode != "REGISTRY_ONLY", by_name, said.tls if by_name else None)


def access_log(q: Q) -> AccessLog:
    """The access log of all proxies."""
    config = q(mesh_config)
    return AccessLog(config.access_log_file, config.access_log_format, config.access_log_encoding == "JSON")


def path_normalization(q: Q) -> str:
    """How request paths are normalised: NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES."""
    said = q(mesh_config).path_normalization.normalization
    return "BASE" if said == "DEFAULT" else said


def trusted_proxies(q: Q) -> int:
    """How many proxies before a gateway are trusted to say who the client is."""
    topology = q(mesh_config).default_config.gateway_topology
    return (topology.num_trusted_proxies or 0) if topology is not None else 0


def default_proxy_config(q: Q) -> MeshProxyConfig:
    """The settings of proxies that nothing narrower says otherwise."""
    return q(mesh_config).default_config


def default_http_retry(q: Q) -> HTTPRetry | None:
    """The retry policy of routes that have none of their own."""
    return q(mesh_config).default_http_retry_policy


def default_traffic_policy(q: Q) -> tuple[ConnectionPoolSettings | None, OutlierDetection | None]:
    """The connection pool and outlier detection of destinations that have none of their own."""
    policy = q(mesh_config).default_traffic_policy
    return (policy.connection_pool, policy.outlier_detection) if policy is not None else (None, None)


def default_service_export(q: Q) -> tuple[str, ...]:
    """`exportTo` of services that say nothing."""
    return q(mesh_config).default_service_export_to


def default_destination_rule_export(q: Q) -> tuple[str, ...]:
    """`exportTo` of DestinationRules that say nothing."""
    return q(mesh_config).default_destination_rule_export_to


def default_virtual_service_export(q: Q) -> tuple[str, ...]:
    """`exportTo` of VirtualServices that say nothing."""
    return q(mesh_config).default_virtual_service_export_to
