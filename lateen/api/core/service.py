"""Service (core v1): a name and an address for the Pods that a selector picks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.core.selectors import IntOrString
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, Port, Struct, field, list_map
from lateen.lib.names import is_address, is_label, is_port_name


class ServicePort(Struct, frozen=True):
    """A port of a Service and the port of the Pods behind it."""

    port: Port
    name: str | None = None
    app_protocol: str | None = None
    node_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    target_port: IntOrString | None = None

    def problems(self) -> Iterator[Problem]:
        if self.name and not is_label(self.name):
            yield Problem("name", f'"{self.name[:80]}" cannot be the name of a port', "use a-z, 0-9 and '-'")
        if isinstance(self.target_port, int):
            yield from rules.port("targetPort", self.target_port)
        elif self.target_port and not is_port_name(self.target_port):
            yield Problem(
                "targetPort", f'"{self.target_port[:80]}" is no port', "write a number, or the name of a port"
            )


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
    ports: Annotated[tuple[ServicePort, ...], list_map("port", "protocol")] = ()
    publish_not_ready_addresses: bool | None = None
    selector: Mapping[str, str] = {}
    session_affinity: Literal["None", "ClientIP"] | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.type == "ExternalName":
            if not self.external_name:
                yield Problem("", "type ExternalName needs a name", "set externalName")
        elif not self.ports and self.cluster_ip != "None":
            yield Problem("", "the service has no ports", "set ports; only a headless service can be without")
        if len(self.ports) > 1:
            for index, each in enumerate(self.ports):
                if not each.name:
                    yield Problem(at("ports", index), "ports need names when there are several", "set name")
        yield from rules.no_duplicates(
            ("ports",), [each.name for each in self.ports if each.name], "the name of a port"
        )
        numbers = [(each.port, each.protocol or "TCP") for each in self.ports]
        yield from rules.no_duplicates(("ports",), [f"{number}/{protocol}" for number, protocol in numbers], "port")
        yield from rules.labels(("selector",), self.selector)
        if self.cluster_ip not in (None, "", "None") and not is_address(self.cluster_ip):
            yield Problem("clusterIP", f'"{self.cluster_ip[:80]}" is no address', 'write an address, or "None"')


class Service(Object, frozen=True):
    """A name for a set of Pods."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Service"

    spec: ServiceSpec = ServiceSpec()
