"""Delegation: a rule of a root VirtualService that stands for the rules of another one.

The root's matches narrow the delegate's: a request must satisfy both. Each match of the delegate must lie within a
match of the root; otherwise, or where the two can't be expressed as one (an expression beside anything else for the
same property), the delegate's whole rule is left out, with the reason. What both say about the rest, the delegate
decides; headers are united.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lateen.api.istio.http_match import CLAIM_PREFIX, HTTPMatchRequest, StringMatch
from lateen.api.istio.http_route import HeaderOperations, Headers, HTTPRoute
from lateen.api.problems import at

T = TypeVar("T")

_INHERITED = (
    "cors_policy",
    "fault",
    "mirror_percent",
    "mirror_percent_alias",
    "mirror_percentage",
    "retries",
    "rewrite",
    "timeout",
)


class Dropped(msgspec.Struct, frozen=True):
    """A rule of a delegate that its root leaves out: the number of the rule, and why."""

    number: int
    why: str


class _Outside(Exception):
    """A match of a delegate that is not within a match of its root; the words say where."""


def merged(root: HTTPRoute, delegate: tuple[HTTPRoute, ...]) -> tuple[tuple[HTTPRoute, ...], tuple[Dropped, ...]]:
    """The rules that a root rule stands for, given those of its delegate, and what is left out. One level: so is a
    delegate's own delegation."""
    rules: list[HTTPRoute] = []
    dropped: list[Dropped] = []
    for number, each in enumerate(delegate):
        try:
            rules.append(_rule(root, each))
        except _Outside as outside:
            dropped.append(Dropped(number, str(outside)))
    return tuple(rules), tuple(dropped)


def _rule(root: HTTPRoute, rule: HTTPRoute) -> HTTPRoute:
    if rule.delegate is not None:
        raise _Outside("a delegate cannot delegate again")
    inherited = {name: getattr(root, name) for name in _INHERITED if getattr(rule, name) is None}
    if rule.mirror is None and not rule.mirrors:
        inherited |= {"mirror": root.mirror, "mirrors": root.mirrors}
    return msgspec.structs.replace(
        rule,
        match=_matches(root.match, rule.match) if root.match and rule.match else root.match or rule.match,
        name="-".join(each for each in (root.name, rule.name) if each) or None,
        headers=_headers(root.headers, rule.headers),
        **inherited,
    )


def _matches(outer: tuple[HTTPMatchRequest, ...], inner: tuple[HTTPMatchRequest, ...]) -> tuple[HTTPMatchRequest, ...]:
    found: list[HTTPMatchRequest] = []
    for index, each in enumerate(inner):
        reasons: list[str] = []
        for place, other in enumerate(outer):
            try:
                found.append(_match(other, each))
            except _Outside as outside:
                reasons.append(f"{at('match', place)}: {outside}" if len(outer) > 1 else str(outside))
        if len(reasons) == len(outer):
            raise _Outside(f"its {at('match', index)} is not within the root's match: {'; '.join(reasons)}")
    return tuple(found)


def _match(outer: HTTPMatchRequest, inner: HTTPMatchRequest) -> HTTPMatchRequest:
    if outer.uri and inner.uri and bool(outer.ignore_uri_case) is not bool(inner.ignore_uri_case):
        raise _Outside("only one of them has ignoreUriCase")
    if outer.gateways and inner.gateways and not set(inner.gateways) <= set(outer.gateways):
        raise _Outside(f"gateways {', '.join(inner.gateways)} are not all among {', '.join(outer.gateways)}")
    return HTTPMatchRequest(
        authority=_text("authority", outer.authority, inner.authority),
        gateways=inner.gateways or outer.gateways,
        headers=_texts("header", _folded(outer.headers), _folded(inner.headers)),
        ignore_uri_case=outer.ignore_uri_case or inner.ignore_uri_case,
        method=_text("method", outer.method, inner.method),
        name="-".join(each for each in (outer.name, inner.name) if each) or None,
        port=_same("port", outer.port or None, inner.port or None),
        query_params=_texts("query parameter", outer.query_params, inner.query_params),
        scheme=_text("scheme", outer.scheme, inner.scheme),
        source_labels=_same_values(outer.source_labels, inner.source_labels),
        source_namespace=_same("sourceNamespace", outer.source_namespace or None, inner.source_namespace or None),
        stat_prefix=inner.stat_prefix or outer.stat_prefix,
        uri=_text("uri", outer.uri, inner.uri),
        without_headers=_without(_folded(outer.without_headers), _folded(inner.without_headers)),
    )


def _text(what: str, outer: StringMatch | None, inner: StringMatch | None) -> StringMatch | None:
    """The narrower of two texts, which must be the second."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    if outer == inner or not (outer.exact or outer.prefix or outer.regex):
        return inner
    if outer.regex or inner.regex:
        raise _Outside(
            f"{what} {_words(inner)} beside {_words(outer)}: an expression cannot be joined with another match"
        )
    if outer.prefix and (inner.exact or inner.prefix or "").startswith(outer.prefix):
        return inner
    raise _Outside(f"{what} {_words(inner)} is not within {_words(outer)}")


def _words(text: StringMatch) -> str:
    for kind in ("exact", "prefix", "regex"):
        if value := getattr(text, kind):
            return f"{kind} {value}"
    return "{}"


def _texts(what: str, outer: Mapping[str, StringMatch], inner: Mapping[str, StringMatch]) -> dict[str, StringMatch]:
    found = {name: _text(f"{what} {name}", outer.get(name), inner.get(name)) for name in {**outer, **inner}}
    return {name: text for name, text in found.items() if text is not None}


def _without(outer: Mapping[str, StringMatch], inner: Mapping[str, StringMatch]) -> dict[str, StringMatch]:
    """What must not match: the wider text is the narrower condition, so it must be the delegate's."""
    both = outer.keys() & inner.keys()
    for name in both:
        _text(f"without header {name}", inner[name], outer[name])
    return {**outer, **inner}


def _folded(headers: Mapping[str, StringMatch]) -> dict[str, StringMatch]:
    """Names of headers in lower case; claims keep theirs."""
    return {name if name.startswith(CLAIM_PREFIX) else name.lower(): text for name, text in headers.items()}


def _same(what: str, outer: T | None, inner: T | None) -> T | None:
    if outer is not None and inner is not None and outer != inner:
        raise _Outside(f"{what} {inner} is not {outer}")
    return inner if outer is None else outer


def _same_values(outer: Mapping[str, str], inner: Mapping[str, str]) -> dict[str, str]:
    for name in outer.keys() & inner.keys():
        _same(f"label {name}", outer[name], inner[name])
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
