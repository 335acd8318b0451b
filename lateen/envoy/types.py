"""The table of xDS types, in the order in which additions are pushed. Adding a type is adding a line."""

from __future__ import annotations

from typing import Final

from lateen.envoy.cluster import cluster_names, cluster_names_at, cluster_resource, endpoint_names
from lateen.envoy.endpoint import endpoint_resource
from lateen.envoy.extensions import extended, extension_names, extension_resource
from lateen.envoy.listener import listener_names_at, listener_resource, listener_resource_names
from lateen.envoy.on_demand import canonical_name, refusing, virtual_host_names, virtual_host_resource
from lateen.envoy.patch import patched
from lateen.envoy.resource import ResourceType
from lateen.envoy.route import route_configuration, route_names
from lateen.envoy.secret import secret_names, secret_resource
from lateen.envoy.sharing import (
    cluster_level,
    cluster_shares,
    endpoint_level,
    endpoint_shares,
    listener_level,
    listener_shares,
    route_level,
    route_shares,
    virtual_host_level,
    virtual_host_shares,
)

PREFIX = "type.googleapis.com/envoy."

_CDS: Final = ResourceType(
    f"{PREFIX}config.cluster.v3.Cluster",
    "CDS",
    True,
    cluster_names,
    cluster_resource,
    cluster_shares,
    cluster_level,
    cluster_names_at,
)
_ECDS: Final = ResourceType(
    f"{PREFIX}config.core.v3.TypedExtensionConfig", "ECDS", False, extension_names, extension_resource
)
_LDS: Final = extended(
    ResourceType(
        f"{PREFIX}config.listener.v3.Listener",
        "LDS",
        True,
        listener_resource_names,
        listener_resource,
        listener_shares,
        listener_level,
        listener_names_at,
    )
)
_RDS: Final = ResourceType(
    f"{PREFIX}config.route.v3.RouteConfiguration",
    "RDS",
    False,
    route_names,
    route_configuration,
    route_shares,
    route_level,
)
_VHDS: Final = ResourceType(
    f"{PREFIX}config.route.v3.VirtualHost",
    "VHDS",
    False,
    virtual_host_names,
    virtual_host_resource,
    virtual_host_shares,
    virtual_host_level,
    resolve=canonical_name,
    instead=refusing,
)
UNPATCHED: Final = (_CDS, _ECDS, _LDS, _RDS, _VHDS)
"""The types that EnvoyFilters change, as translation makes them."""

CDS: Final = patched(_CDS)
EDS: Final = ResourceType(
    f"{PREFIX}config.endpoint.v3.ClusterLoadAssignment",
    "EDS",
    False,
    endpoint_names,
    endpoint_resource,
    endpoint_shares,
    endpoint_level,
)
ECDS: Final = patched(_ECDS)
LDS: Final = patched(_LDS)
RDS: Final = patched(_RDS)
VHDS: Final = patched(_VHDS)
SDS: Final = ResourceType(
    f"{PREFIX}extensions.transport_sockets.tls.v3.Secret", "SDS", False, secret_names, secret_resource
)

TYPES: Final = (CDS, EDS, ECDS, LDS, RDS, VHDS, SDS)
