"""Headers: set, add and remove them on the request before it is sent and on the response before it is returned.

A destination's own changes come on top of those of the rule. The host name is a header to people but not to
Envoy: setting `host` or `:authority` rewrites it; other pseudo headers can't be changed. A value may hold
Envoy's substitutions (`%DOWNSTREAM_REMOTE_ADDRESS%`); a percent sign that is not part of one means itself.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Headers and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#custom-request-response-headers
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import Route
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer

from lateen.api.istio import http_route as api
from lateen.engine import Q
from lateen.features.feature import Feature, Rule
from lateen.intent.route import NO_HEADERS, HeaderOperations, HeaderPolicy, Headers

_HOST_NAMES = ("host", ":authority")
_PERCENT = re.compile(r"(%%|%[A-Z][A-Z0-9_]*(?:\([^)]*\))?(?::\d+)?%)|%")


def intent(_: Q, rule: Rule) -> HeaderPolicy | None:
    """The changes of a rule and its destinations, or None when there are none."""
    policy = HeaderPolicy(_headers(rule.http.headers), tuple(_headers(each.headers) for each in rule.http.route))
    if policy.route == NO_HEADERS and all(each == NO_HEADERS for each in policy.destinations):
        return None
    return policy


def _headers(said: api.Headers | None) -> Headers:
    if said is None:
        return NO_HEADERS
    authority = ""
    if said.request is not None:
        authority = next((value for name, value in said.request.set.items() if name.lower() in _HOST_NAMES), "")
    return Headers(_operations(said.request), _operations(said.response), authority)


def _operations(said: api.HeaderOperations | None) -> HeaderOperations:
    if said is None:
        return HeaderOperations()
    return HeaderOperations(
        set=_changeable(said.set.items()),
        add=_changeable(said.add.items()),
        remove=tuple(sorted({name.lower() for name in said.remove if _can_change(name)})),
    )


def _changeable(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name.lower(), value) for name, value in pairs if _can_change(name)))


def _can_change(name: str) -> bool:
    return bool(name) and not name.startswith(":") and name.lower() != "host"


class _Target(Protocol):
    """What a Route and a weighted cluster have in common."""

    @property
    def request_headers_to_add(self) -> RepeatedCompositeFieldContainer[HeaderValueOption]: ...
    @property
    def request_headers_to_remove(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def response_headers_to_add(self) -> RepeatedCompositeFieldContainer[HeaderValueOption]: ...
    @property
    def response_headers_to_remove(self) -> RepeatedScalarFieldContainer[str]: ...


def envoy(slot: HeaderPolicy, route: Route) -> None:
    """Writes the changes into the route and its weighted destinations."""
    weighted = route.route.weighted_clusters.clusters if route.HasField("route") else ()
    if weighted:
        for cluster, own in zip(weighted, slot.destinations, strict=True):
            _write(own, cluster)
            if own.authority:
                cluster.host_rewrite_literal = own.authority
    else:
        for own in slot.destinations:
            _write(own, route)
            if own.authority:
                route.route.host_rewrite_literal = own.authority
    _write(slot.route, route)
    if slot.route.authority and route.HasField("route"):
        route.route.host_rewrite_literal = slot.route.authority


def _write(headers: Headers, target: _Target) -> None:
    _add(headers.request, target.request_headers_to_add)
    target.request_headers_to_remove.extend(headers.request.remove)
    _add(headers.response, target.response_headers_to_add)
    target.response_headers_to_remove.extend(headers.response.remove)


def _add(operations: HeaderOperations, options: RepeatedCompositeFieldContainer[HeaderValueOption]) -> None:
    for pairs, action in (
        (operations.set, HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD),
        (operations.add, HeaderValueOption.APPEND_IF_EXISTS_OR_ADD),
    ):
        for name, value in pairs:
            option = options.add()
            option.header.key = name
            option.header.value = _PERCENT.sub(lambda found: found[1] or "%%", value)
            option.append_action = action
            option.keep_empty_value = True


def words(slot: HeaderPolicy) -> str:
    """For people."""
    parts: list[str] = []
    for headers, where in [(slot.route, ""), *((each, " for one destination") for each in slot.destinations)]:
        for operations, message in ((headers.request, "request"), (headers.response, "response")):
            names = [f"sets {name}" for name, _ in operations.set]
            names += [f"adds {name}" for name, _ in operations.add]
            names += [f"removes {name}" for name in operations.remove]
            parts += [f"{name} on the {message}{where}" for name in names]
        if headers.authority:
            parts.append(f"sets the host name to {headers.authority}{where}")
    return f"The proxy {', '.join(parts)}."


FEATURE = Feature("headers", intent, envoy, words, forwards=False)
