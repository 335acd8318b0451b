"""Patches of route tables: the table itself, its virtual hosts, their routes."""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from lateen.api.istio.envoy_filter import EnvoyConfigObjectPatch
from lateen.envoy.messages import merge, parse
from lateen.envoy.patch_lists import change_list
from lateen.envoy.patch_match import (
    Place,
    in_context,
    match_of,
    matches_host,
    matches_route,
    matches_table,
    route_match,
)

KINDS = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")


def means_table(patch: EnvoyConfigObjectPatch, name: str, place: Place) -> bool:
    """Whether a patch is for a table, as far as that can be said without reading it."""
    match = match_of(patch)
    return in_context(match, place.context) and matches_table(match.route_configuration, name, place)


def patch_host(patch: EnvoyConfigObjectPatch, operation: str, host: components.VirtualHost) -> bool:
    """Applies a patch to a virtual host `TABLE/HOST` outside its table, where it would be named `HOST:TABLE`."""
    name = host.name
    table, _, known_as = name.partition("/")
    alone = RouteConfiguration(name=table, virtual_hosts=[host])
    alone.virtual_hosts[0].name = f"{known_as}:{table}"
    found = patch_table(patch, operation, alone)
    if found:
        host.CopyFrom(alone.virtual_hosts[0])
        host.name = name
    return found


def patch_table(patch: EnvoyConfigObjectPatch, operation: str, table: RouteConfiguration) -> bool:
    """Applies a patch to a table that it means; True when it found what it is for. NoMessageError for a value that is
    none."""
    assert patch.patch is not None
    match = match_of(patch).route_configuration
    value = patch.patch.value
    if patch.apply_to == "ROUTE_CONFIGURATION":
        if operation not in ("MERGE", "MERGE_AND_REPLACE_LIST"):
            return False
        merge(table, parse(value, RouteConfiguration()), replace_lists=operation != "MERGE")
        return True
    if patch.apply_to == "VIRTUAL_HOST":
        if operation not in ("ADD", "REMOVE", "MERGE", "MERGE_AND_REPLACE_LIST"):
            return False
        host = None if operation == "REMOVE" else parse(value, components.VirtualHost())
        return change_list(table.virtual_hosts, operation, host, lambda each: matches_host(match, each))
    wanted = route_match(match)

    def asked(route: components.Route) -> bool:
        return matches_route(wanted, route)

    found = False
    for host in table.virtual_hosts:
        if not matches_host(match, host):
            continue
        route = None if operation == "REMOVE" else parse(value, components.Route())
        anywhere = wanted is None and operation.startswith("INSERT")
        found = change_list(host.routes, operation, route, None if anywhere else asked) or found
    return found
