"""Delegation: a rule of a root VirtualService that stands for the rules of another one.

The root's matches narrow the delegate's: a request must satisfy both. A pair of matches that no request can
satisfy, or that can't be expressed as one (an expression beside anything else for the same property), is left
out, and with its last pair the delegate's rule. What both say about the rest, the delegate decides; headers are
united.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lateen.api.istio.http_match import HTTPMatchRequest, StringMatch
from lateen.api.istio.http_route import HeaderOperations, Headers, HTTPRoute

T = TypeVar("T")

_INHERITED = (
    "cors_policy",
    "fault",
    "mirror",
    "mirror_percent",
    "mirror_percent_alias",
    "mirror_percentage",
    "retries",
    "rewrite",
    "timeout",
)


class _Never(Exception):
    pass


def merged(root: HTTPRoute, delegate: tuple[HTTPRoute, ...]) -> tuple[HTTPRoute, ...]:
    """The rules that a root rule stands for, given those of its delegate. One level: a delegate's own delegation
    is left out."""
    rules = (_rule(root, each) for each in delegate if each.delegate is None)
    return tuple(each for each in rules if each is not None)


def _rule(root: HTTPRoute, rule: HTTPRoute) -> HTTPRoute | None:
    matches = root.match or rule.match
    if root.match and rule.match:
        matches = tuple(
            both for outer in root.match for inner in rule.match if (both := _match(outer, inner)) is not None
        )
        if not matches:
            return None
    inherited = {name: getattr(root, name) for name in _INHERITED if getattr(rule, name) is None}
    return msgspec.structs.replace(
        rule,
        match=matches,
        name="-".join(each for each in (root.name, rule.name) if each) or None,
        headers=_headers(root.headers, rule.headers),
        mirrors=rule.mirrors or root.mirrors,
        **inherited,
    )


def _match(outer: HTTPMatchRequest, inner: HTTPMatchRequest) -> HTTPMatchRequest | None:
    try:
        if outer.uri and inner.uri and bool(outer.ignore_uri_case) is not bool(inner.ignore_uri_case):
            return None
        if outer.gateways and inner.gateways and not set(inner.gateways) <= set(outer.gateways):
            return None
        return HTTPMatchRequest(
            authority=_text(outer.authority, inner.authority),
            gateways=inner.gateways or outer.gateways,
            headers=_texts(outer.headers, inner.headers),
            ignore_uri_case=outer.ignore_uri_case or inner.ignore_uri_case,
            method=_text(outer.method, inner.method),
            name="-".join(each for each in (outer.name, inner.name) if each) or None,
            port=_same(outer.port or None, inner.port or None),
            query_params=_texts(outer.query_params, inner.query_params),
            scheme=_text(outer.scheme, inner.scheme),
            source_labels=_same_values(outer.source_labels, inner.source_labels),
            source_namespace=_same(outer.source_namespace or None, inner.source_namespace or None),
            stat_prefix=inner.stat_prefix or outer.stat_prefix,
            uri=_text(outer.uri, inner.uri),
            without_headers=_texts(outer.without_headers, inner.without_headers),
        )
    except _Never:
        return None


def _text(outer: StringMatch | None, inner: StringMatch | None) -> StringMatch | None:
    if outer is None or inner is None:
        return inner if outer is None else outer
    if outer == inner:
        return inner
    if outer.regex or inner.regex:
        raise _Never
    if outer.prefix:
        if (inner.exact or inner.prefix or "").startswith(outer.prefix):
            return inner
        raise _Never
    if outer.exact:  # the delegate's must be the very same
        raise _Never
    return inner


def _texts(outer: Mapping[str, StringMatch], inner: Mapping[str, StringMatch]) -> dict[str, StringMatch]:
    found = {name: _text(outer.get(name), inner.get(name)) for name in {**outer, **inner}}
    return {name: text for name, text in found.items() if text is not None}


def _same(outer: T | None, inner: T | None) -> T | None:
    if outer is not None and inner is not None and outer != inner:
        raise _Never
    return inner if outer is None else outer


def _same_values(outer: Mapping[str, str], inner: Mapping[str, str]) -> dict[str, str]:
    for name in outer.keys() & inner.keys():
        _same(outer[name], inner[name])
    return {**outer, **inner}


def _headers(root: Headers | None, rule: Headers | None) -> Headers | None:
    if root is None or rule is None:
        return rule if root is None else root
    return Headers(request=_operations(root.request, rule.request), response=_operations(root.response, rule.response))


def _operations(root: HeaderOperations | None, rule: HeaderOperations | None) -> HeaderOperations | None:
    if root is None or rule is None:
        return rule if root is None else root
    return HeaderOperations(
        set={**root.set, **rule.set}, add={**root.add, **rule.add}, remove=(*root.remove, *rule.remove)
    )
