"""Envoy's bootstrap: what a proxy must know before it can ask the control plane for everything else.

Only three clusters are static: `xds-grpc` (the control plane, TLS 1.3 with the Pod's own certificate, the server's
SPIFFE id insisted on), `sds-grpc` (the agent's Unix socket, where certificate and trust come from) and
`local_cluster` (the proxies like this one, whose addresses the control plane tells). All else comes over one delta
ADS stream. The node id and metadata have Istio's form, so Istio's tools and EnvoyFilters
read them; keys of lateen's own start with `LATEEN_` and are claims only.

Three settings carry a load elsewhere: every upstream socket is marked (redirection lets marked packets out), the
admin interface is a Unix socket hidden from the application, and per-cluster statistics are left out (they are
most of the memory of a large mesh).

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lateen import __version__
from lateen.lib.ids import LOCALITY_LABELS, OWN_CLUSTER
from lateen.lib.spiffe import control_plane_id
from lateen.node.admin_listener import admin_listener

PROXY_MARK = 0x539
"""SO_MARK of the proxy's own traffic; redirection rules let it pass."""

_SOL_SOCKET = 1
_SO_MARK = 36
_TYPE = "type.googleapis.com/"
_OTHER_FILES = 1_000

Json = dict[str, Any]


class XdsAddress(msgspec.Struct, frozen=True):
    """Where the control plane listens: a Unix socket `path`, or `host` and `port`. Without `tls` the stream is
    plaintext and unauthenticated: for tools and tests on loopback."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = True


class Locality(msgspec.Struct, frozen=True):
    """Where the proxy runs; empty parts are unknown."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class BootstrapSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One proxy.

    `kind` is `sidecar` or `router`. Paths are Unix sockets (under 100 bytes). `mark` None leaves sockets
    unmarked (no CAP_NET_RAW needed). `status_port` (GET /healthz/ready) and `metrics_port`
    (GET /stats/prometheus) are listened on at all addresses of the Pod; None for none.
    """

    pod: str
    namespace: str
    ip: str
    xds: XdsAddress
    sds_path: str = ""
    admin_path: str
    kind: str = "sidecar"
    service_account: str = "default"
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    workload: str = ""
    node_name: str = ""
    cluster_id: str = "Kubernetes"
    mesh_id: str = "cluster.local"
    network: str = ""
    locality: Locality = Locality()
    trust_domain: str = "cluster.local"
    domain: str = "cluster.local"
    host_sockets: Mapping[int, str] = {}
    mark: int | None = PROXY_MARK
    status_port: int | None = 15021
    metrics_port: int | None = 15090
    mesh_gateway: str = ""
    """`HOST:PORT` where Pods of the mesh are reached from outside of their network; empty: directly."""
    resolver: str = ""
    """`HOST:PORT` of the name server; empty for those of the machine."""
    concurrency: int = 1
    open_files: int = 65536
    """The process's limit; connections from others are taken as long as each leaves one for the way on."""
    drain_s: int = 5
    """How long listeners that were replaced keep their connections."""
    metadata: Mapping[str, str] = {}
    """Further fields of the node's metadata."""
    log_level: str = "warning"

    @property
    def node_id(self) -> str:
        """Istio's form: kind, address, name and DNS suffix between tildes."""
        return f"{self.kind}~{self.ip}~{self.pod}.{self.namespace}~{self.namespace}.svc.{self.domain}"


def labelled_locality(labels: Mapping[str, str]) -> Locality:
    """Where a workload is by its label `topology.istio.io/locality`: `REGION.ZONE.SUBZONE`, or with slashes."""
    said = next((labels[each] for each in LOCALITY_LABELS if labels.get(each)), "")
    parts = [*said.replace(".", "/").split("/"), "", "", ""]
    return Locality(parts[0], parts[1], parts[2])


def bootstrap(spec: BootstrapSpec) -> Json:
    """The bootstrap document, ready for JSON. ValueError for a spec that no Envoy could start with."""
    if spec.xds.tls and not spec.sds_path:
        raise ValueError("a TLS stream to the control plane needs sds_path, where its certificate comes from")
    for path in (spec.xds.path, spec.sds_path, spec.admin_path):
        if len(path.encode()) >= 100:
            raise ValueError(f"the socket path {path} is too long for the kernel: {len(path.encode())} of 99 bytes")
    clusters = [_xds_cluster(spec), own_cluster()]
    if spec.sds_path:
        clusters.append(_grpc_cluster("sds-grpc", _pipe(spec.sds_path)))
    listeners: list[Json] = []
    for name, port, path, target in (
        ("status", spec.status_port, "/healthz/ready", "/ready"),
        ("metrics", spec.metrics_port, "/stats/prometheus", "/stats/prometheus"),
    ):
        if port is not None:
            listeners.append(admin_listener(name, port, path, target))
    if listeners:
        clusters.append(
            {"name": "admin", "type": "STATIC", "load_assignment": _assignment("admin", _pipe(spec.admin_path))}
        )
    return {
        **({"typed_dns_resolver_config": dns_resolver(spec.resolver)} if spec.resolver else {}),
        "node": _node(spec),
        "admin": {"address": {"pipe": {"path": spec.admin_path, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [_grpc("xds-grpc")],
            },
            "cds_config": _ads(),
            "lds_config": _ads(),
        },
        "static_resources": {"clusters": clusters, "listeners": listeners},
        "cluster_manager": _cluster_manager(spec),
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "cluster.outbound"}]}}},
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"re2": {"max_program_size": {"error_level": 32768}}}},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPE
                        + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": max(256, (spec.open_files - _OTHER_FILES) // 2),
                    },
                }
            ]
        },
    }


