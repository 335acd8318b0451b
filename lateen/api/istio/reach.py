"""Rules of a VirtualService that nothing reaches: the rules before them take all they could match.

One match covers another when whatever satisfies the second satisfies the first. Only what is certain is said:
expressions cover their equals alone, and a rule that delegates covers nothing, since its delegate may leave requests
to the rules behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import msgspec

from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.http_match import HTTPMatchRequest, StringMatch
from lateen.api.istio.http_route import HTTPRoute
from lateen.api.istio.stream_route import L4MatchAttributes, TCPRoute, TLSMatchAttributes, TLSRoute
from lateen.api.problems import Problem, at, warning
from lateen.lib.names import is_network

UNREACHABLE = "IST0130"
INEFFECTIVE = "IST0131"
M = TypeVar("M", HTTPMatchRequest, L4MatchAttributes, TLSMatchAttributes)


def unreachable(http: Sequence[HTTPRoute], tls: Sequence[TLSRoute], tcp: Sequence[TCPRoute]) -> Iterator[Problem]:
    """A warning for each rule and each match that has no effect."""
    requests = [
        [msgspec.structs.replace(each, name=None) for each in route.match] or [HTTPMatchRequest()] for route in http
    ]
    leaving = {index for index, route in enumerate(http) if route.delegate is not None}
    yield from _covered("http", requests, covers_request, HTTPMatchRequest(), leaving)
    streams = [list(route.match) or [L4MatchAttributes()] for route in tcp]
    yield from _covered("tcp", streams, _covers_stream, L4MatchAttributes())
    yield from _covered("tls", [list(route.match) for route in tls], _covers_handshake, None)


def _covered(
    part: str,
    rules: list[list[M]],
    covers: Callable[[M, M], bool],
    everything: M | None,
    leaving: AbstractSet[int] = frozenset(),
) -> Iterator[Problem]:
    """`everything` is the match of all, `leaving` has the rules that do not take all they match."""
    what = "request" if part == "http" else "connection"
    for index, matches in enumerate(rules):
        before = [(number, each) for number in range(index) if number not in leaving for each in rules[number]]
        found = [next(((number, other) for number, other in before if covers(other, each)), None) for each in matches]
        taken = [each for each in found if each is not None]
        if taken and len(taken) == len(found):
            number, other = taken[0]
            if everything is not None and covers(other, everything):
                yield warning(
                    at(part, index),
                    f"no {what} reaches this rule: {part}[{number}] takes them all",
                    "move it up, or give the other a match",
                    UNREACHABLE,
                )
                return
            how = "has the same match" if other == matches[0] else "takes all that it matches"
            message = f"no {what} reaches this rule: {part}[{number}] {how}"
            yield warning(at(part, index), message, "move it up, or change one of the matches", UNREACHABLE)
            continue
        for inner, cover in enumerate(found):
            if cover is not None:
                message = f"{part}[{cover[0]}] takes all that this matches"
                yield warning(at(part, index, "match", inner), message, "leave it out, or move it up", INEFFECTIVE)


def covers_request(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> bool:
    """True when every request that satisfies `narrow` satisfies `wide`."""
    folds = bool(wide.ignore_uri_case)
    if narrow.ignore_uri_case and not folds and wide.uri is not None and not _everything(wide.uri):
        return False
    return (
        (wide.uri is None or _everything(wide.uri) or _covers_text(wide.uri, narrow.uri, fold=folds))
        and all(
            getattr(wide, each) is None or _covers_text(getattr(wide, each), getattr(narrow, each))
            for each in ("authority", "method", "scheme")
        )
        and all(_covers_text(text, narrow.headers.get(name)) for name, text in wide.headers.items())
        and all(_covers_text(text, narrow.query_params.get(name)) for name, text in wide.query_params.items())
        and all(
            name in narrow.without_headers and _covers_text(narrow.without_headers[name], text)
            for name, text in wide.without_headers.items()
        )
        and _covers_client(wide, narrow)
    )


def _covers_client(wide: traffic.ClientMatch, narrow: traffic.ClientMatch) -> bool:
    return (
        (not wide.port or wide.port == narrow.port)
        and (not wide.source_namespace or wide.source_namespace == narrow.source_namespace)
        and wide.source_labels.items() <= narrow.source_labels.items()
        and (not wide.gateways or (bool(narrow.gateways) and set(narrow.gateways) <= set(wide.gateways)))
    )


def _covers_stream(wide: L4MatchAttributes, narrow: L4MatchAttributes) -> bool:
    sources = (wide.source_subnet,) if wide.source_subnet else ()
    return (
        _covers_client(wide, narrow)
        and _covers_networks(wide.destination_subnets, narrow.destination_subnets)
        and _covers_networks(sources, (narrow.source_subnet,) if narrow.source_subnet else ())
    )


def _covers_handshake(wide: TLSMatchAttributes, narrow: TLSMatchAttributes) -> bool:
    return (
        _covers_client(wide, narrow)
        and _covers_networks(wide.destination_subnets, narrow.destination_subnets)
        and all(any(traffic.covers(other, name) for other in wide.sni_hosts) for name in narrow.sni_hosts)
    )


def _everything(text: StringMatch) -> bool:
    return text.prefix in ("/", "") and not text.exact and not text.regex


def _covers_text(wide: StringMatch, narrow: StringMatch | None, *, fold: bool = False) -> bool:
    """True when every text of `narrow` (None: any, or none at all) is one of `wide`."""
    if narrow is None:
        return False
    if wide == narrow or not (wide.exact or wide.prefix or wide.regex):
        return True
    if wide.prefix and not narrow.regex:
        text = narrow.exact or narrow.prefix or ""
        return text.lower().startswith(wide.prefix.lower()) if fold else text.startswith(wide.prefix)
    return False


def _covers_networks(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """True when all of `narrow` is in `wide`; none of either means every address."""
    if not wide:
        return True
    if not narrow or not all(map(is_network, (*wide, *narrow))):
        return False
    nets = [ipaddress.ip_network(each, strict=False) for each in wide]
    return all(any(_within(ipaddress.ip_network(each, strict=False), net) for net in nets) for each in narrow)


def _within(
    inner: ipaddress.IPv4Network | ipaddress.IPv6Network, outer: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
