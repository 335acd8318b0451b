"""For which Scope a resource is made, so that all proxies share it that would get the same.

A sidecar's inbound side is its own. What it sends is decided by its namespace and by those of its labels that
something asks for; and most of that is the same for everybody. So a type has levels: the proxy's own Scope, one for all
proxies of the namespace that are labelled alike as far as it counts (`NAMESPACE`), and one of no namespace (`MESH`).
Where a level would not be right it is the one before. Which hosts may not be shared is found from indexes
(`model.sharing`, `model.placement`), so that a proxy's levels change only when something private to its namespace
comes or goes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lateen.engine import Q
from lateen.envoy.patch import KINDS
from lateen.envoy.resource import Shares
from lateen.intent.on_demand import split_name, without_port
from lateen.intent.scope import Capabilities, Scope
from lateen.lib.ids import OWN_CLUSTER
from lateen.model import envoy_filters, extensions, visibility
from lateen.model.envoy_filters import patches
from lateen.model.hosts import HostSet, is_wildcard
from lateen.model.mesh import root_namespace
from lateen.model.placement import placement
from lateen.model.policy_attachment import Workloads
from lateen.model.sharing import apart
from lateen.model.virtual_services import asked_labels
from lateen.model.visibility import client_of
from lateen.model.workloads import Labels

OWN: Final = 0
NAMESPACE: Final = 1
MESH: Final = 2
NAMESPACE_PLACED: Final = 3
"""As NAMESPACE, with the place of the proxy."""
MESH_PLACED: Final = 4
OUTBOUND: Final = "outbound|"


def cluster_shares(q: Q, scope: Scope) -> Shares:
    """The levels of clusters."""
    return Shares((scope, *_levels(q, scope, "CDS")), _apart(q, scope))


def cluster_level(shares: Shares, name: str) -> int:
    """Clusters of services are shared, those named by an address as long as nobody sees anything else."""
    if name.startswith(OUTBOUND):
        return NAMESPACE if name.rpartition("|")[2] in shares.apart else MESH
    if name[:1].isdecimal():
        return MESH if shares.apart.empty else NAMESPACE
    return OWN


def endpoint_shares(q: Q, scope: Scope) -> Shares:
    """The levels of assignments."""
    levels = _levels(q, scope, "EDS")
    placed = (msgspec.structs.replace(each, locality=scope.locality) for each in levels)
    found = q(placement)
    return Shares((scope, *levels, *placed), _apart(q, scope), found.placed, found.labelled)


def endpoint_level(shares: Shares, name: str) -> int:
    """Assignments are shared by all, by those of one place, or not."""
    host = name.rpartition("|")[2]
    if not name.startswith(OUTBOUND) or name == OWN_CLUSTER or host in shares.labelled:
        return OWN
    if host in shares.apart:
        return NAMESPACE_PLACED if host in shares.placed else NAMESPACE
    return MESH_PLACED if host in shares.placed else MESH


def listener_shares(q: Q, scope: Scope) -> Shares:
    """The levels of listeners. What several services share is made for the mesh only where everything is seen alike."""
    namespace, mesh = _levels(q, scope, "LDS")
    own = _apart(q, scope)
    return Shares((scope, namespace, mesh if own.empty and not namespace.labels else namespace), own)


def listener_level(shares: Shares, name: str) -> int:
    """A sidecar's outbound listeners are shared."""
    if shares.levels[OWN].router or name.startswith(("virtualInbound", "inbound_")):
        return OWN
    return NAMESPACE if name == "virtualOutbound" else MESH


def route_shares(q: Q, scope: Scope) -> Shares:
    """The levels of route tables."""
    return Shares((scope, scope if scope.router else _levels(q, scope, "RDS")[0]))


def route_level(_shares: Shares, _name: str) -> int:
    """The namespace decides the names in a sidecar's tables."""
    return NAMESPACE


def virtual_host_shares(q: Q, scope: Scope) -> Shares:
    """The levels of virtual hosts."""
    namespace, mesh = _levels(q, scope, "VHDS")
    own = _apart(q, scope)
    return Shares((scope, namespace, mesh if own.empty and not namespace.labels else namespace), own)


def virtual_host_level(shares: Shares, name: str) -> int:
    """Hosts of other namespaces have the same names for everybody, and so have hosts of the world. Names without a dot
    and wildcards depend on who asks."""
    parts = split_name(name)
    host = without_port(parts[1]) if parts is not None else ""
    home = f".{shares.levels[OWN].namespace}."
    return NAMESPACE if "." not in host or home in f"{host}." or is_wildcard(host) else MESH


def telling_labels(q: Q, namespace: str) -> frozenset[tuple[str, str]]:
    """The labels by which proxies of a namespace may be told apart in what they send."""
    root = q(root_namespace)
    return frozenset[tuple[str, str]]().union(
        visibility.selecting_labels(q, namespace),
        visibility.selecting_labels(q, root),
        envoy_filters.selecting_labels(q, namespace),
        extensions.selecting_labels(q, namespace),
        asked_labels(q),
    )


def _apart(q: Q, scope: Scope) -> HostSet:
    return q(apart, q(client_of, scope.namespace, scope.labels, scope.router))


def _levels(q: Q, scope: Scope, short: str) -> tuple[Scope, Scope]:
    """The Scopes of a namespace and of the mesh for a type."""
    if scope.router:
        labels: Labels = scope.labels
    else:
        telling = q(telling_labels, scope.namespace)
        labels = tuple(each for each in scope.labels if each in telling) if telling else ()
    can = Capabilities(mesh_gateway=scope.capabilities.mesh_gateway, counts=scope.capabilities.counts)
    namespace = Scope(
        scope.kind, scope.namespace, labels, capabilities=can, on_demand=scope.on_demand, metadata=scope.metadata
    )
    if _apart(q, scope).whole or (short != "EDS" and _told_apart(q, namespace, short)):
        return namespace, namespace
    return namespace, msgspec.structs.replace(namespace, namespace="", labels=())


def _told_apart(q: Q, scope: Scope, short: str) -> bool:
    """True when an EnvoyFilter or an extension is for some proxies only, of which these are."""
    here = Workloads(scope.namespace, scope.labels, scope.router)
    everywhere = Workloads("", (), scope.router)
    kinds = KINDS[short]
    if q(patches, here, scope.metadata, kinds) != q(patches, everywhere, scope.metadata, kinds):
        return True
    return short == "LDS" and q(extensions.extensions, here) != q(extensions.extensions, everywhere)
