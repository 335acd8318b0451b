"""Matches of the configuration as comparisons of a request."""

from __future__ import annotations

import pytest

from lateen.api.codec import decode_as
from lateen.api.istio.http_match import HTTPMatchRequest
from lateen.api.struct import Json
from lateen.intent.matching import route_match
from lateen.intent.route import EVERY_PATH, MatchKind, NamedMatch, RouteMatch, TextMatch

PRESENT = TextMatch(MatchKind.PRESENT)


def exact(value: str) -> TextMatch:
    return TextMatch(MatchKind.EXACT, value)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, RouteMatch()),
        ({"uri": {"prefix": "/"}}, RouteMatch()),
        ({"uri": {"regex": ".*"}}, RouteMatch()),
        ({"uri": {}}, RouteMatch()),
        ({"method": {"regex": ".*"}}, RouteMatch()),
        ({"uri": {"exact": "/a"}, "ignoreUriCase": True}, RouteMatch(TextMatch(MatchKind.EXACT, "/a", True))),
        ({"uri": {"regex": "/a"}, "ignoreUriCase": True}, RouteMatch(TextMatch(MatchKind.REGEX, "/a"))),
        (
            {"method": {"exact": "GET"}, "authority": {"prefix": "a"}, "scheme": {"exact": "https"}},
            RouteMatch(
                EVERY_PATH,
                (
                    NamedMatch(":method", exact("GET")),
                    NamedMatch(":authority", TextMatch(MatchKind.PREFIX, "a")),
                    NamedMatch(":scheme", exact("https")),
                ),
            ),
        ),
        (
            {"headers": {"X-B": {"exact": "b"}, "X-A": {}, "uri": {"exact": "x"}}},
            RouteMatch(EVERY_PATH, (NamedMatch("x-a", PRESENT), NamedMatch("x-b", exact("b")))),
        ),
        (
            {"headers": {"x": {"regex": ".*"}}, "withoutHeaders": {"y": {"regex": "*"}, "z": {"exact": "1"}}},
            RouteMatch(
                EVERY_PATH,
                (NamedMatch("x", PRESENT), NamedMatch("y", PRESENT, True), NamedMatch("z", exact("1"), True)),
            ),
        ),
        (
            {"queryParams": {"B": {"exact": "1"}, "a": {}}},
            RouteMatch(queries=(NamedMatch("B", exact("1")), NamedMatch("a", PRESENT))),
        ),
        ({"withoutHeaders": {"@request.auth.claims.group": {"exact": "a"}}}, None),
    ],
)
def test_match(said: Json, meant: RouteMatch | None) -> None:
    assert route_match(decode_as(said, HTTPMatchRequest)) == meant


def test_only_what_every_request_matches_ends_a_table() -> None:
    assert RouteMatch().every
    assert not RouteMatch(exact("/")).every
    assert not RouteMatch(queries=(NamedMatch("a", PRESENT),)).every