def write_bootstrap(document: Json, path: Path) -> None:
    """Writes a bootstrap to a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(document))


def argv(spec: BootstrapSpec, binary: Path, config: Path) -> list[str]:
    """The command line that starts this proxy in the foreground; it logs to stderr."""
    return [
        str(binary),
        "--config-path",
        str(config),
        "--concurrency",
        str(spec.concurrency),
        "--log-level",
        spec.log_level,
        "--log-format",
        "%Y-%m-%dT%T.%eZ %l envoy %n %v",
        "--disable-hot-restart",
        "--drain-time-s",
        str(spec.drain_s),
        "--file-flush-interval-msec",
        "1000",
        "--drain-strategy",
        "immediate",
    ]


def node_metadata(spec: BootstrapSpec) -> Json:
    """What the proxy says of itself, without what is empty."""
    metadata: Json = {
        **spec.metadata,
        "NAME": spec.pod,
        "NAMESPACE": spec.namespace,
        "LABELS": dict(spec.labels),
        "ANNOTATIONS": dict(spec.annotations),
        "SERVICE_ACCOUNT": spec.service_account,
        "INSTANCE_IPS": spec.ip,
        "WORKLOAD_NAME": spec.workload or spec.pod,
        "NODE_NAME": spec.node_name,
        "CLUSTER_ID": spec.cluster_id,
        "MESH_ID": spec.mesh_id,
        "NETWORK": spec.network,
        "DNS_DOMAIN": f"{spec.namespace}.svc.{spec.domain}",
        "INTERCEPTION_MODE": "REDIRECT" if spec.kind == "sidecar" else "NONE",
        "LATEEN_VERSION": __version__,
        "LATEEN_MESH_GATEWAY": spec.mesh_gateway,
        "LATEEN_ON_DEMAND": "true" if spec.kind == "sidecar" else "false",
        "LATEEN_COUNTS": "true",
        "LATEEN_HOST_SOCKETS": ",".join(f"{port}={path}" for port, path in sorted(spec.host_sockets.items())),
    }
    return {key: value for key, value in metadata.items() if value}


def _node(spec: BootstrapSpec) -> Json:
    app = spec.labels.get("app") or spec.workload or spec.pod
    node: Json = {"id": spec.node_id, "cluster": f"{app}.{spec.namespace}", "metadata": node_metadata(spec)}
    if spec.locality != Locality():
        node["locality"] = msgspec.to_builtins(spec.locality)
    return node


def dns_resolver(address: str) -> Json:
    """The extension config of a resolver that asks `HOST:PORT` and completes no names."""
    host, _, port = address.rpartition(":")
    return {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": host, "port_value": int(port)}}],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }


def own_cluster() -> Json:
    """The cluster of the proxies that are like this one: zone-aware balancing compares where they are with where
    endpoints are."""
    return {"name": OWN_CLUSTER, "type": "EDS", "eds_cluster_config": {"eds_config": _ads()}}


def _cluster_manager(spec: BootstrapSpec) -> Json:
    manager: Json = {"outlier_detection": {}, "local_cluster_name": OWN_CLUSTER}
    if spec.mark is not None:
        manager["upstream_bind_config"] = {
            "socket_options": [
                {
                    "description": "the proxy's own traffic",
                    "level": _SOL_SOCKET,
                    "name": _SO_MARK,
                    "int_value": spec.mark,
                    "state": "STATE_PREBIND",
                }
            ]
        }
    return manager


def _xds_cluster(spec: BootstrapSpec) -> Json:
    xds = spec.xds
    if xds.path:
        address = _pipe(xds.path)
        kind = "STATIC"
    else:
        address = {"socket_address": {"address": xds.host, "port_value": xds.port}}
        kind = "STATIC" if _is_ip(xds.host) else "STRICT_DNS"
    cluster = _grpc_cluster("xds-grpc", address, kind)
    if xds.tls:
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": _xds_tls(spec)}
    return cluster


def _xds_tls(spec: BootstrapSpec) -> Json:
    server = str(control_plane_id(spec.trust_domain))
    return {
        "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": f"istiod.istio-system.svc.{spec.domain}",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": _sds()}],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": server}}]
                },
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": _sds()},
            },
        },
    }


def _grpc_cluster(name: str, address: Json, kind: str = "STATIC") -> Json:
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "1s",
        "load_assignment": _assignment(name, address),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
                },
            }
        },
    }


def _ads() -> Json:
    # Without a time limit: a proxy that went on without its configuration would drop traffic it should carry.
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _sds() -> Json:
    return {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [_grpc("sds-grpc")],
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }


def _grpc(cluster: str) -> Json:
    # Envoy's own back-off goes up to 30 s: too long to wait for a restarted control plane or agent.
    return {
        "envoy_grpc": {"cluster_name": cluster},
        "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "1s"}},
    }


def _assignment(name: str, address: Json) -> Json:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _pipe(path: str) -> Json:
    return {"pipe": {"path": path}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
