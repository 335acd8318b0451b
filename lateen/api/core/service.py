"""Service (core v1): a name and an address for the Pods that a selector picks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.core.selectors import IntOrString
from lateen.api.struct import Meta, Object, Port, Struct, field


class ServicePort(Struct, frozen=True):
    """A port of a Service and the port of the Pods behind it."""

    port: Port
    name: str | None = None
    app_protocol: str | None = None
    node_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    target_port: IntOrString | None = None


class ClientIPConfig(Struct, frozen=True):
    """How long a client sticks to an endpoint, in seconds."""

    timeout_seconds: Annotated[int, Meta(ge=1, le=86400)] | None = None


class SessionAffinityConfig(Struct, frozen=True):
    """How clients stick to endpoints."""

    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(Struct, frozen=True):
    """Ports, addresses, and which Pods are behind them. `clusterIP: None` (the text) makes it headless."""

    allocate_load_balancer_node_ports: bool | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = field(default=(), name="externalIPs")
    external_name: str | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    health_check_node_port: int | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str | None = field(default=None, name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool | None = None
    selector: Mapping[str, str] = {}
    session_affinity: Literal["None", "ClientIP"] | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None


class Service(Object, frozen=True):
    """A name for a set of Pods."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Service"

    spec: ServiceSpec = ServiceSpec()
