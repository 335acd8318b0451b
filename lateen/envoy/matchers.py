"""Matches of the intent as Envoy's: path, headers, query parameters."""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher

from lateen.features.encoding import set_text
from lateen.intent.authorization import JWT_FILTER, JWT_PAYLOAD
from lateen.intent.route import ClaimMatch, MatchKind, NamedMatch, RouteMatch


def set_match(target: pb.RouteMatch, match: RouteMatch) -> None:
    """Writes what a request must look like. A path prefix is plain text: `/foo` matches `/foobar`."""
    path = match.path
    match path.kind:
        case MatchKind.EXACT:
            target.path = path.value
        case MatchKind.PREFIX:
            target.prefix = path.value
        case MatchKind.REGEX:
            target.safe_regex.regex = path.value
        case MatchKind.PRESENT:
            target.prefix = "/"
    if path.ignore_case and path.kind is not MatchKind.REGEX:
        target.case_sensitive.value = False
    for each in match.headers:
        _set_header(target.headers.add(), each)
    for each in match.queries:
        query = target.query_parameters.add()
        query.name = each.name
        if each.text.kind is MatchKind.PRESENT:
            query.present_match = True
        else:
            set_text(query.string_match, each.text)
    for each in match.claims:
        _set_claim(target.dynamic_metadata.add(), each)


def _set_claim(target: MetadataMatcher, match: ClaimMatch) -> None:
    target.filter = JWT_FILTER
    for key in (JWT_PAYLOAD, *match.path):
        target.path.add().key = key
    if match.text.kind is MatchKind.PRESENT:
        target.value.present_match = True
    else:
        matchers = target.value.or_match.value_matchers
        set_text(matchers.add().string_match, match.text)
        set_text(matchers.add().list_match.one_of.string_match, match.text)
    target.invert = match.invert


def _set_header(target: pb.HeaderMatcher, match: NamedMatch) -> None:
    target.name = match.name
    if match.text.kind is MatchKind.PRESENT:
        target.present_match = True
    else:
        set_text(target.string_match, match.text)
        if match.invert:  # Envoy lets an inverted comparison fail on a missing header, unless it is taken as empty
            target.treat_missing_header_as_empty = True
    target.invert_match = match.invert
