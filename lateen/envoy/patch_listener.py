"""Patches of listeners: the listener itself, its listener filters, filter chains, network filters, HTTP filters.

A new filter without a place goes to the end, but before the last one where that must be the last (a proxy, the
router). `filterClass` gives an HTTP filter its place: AUTHN after what authenticates, AUTHZ after what authorizes,
STATS at the end. Inbound tables are inside of their listener, so patches of routes reach them here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api.istio.envoy_filter import EnvoyConfigObjectMatch, EnvoyConfigObjectPatch
from lateen.envoy import patch_route
from lateen.envoy.http_manager import MANAGER
from lateen.envoy.messages import merge, parse
from lateen.envoy.patch_lists import change_list
from lateen.envoy.patch_match import (
    INBOUND,
    Place,
    filter_name,
    in_context,
    match_of,
    matches_chain,
    matches_listener,
    same_name,
    sub_filter_name,
)
from lateen.features.encoding import pack

KINDS = ("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER", *patch_route.KINDS)
_AUTHN = ("envoy.filters.http.jwt_authn", "envoy.filters.http.oauth2")
_AUTHZ = ("envoy.filters.http.ext_authz", "envoy.filters.http.rbac")
_ROUTER = "envoy.filters.http.router"
_TERMINAL = frozenset(
    f"envoy.filters.network.{each}"
    for each in (
        "tcp_proxy",
        "http_connection_manager",
        "redis_proxy",
        "thrift_proxy",
        "dubbo_proxy",
        "direct_response",
    )
)


def means_listener(patch: EnvoyConfigObjectPatch, name: str, context: str) -> bool:
    """Whether a patch is for a listener, as far as that can be said without reading it."""
    match = match_of(patch)
    if not in_context(match, context):
        return False
    if patch.apply_to in patch_route.KINDS:
        return context == INBOUND
    return matches_listener(match, name)


def patch_listener(patch: EnvoyConfigObjectPatch, operation: str, listener: Listener) -> bool:
    """Applies a patch to a listener that it means; True when it found what it is for. NoMessageError for a value that
    is none."""
    assert patch.patch is not None
    match = match_of(patch)
    value = patch.patch.value
    match patch.apply_to:
        case "LISTENER":
            if operation not in ("MERGE", "MERGE_AND_REPLACE_LIST"):
                return False
            merge(listener, parse(value, Listener()), replace_lists=operation != "MERGE")
            return True
        case "LISTENER_FILTER":
            name = (match.listener.listener_filter or "") if match.listener is not None else ""
            made = None if operation == "REMOVE" else parse(value, ListenerFilter())
            return change_list(listener.listener_filters, operation, made, _by_name(name, operation))
        case "FILTER_CHAIN":
            return _chains(match, operation, None if operation == "REMOVE" else parse(value, FilterChain()), listener)
        case "NETWORK_FILTER":
            made = None if operation == "REMOVE" else parse(value, Filter())
            asked = _by_name(filter_name(match), operation)
            found = False
            for chain in _chains_of(match, listener):
                found = change_list(chain.filters, operation, made, asked, _before_last(chain)) or found
            return found
        case _:
            return _managers(patch, operation, match, listener)


def _chains(match: EnvoyConfigObjectMatch, operation: str, made: FilterChain | None, listener: Listener) -> bool:
    if operation not in ("ADD", "REMOVE", "MERGE", "MERGE_AND_REPLACE_LIST"):
        return False
    if operation == "ADD":
        assert made is not None
        listener.filter_chains.append(made)
        return True
    found = change_list(listener.filter_chains, operation, made, lambda each: matches_chain(match, listener, each))
    if listener.HasField("default_filter_chain") and matches_chain(match, listener, listener.default_filter_chain):
        found = True
        if made is None:
            listener.ClearField("default_filter_chain")
        else:
            merge(listener.default_filter_chain, made, replace_lists=operation != "MERGE")
    return found


def _managers(patch: EnvoyConfigObjectPatch, operation: str, match: EnvoyConfigObjectMatch, listener: Listener) -> bool:
    """What is inside of connection managers: HTTP filters, and inbound route tables."""
    found = False
    wanted = filter_name(match)
    if patch.apply_to == "HTTP_FILTER" and wanted and not same_name(wanted, MANAGER):
        return False
    for chain in _chains_of(match, listener):
        for each in chain.filters:
            if each.name != MANAGER:
                continue
            manager = hcm.HttpConnectionManager()
            manager.ParseFromString(each.typed_config.value)
            if patch.apply_to == "HTTP_FILTER":
                met = _http_filters(patch, operation, match, manager)
            else:
                met = _inbound_table(patch, operation, manager)
            if met:
                pack(each.typed_config, manager)
                found = True
    return found


def _http_filters(
    patch: EnvoyConfigObjectPatch, operation: str, match: EnvoyConfigObjectMatch, manager: hcm.HttpConnectionManager
) -> bool:
    assert patch.patch is not None
    made = None if operation == "REMOVE" else parse(patch.patch.value, hcm.HttpFilter())
    asked = _by_name(sub_filter_name(match), operation)
    kind = patch.patch.filter_class or "UNSPECIFIED"
    if asked is None and kind != "UNSPECIFIED" and operation.startswith(("ADD", "INSERT")):
        operation = "ADD"

    def end() -> int:
        after = {"AUTHN": _AUTHN, "AUTHZ": (*_AUTHN, *_AUTHZ)}.get(kind)
        if after is not None:
            return max((index + 1 for index, each in enumerate(manager.http_filters) if each.name in after), default=0)
        routers = [index for index, each in enumerate(manager.http_filters) if each.name == _ROUTER]
        return routers[0] if routers else len(manager.http_filters)

    return change_list(manager.http_filters, operation, made, asked, end)


def _inbound_table(patch: EnvoyConfigObjectPatch, operation: str, manager: hcm.HttpConnectionManager) -> bool:
    table = manager.route_config
    number = table.name.split("|")[1] if table.name.count("|") > 1 else ""
    place = Place(INBOUND, frozenset({int(number)}) if number.isdigit() else frozenset())
    if not manager.HasField("route_config") or not patch_route.means_table(patch, table.name, place):
        return False
    return patch_route.patch_table(patch, operation, table)


def _chains_of(match: EnvoyConfigObjectMatch, listener: Listener) -> Iterator[FilterChain]:
    for each in listener.filter_chains:
        if matches_chain(match, listener, each):
            yield each
    if listener.HasField("default_filter_chain") and matches_chain(match, listener, listener.default_filter_chain):
        yield listener.default_filter_chain


def _by_name(name: str, operation: str) -> Callable[[Filter | hcm.HttpFilter | ListenerFilter], bool] | None:
    """Which filters are asked for; None where the patch names none. Without a name, only MERGE means every filter."""
    if name:
        return lambda each: same_name(name, each.name)
    return None if not operation.startswith("REMOVE") else lambda _: False


def _before_last(chain: FilterChain) -> Callable[[], int]:
    def end() -> int:
        last = len(chain.filters) - 1
        return last if last >= 0 and chain.filters[last].name in _TERMINAL else last + 1

    return end
