"""Whether a patch means a generated object: contexts, listeners, filter chains, routes, clusters.

An absent match means everything. Names of filters match by their old names too (`envoy.router`).

Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/
"""

from __future__ import annotations

from typing import Final

from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3 import route_components_pb2 as components

from lateen.api.istio.envoy_filter import (
    ClusterMatch,
    EnvoyConfigObjectMatch,
    EnvoyConfigObjectPatch,
    FilterChainMatch,
    RouteConfigurationMatch,
    RouteMatch,
)
from lateen.envoy.gateway_listener import SOCKET_PREFIX
from lateen.envoy.inbound_cluster import INBOUND_PASSTHROUGH
from lateen.envoy.inbound_listener import VIRTUAL_INBOUND
from lateen.intent.cluster import parse_cluster_name
from lateen.model.gateways import ANY_ADDRESS

INBOUND: Final = "SIDECAR_INBOUND"
OUTBOUND: Final = "SIDECAR_OUTBOUND"
GATEWAY: Final = "GATEWAY"
ANYTHING: Final = EnvoyConfigObjectMatch()

_OLD_NAMES: Final = {
    "envoy.http_connection_manager": "envoy.filters.network.http_connection_manager",
    "envoy.tcp_proxy": "envoy.filters.network.tcp_proxy",
    "envoy.mongo_proxy": "envoy.filters.network.mongo_proxy",
    "envoy.redis_proxy": "envoy.filters.network.redis_proxy",
    "envoy.router": "envoy.filters.http.router",
    "envoy.cors": "envoy.filters.http.cors",
    "envoy.fault": "envoy.filters.http.fault",
    "envoy.lua": "envoy.filters.http.lua",
    "envoy.buffer": "envoy.filters.http.buffer",
    "envoy.ext_authz": "envoy.filters.http.ext_authz",
    "envoy.listener.tls_inspector": "envoy.filters.listener.tls_inspector",
    "envoy.listener.http_inspector": "envoy.filters.listener.http_inspector",
    "envoy.listener.original_dst": "envoy.filters.listener.original_dst",
}


class Place:
    """What is known of a route table beside its bytes: its context, ports, and the Gateways and port names."""

    __slots__ = ("context", "gateways", "port_names", "ports")

    def __init__(
        self,
        context: str,
        ports: frozenset[int] = frozenset(),
        gateways: frozenset[str] = frozenset(),
        port_names: frozenset[str] = frozenset(),
    ) -> None:
        self.context = context
        self.ports = ports
        self.gateways = gateways
        self.port_names = port_names


def match_of(patch: EnvoyConfigObjectPatch) -> EnvoyConfigObjectMatch:
    """Its match, or one that asks for nothing."""
    return patch.match or ANYTHING


def in_context(match: EnvoyConfigObjectMatch, context: str) -> bool:
    """True when the match is for objects of that context."""
    return match.context in (None, "ANY", context)


def same_name(asked: str, name: str) -> bool:
    """True when a filter of that name is asked for, by its name or its old one."""
    return asked == name or _OLD_NAMES.get(asked) == name


def cluster_context(name: str, *, router: bool) -> str:
    """The context of a cluster."""
    if router:
        return GATEWAY
    return INBOUND if name.startswith("inbound|") or name == INBOUND_PASSTHROUGH else OUTBOUND


def listener_context(name: str, *, router: bool) -> str:
    """The context of a listener."""
    return GATEWAY if router else INBOUND if name == VIRTUAL_INBOUND else OUTBOUND


def matches_cluster(match: ClusterMatch | None, name: str) -> bool:
    """Whether a cluster is meant, by its name alone."""
    if match is None:
        return True
    if match.name:
        return match.name == name
    if not (match.service or match.subset or match.port_number):
        return True
    parts = parse_cluster_name(name)
    if parts is None:
        kind, _, rest = name.partition("|")
        number = rest.partition("|")[0]
        inbound = kind == "inbound" and number.isdigit() and not match.service and not match.subset
        return inbound and match.port_number == int(number)
    host, port, subset = parts
    return (
        (not match.service or match.service == host)
        and (not match.subset or match.subset == subset)
        and (not match.port_number or match.port_number == port)
    )


def matches_listener(match: EnvoyConfigObjectMatch, name: str) -> bool:
    """Whether a listener is meant, by its name alone; the ports of inbound chains are looked at chain by chain. A Unix
    socket of a gateway's port goes by the name of that port too."""
    wanted = match.listener
    if wanted is None:
        return True
    number = name.rpartition("_")[2]
    names = (name, f"{ANY_ADDRESS}_{number}") if name.startswith(SOCKET_PREFIX) else (name,)
    if wanted.name and wanted.name not in names:
        return False
    return not wanted.port_number or name == VIRTUAL_INBOUND or number == str(wanted.port_number)


def matches_chain(match: EnvoyConfigObjectMatch, listener: Listener, chain: FilterChain) -> bool:
    """Whether a filter chain of a listener that is meant is meant."""
    wanted = match.listener
    if wanted is None:
        return True
    own = chain.filter_chain_match
    if wanted.port_number and listener.name == VIRTUAL_INBOUND and own.destination_port.value != wanted.port_number:
        return False
    if wanted.filter_chain is None:
        return True
    asked: FilterChainMatch = wanted.filter_chain
    if asked.application_protocols:
        protocols = {each.strip() for each in asked.application_protocols.split(",")}
        if not protocols <= set(own.application_protocols):
            return False
    return (
        (not asked.name or asked.name == chain.name)
        and (not asked.sni or asked.sni in own.server_names)
        and (not asked.transport_protocol or asked.transport_protocol == own.transport_protocol)
        and (not asked.destination_port or asked.destination_port == own.destination_port.value)
    )


def filter_name(match: EnvoyConfigObjectMatch) -> str:
    """The network filter that is asked for; empty for any."""
    chain = match.listener.filter_chain if match.listener is not None else None
    return (chain.filter.name or "") if chain is not None and chain.filter is not None else ""


def sub_filter_name(match: EnvoyConfigObjectMatch) -> str:
    """The HTTP filter that is asked for; empty for any."""
    chain = match.listener.filter_chain if match.listener is not None else None
    wanted = chain.filter.sub_filter if chain is not None and chain.filter is not None else None
    return (wanted.name or "") if wanted is not None else ""


def matches_table(match: RouteConfigurationMatch | None, name: str, place: Place) -> bool:
    """Whether a route table is meant."""
    if match is None:
        return True
    return (
        (not match.name or match.name == name)
        and (not match.port_number or match.port_number in place.ports)
        and (not match.port_name or match.port_name in place.port_names)
        and (not match.gateway or match.gateway in place.gateways)
    )


def matches_host(match: RouteConfigurationMatch | None, host: components.VirtualHost) -> bool:
    """Whether a virtual host of a table that is meant is meant."""
    wanted = match.vhost if match is not None else None
    if wanted is None:
        return True
    named = not wanted.name or wanted.name == host.name
    return named and (not wanted.domain_name or wanted.domain_name in host.domains)


def route_match(match: RouteConfigurationMatch | None) -> RouteMatch | None:
    """Which routes of a virtual host are asked for."""
    return match.vhost.route if match is not None and match.vhost is not None else None


def matches_route(wanted: RouteMatch | None, route: components.Route) -> bool:
    """Whether a route of a virtual host that is meant is meant."""
    if wanted is None:
        return True
    action = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}.get(wanted.action or "")
    return (not wanted.name or wanted.name == route.name) and (not action or route.HasField(action))
