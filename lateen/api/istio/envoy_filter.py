"""EnvoyFilter: patches of the generated Envoy configuration (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import PolicyTargetReference, WorkloadSelector
from lateen.api.problems import Problem, at
from lateen.api.struct import Int32, Meta, Object, Port, Struct, UInt32


class ClusterMatch(Struct, frozen=True):
    """A cluster by its name or by the service behind it."""

    name: str | None = None
    port_number: UInt32 | None = None
    service: str | None = None
    subset: str | None = None


class SubFilterMatch(Struct, frozen=True):
    """An HTTP filter by its name."""

    name: str | None = None


class FilterMatch(Struct, frozen=True):
    """A network filter, and an HTTP filter inside it."""

    name: str | None = None
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(Struct, frozen=True):
    """A filter chain of a listener."""

    application_protocols: str | None = None
    destination_port: UInt32 | None = None
    filter: FilterMatch | None = None
    name: str | None = None
    sni: str | None = None
    transport_protocol: str | None = None


class ListenerMatch(Struct, frozen=True):
    """A listener, and what is inside it."""

    filter_chain: FilterChainMatch | None = None
    listener_filter: str | None = None
    name: str | None = None
    port_name: str | None = None
    port_number: UInt32 | None = None


class ProxyMatch(Struct, frozen=True):
    """Proxies by version and metadata."""

    metadata: Mapping[str, str] = {}
    proxy_version: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.proxy_version:
            yield from rules.regex("proxyVersion", self.proxy_version)


class RouteMatch(Struct, frozen=True):
    """A route by its name or what it does."""

    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] | None = None
    name: str | None = None


class VirtualHostMatch(Struct, frozen=True):
    """A virtual host by name or domain."""

    domain_name: str | None = None
    name: str | None = None
    route: RouteMatch | None = None


class RouteConfigurationMatch(Struct, frozen=True):
    """A route configuration, and what is inside it."""

    gateway: str | None = None
    name: str | None = None
    port_name: str | None = None
    port_number: UInt32 | None = None
    vhost: VirtualHostMatch | None = None


class WaypointRouteMatch(Struct, frozen=True):
    """A route of a waypoint by its name."""

    name: str | None = None


class WaypointMatch(Struct, frozen=True):
    """What is inside a waypoint: by port, filter or route."""

    filter: FilterMatch | None = None
    port_number: Port | None = None
    route: WaypointRouteMatch | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.port("portNumber", self.port_number)


class EnvoyConfigObjectMatch(Struct, frozen=True):
    """Which generated object a patch is for."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("listener", "routeConfiguration", "cluster", "waypoint"),)

    cluster: ClusterMatch | None = None
    context: Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"] | None = None
    listener: ListenerMatch | None = None
    proxy: ProxyMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    waypoint: WaypointMatch | None = None


class Patch(Struct, frozen=True):
    """The operation and its value."""

    filter_class: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] | None = None
    operation: (
        Literal[
            "INVALID",
            "MERGE",
            "ADD",
            "REMOVE",
            "INSERT_BEFORE",
            "INSERT_AFTER",
            "INSERT_FIRST",
            "REPLACE",
            "MERGE_AND_REPLACE_LIST",
        ]
        | None
    ) = None
    value: Mapping[str, Any] = {}


class EnvoyConfigObjectPatch(Struct, frozen=True):
    """One patch: what it applies to and what it does."""

    apply_to: (
        Literal[
            "INVALID",
            "LISTENER",
            "FILTER_CHAIN",
            "NETWORK_FILTER",
            "HTTP_FILTER",
            "ROUTE_CONFIGURATION",
            "VIRTUAL_HOST",
            "HTTP_ROUTE",
            "CLUSTER",
            "EXTENSION_CONFIG",
            "BOOTSTRAP",
            "LISTENER_FILTER",
        ]
        | None
    ) = None
    match: EnvoyConfigObjectMatch | None = None
    patch: Patch | None = None

    def problems(self) -> Iterator[Problem]:
        if self.apply_to in (None, "INVALID"):
            yield Problem("", '"applyTo" is missing', "say what is patched, such as HTTP_FILTER")
        if self.patch is None or self.patch.operation in (None, "INVALID"):
            yield Problem("", '"patch.operation" is missing', "say what is done, such as MERGE")
        elif self.patch.operation != "REMOVE" and not self.patch.value:
            yield Problem("patch", f"operation {self.patch.operation} needs a value", "set patch.value")
        if self.match is None:
            return
        objects = {
            "listener": self.match.listener,
            "routeConfiguration": self.match.route_configuration,
            "cluster": self.match.cluster,
        }
        wanted = _OBJECTS.get(self.apply_to or "")
        for name, value in objects.items():
            if value is not None and wanted is not None and name != wanted:
                yield Problem(at("match", name), f"{self.apply_to} is not in a {name}", f"match a {wanted}")


class EnvoyFilterSpec(Struct, frozen=True):
    """Patches of what lateen generates, for some proxies."""

    config_patches: tuple[EnvoyConfigObjectPatch, ...] = ()
    priority: Int32 | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    workload_selector: WorkloadSelector | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.workload_selector, None, self.target_refs)


class EnvoyFilter(Object, frozen=True):
    """Patches of the generated Envoy configuration."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "EnvoyFilter"

    spec: EnvoyFilterSpec = EnvoyFilterSpec()


_OBJECTS = {
    **dict.fromkeys(("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"), "listener"),
    **dict.fromkeys(("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"), "routeConfiguration"),
    "CLUSTER": "cluster",
}
