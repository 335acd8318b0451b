"""What a match of a rule means: one block of the configuration becomes one comparison of the request.

All conditions of a block must hold. A condition that says nothing (`headers: {x: {}}`) asks for presence. Names
of headers are compared in lower case.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMatchRequest
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.api.istio.http_match import CLAIM_PREFIX, HTTPMatchRequest, StringMatch
from lateen.intent.route import EVERY_PATH, ClaimMatch, MatchKind, NamedMatch, RouteMatch, TextMatch

_NOT_HEADERS = frozenset({"uri", "scheme", "method", "authority"})
_ANYTHING = ("*", ".*")
_PRESENT = TextMatch(MatchKind.PRESENT)


def text_match(said: StringMatch, ignore_case: bool = False) -> TextMatch:
    """The comparison that a StringMatch asks for. Empty texts and expressions for anything ask for presence."""
    if said.exact:
        return TextMatch(MatchKind.EXACT, said.exact, ignore_case)
    if said.prefix:
        return TextMatch(MatchKind.PREFIX, said.prefix, ignore_case)
    if said.regex and said.regex not in _ANYTHING:
        return TextMatch(MatchKind.REGEX, said.regex)
    return _PRESENT


def route_match(said: HTTPMatchRequest | None, *, tokens: bool = False) -> RouteMatch | None:
    """What a request must look like for a block, every request for None.

    `tokens`: they are verified before routes are chosen (on gateways). Elsewhere no request has a claim, so the
    answer is None when the block asks for one.
    """
    if said is None:
        return RouteMatch()
    names = (*said.headers, *said.without_headers)
    if not tokens and any(is_claim(name) for name in names):
        return None
    path = EVERY_PATH
    if said.uri is not None:
        path = text_match(said.uri, bool(said.ignore_uri_case))
        if path.kind is MatchKind.PRESENT:
            path = EVERY_PATH
    headers = [
        NamedMatch(name, match)
        for name, text in ((":method", said.method), (":authority", said.authority), (":scheme", said.scheme))
        if text is not None and (match := text_match(text)).kind is not MatchKind.PRESENT
    ]
    headers += _named(said.headers)
    headers += _named(said.without_headers, invert=True)
    queries = tuple(NamedMatch(name, text_match(text)) for name, text in sorted(said.query_params.items()))
    claims = (*_claims(said.headers), *_claims(said.without_headers, invert=True))
    return RouteMatch(path, tuple(headers), queries, claims)


def _named(said: Mapping[str, StringMatch], invert: bool = False) -> list[NamedMatch]:
    return [
        NamedMatch(name.lower(), text_match(text), invert)
        for name, text in sorted(said.items())
        if name not in _NOT_HEADERS and not is_claim(name)
    ]


def is_claim(name: str) -> bool:
    """True when a match on that header is one on a claim of a token."""
    return name.lower().startswith(CLAIM_PREFIX)


def _claims(said: Mapping[str, StringMatch], invert: bool = False) -> tuple[ClaimMatch, ...]:
    return tuple(
        ClaimMatch(_claim_path(name), text_match(text), invert) for name, text in sorted(said.items()) if is_claim(name)
    )


def _claim_path(name: str) -> tuple[str, ...]:
    """`@request.auth.claims.a.b` and `@request.auth.claims[a][b]` are the same; only the second takes dots in keys."""
    rest = name[len(CLAIM_PREFIX) :]
    if rest.startswith("["):
        return tuple(rest[1:].removesuffix("]").split("]["))
    return tuple(each for each in rest.split(".") if each)
