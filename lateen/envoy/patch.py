"""Patches of EnvoyFilters: a stage between the bytes that translation made and the stream.

    CDS = patched(ResourceType(...))

A resource that no patch means passes as it is, unread; one that is meant is read, changed and encoded again, and gets
the EnvoyFilter among its origins, so that Envoy's refusal leads back to the patch. A patch whose value is no message
of its kind changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.message import Message

from lateen.api.istio.envoy_filter import EnvoyConfigObjectPatch
from lateen.engine import Q
from lateen.envoy import patch_listener, patch_route
from lateen.envoy.messages import NoMessageError, merge, parse
from lateen.envoy.patch_match import (
    GATEWAY,
    OUTBOUND,
    Place,
    cluster_context,
    in_context,
    listener_context,
    match_of,
    matches_cluster,
    matches_listener,
)
from lateen.envoy.resource import Resource, ResourceType, mentioned, resource
from lateen.intent.route_table import gateway_table
from lateen.intent.scope import Scope
from lateen.model.envoy_filters import MERGES, PatchRef, patch_of, patches
from lateen.model.policy_attachment import Workloads

KINDS = {
    "CDS": ("CLUSTER",),
    "LDS": patch_listener.KINDS,
    "RDS": patch_route.KINDS,
    "VHDS": ("VIRTUAL_HOST", "HTTP_ROUTE"),
    "ECDS": ("EXTENSION_CONFIG",),
}
"""What can be applied to resources of each type."""
_WHOLE = {"CDS": "CLUSTER", "LDS": "LISTENER", "ECDS": "EXTENSION_CONFIG"}
"""What adds and removes whole resources of a type."""
_MESSAGES: dict[str, type[Message]] = {
    "CDS": Cluster,
    "LDS": Listener,
    "RDS": RouteConfiguration,
    "VHDS": VirtualHost,
    "ECDS": TypedExtensionConfig,
}
_VALUES: dict[str, type[Message]] = {
    "CLUSTER": Cluster,
    "LISTENER": Listener,
    "FILTER_CHAIN": FilterChain,
    "NETWORK_FILTER": Filter,
    "HTTP_FILTER": HttpFilter,
    "LISTENER_FILTER": ListenerFilter,
    "ROUTE_CONFIGURATION": RouteConfiguration,
    "VIRTUAL_HOST": VirtualHost,
    "HTTP_ROUTE": Route,
    "EXTENSION_CONFIG": TypedExtensionConfig,
    "BOOTSTRAP": Bootstrap,
}


_INSERTS = ("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST")
_LISTED = ("ADD", "REMOVE", *MERGES)
OPERATIONS = {
    **dict.fromkeys(("LISTENER", "FILTER_CHAIN", "CLUSTER", "VIRTUAL_HOST"), _LISTED),
    **dict.fromkeys(
        ("NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER", "HTTP_ROUTE"), (*_LISTED, *_INSERTS, "REPLACE")
    ),
    **dict.fromkeys(("ROUTE_CONFIGURATION", "BOOTSTRAP"), MERGES),
    "EXTENSION_CONFIG": ("ADD",),
}
"""What can be done with each kind of object."""


class Outcome(msgspec.Struct, frozen=True):
    """A resource after all patches (None: removed, or never there), and those that found what they are for."""

    made: Resource | None
    applied: tuple[PatchRef, ...] = ()


def patched(kind: ResourceType) -> ResourceType:
    """The type with the patches of EnvoyFilters applied; `outcome` of the same type says which of them met."""

    def names(q: Q, scope: Scope) -> tuple[str, ...]:
        base = q(kind.names, scope)
        whole = [each for each in _of(q, kind.short, scope) if each.apply_to == _WHOLE.get(kind.short)]
        return _listed(q, kind.short, scope, base, whole) if whole else base

    def made(q: Q, scope: Scope, name: str) -> Resource | None:
        if not _of(q, kind.short, scope):
            return kind.resource(q, scope, name)
        return q(outcome, kind, scope, name).made

    def names_at(q: Q, scope: Scope, level: int) -> tuple[str, ...]:
        assert kind.names_at is not None
        base = q(kind.names_at, scope, level)
        whole = [each for each in _of(q, kind.short, scope) if each.apply_to == _WHOLE.get(kind.short)]
        if not whole:
            return base
        shares, listed = q(kind.shares, scope), _listed(q, kind.short, scope, base, whole)
        return tuple(each for each in listed if each in base or kind.level(shares, each) == level)

    names.__name__, made.__name__ = kind.names.__name__, kind.resource.__name__  # what traces and reports call them
    names_at.__name__ = kind.names.__name__
    return msgspec.structs.replace(
        kind, names=names, resource=made, names_at=names_at if kind.names_at is not None else None
    )


def outcome(q: Q, kind: ResourceType, scope: Scope, name: str) -> Outcome:
    """A resource of a type without patches, after all patches."""
    base = kind.resource(q, scope, name)
    known = (base.endpoints or name) if base is not None else name  # a cluster may be asked for by another name
    message: Message | None = None
    met: list[PatchRef] = []
    for ref in _of(q, kind.short, scope):
        patch = patch_of(q, ref)
        if patch is None or patch.patch is None:
            continue
        operation = patch.patch.operation or ""
        if ref.apply_to == _WHOLE.get(kind.short) and operation in ("ADD", "REMOVE"):
            if operation == "REMOVE":
                gone = (base is not None or message is not None) and _means(q, patch, kind.short, scope, known)
                if gone:
                    return Outcome(None, (*met, ref))
            elif base is None and message is None:
                added = _added(patch, kind.short, scope)
                if added is not None and added[0] == name:
                    message = added[1]
                    met.append(ref)
            continue
        if (base is None and message is None) or not _means(q, patch, kind.short, scope, known):
            continue
        if message is None:
            assert base is not None
            message = _MESSAGES[kind.short].FromString(base.body)
        before = message.SerializeToString(deterministic=True)
        try:
            found = _apply(patch, operation, message)
        except NoMessageError:
            found = False
        if found:
            met.append(ref)
        else:
            message.ParseFromString(before)
    if message is None or not met:
        return Outcome(base)
    origins = dict.fromkeys((*(base.origins if base is not None else ()), *(each.ref for each in met)))
    body = message.SerializeToString(deterministic=True)
    clusters = () if kind.short == "CDS" else mentioned(body)
    together = base.together if base is not None else ()
    endpoints = base.endpoints if base is not None else ""
    return Outcome(resource(name, body, tuple(origins), clusters, together, endpoints), tuple(met))


def applied(q: Q, scope: Scope, types: tuple[ResourceType, ...]) -> frozenset[PatchRef]:
    """The patches that find what they are for in the resources of a proxy; `types` are those without patches."""
    found: set[PatchRef] = set()
    for kind in types:
        wanted = _of(q, kind.short, scope)
        names = dict.fromkeys(q(kind.names, scope)) if wanted else {}
        for ref in wanted:
            patch = patch_of(q, ref)
            if ref.apply_to == _WHOLE.get(kind.short) and patch is not None:
                names |= dict.fromkeys(each for each, _ in filter(None, (_added(patch, kind.short, scope),)))
        for name in names:
            found.update(q(outcome, kind, scope, name).applied)
    return frozenset(found)


def value_problem(patch: EnvoyConfigObjectPatch) -> str:
    """What is wrong with the value of a patch; empty when it is a message of its kind."""
    kind = _VALUES.get(patch.apply_to or "")
    if kind is None or patch.patch is None or patch.patch.operation == "REMOVE":
        return ""
    try:
        parse(patch.patch.value, kind())
    except NoMessageError as error:
        return str(error)
    return ""


def _of(q: Q, short: str, scope: Scope) -> tuple[PatchRef, ...]:
    if short not in KINDS:
        return ()
    return q(patches, Workloads(scope.namespace, scope.labels, scope.router), scope.metadata, KINDS[short])


def _listed(q: Q, short: str, scope: Scope, base: tuple[str, ...], whole: Iterable[PatchRef]) -> tuple[str, ...]:
    """The names with what patches add and remove, in their order."""
    names = dict.fromkeys(base)
    for ref in whole:
        patch = patch_of(q, ref)
        if patch is None or patch.patch is None:
            continue
        if patch.patch.operation == "ADD":
            if (added := _added(patch, short, scope)) is not None:
                names[added[0]] = None
        elif patch.patch.operation == "REMOVE":
            for name in [each for each in names if _means(q, patch, short, scope, each)]:
                del names[name]
    return tuple(names)


def _added(patch: EnvoyConfigObjectPatch, short: str, scope: Scope) -> tuple[str, Message] | None:
    """Name and message of a resource that a patch adds for a proxy; None when it adds none."""
    assert patch.patch is not None
    context = match_of(patch).context
    if context not in (None, "ANY") and (context == GATEWAY) is not scope.router:
        return None
    try:
        message = parse(patch.patch.value, _MESSAGES[short]())
    except NoMessageError:
        return None
    name = str(getattr(message, "name", ""))
    return (name, message) if name else None


def _means(q: Q, patch: EnvoyConfigObjectPatch, short: str, scope: Scope, name: str) -> bool:
    """Whether a patch may be for a resource, by what is known without reading it."""
    match = match_of(patch)
    if short == "CDS":
        return in_context(match, cluster_context(name, router=scope.router)) and matches_cluster(match.cluster, name)
    if short == "LDS":
        context = listener_context(name, router=scope.router)
        if patch.apply_to == "LISTENER":
            return in_context(match, context) and matches_listener(match, name)
        return patch_listener.means_listener(patch, name, context)
    if short == "VHDS":
        table = name.partition("/")[0]
        return patch_route.means_table(patch, table, _place(q, scope, table))
    return short == "RDS" and patch_route.means_table(patch, name, _place(q, scope, name))


def _place(q: Q, scope: Scope, name: str) -> Place:
    if not scope.router:
        number = name.rpartition(":")[2]
        return Place(OUTBOUND, frozenset({int(number)}) if number.isdigit() else frozenset())
    servers = q(gateway_table, scope.namespace, scope.labels, name)
    return Place(
        GATEWAY,
        frozenset(number for each in servers for number in (each.port, each.number)),
        frozenset(f"{each.gateway.namespace}/{each.gateway.name}" for each in servers),
        frozenset(each.port_name for each in servers),
    )


def _apply(patch: EnvoyConfigObjectPatch, operation: str, message: Message) -> bool:
    assert patch.patch is not None
    if isinstance(message, Listener):
        return patch_listener.patch_listener(patch, operation, message)
    if isinstance(message, RouteConfiguration):
        return patch_route.patch_table(patch, operation, message)
    if isinstance(message, VirtualHost):
        return patch_route.patch_host(patch, operation, message)
    if isinstance(message, Cluster) and operation in MERGES:
        merge(message, parse(patch.patch.value, Cluster()), replace_lists=operation != "MERGE")
        return True
    return False
