"""What HTTP rules of a VirtualService match: texts, and requests by all their parts (networking.istio.io)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Struct, UInt32
from lateen.lib.names import is_header_name


class StringMatch(Struct, frozen=True):
    """A string by its whole, its beginning, or an RE2 expression for all of it."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("exact", "prefix", "regex"),)

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.regex is not None:
            yield from rules.regex("regex", self.regex)
        if self.exact == "" or self.prefix == "" or self.regex == "":
            field = "exact" if self.exact == "" else "prefix" if self.prefix == "" else "regex"
            yield warning(field, "the text is empty", "leave the match out, or say what to match")


class HTTPMatchRequest(Struct, frozen=True):
    """What a request must look like: everything that is set must match."""

    authority: StringMatch | None = None
    gateways: tuple[str, ...] = ()
    headers: Mapping[str, StringMatch] = {}
    ignore_uri_case: bool | None = None
    method: StringMatch | None = None
    name: str | None = None
    port: UInt32 | None = None
    query_params: Mapping[str, StringMatch] = {}
    scheme: StringMatch | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None
    stat_prefix: str | None = None
    uri: StringMatch | None = None
    without_headers: Mapping[str, StringMatch] = {}

    def problems(self) -> Iterator[Problem]:
        if self == HTTPMatchRequest():
            yield Problem(
                "", "the match is empty", "say what to match, or leave the whole list out to match everything"
            )
        yield from rules.port("port", self.port)
        yield from rules.labels(("sourceLabels",), self.source_labels)
        if self.ignore_uri_case and self.uri is not None and self.uri.regex is not None:
            yield warning("ignoreUriCase", "it has no effect on expressions", "write (?i) into the expression")
        for part, headers in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name, match in headers.items():
                if not is_header_name(name) and not name.startswith((":", "@request.auth.")):
                    yield from rules.header_name(at(part, name), name)
                if match.prefix == "" or match.regex == "":
                    yield Problem(at(part, name), "the text to match is empty", "write {} for 'the header is there'")
        for name, match in self.query_params.items():
            if not name:
                yield Problem("queryParams", "the name of a parameter is empty", "name it")
            if match.prefix == "" or match.regex == "":
                yield Problem(at("queryParams", name), "the text to match is empty", "say what to match")
        if self.stat_prefix is not None:
            yield from traffic.stat_prefix("statPrefix", self.stat_prefix)
        yield from traffic.gateways("gateways", self.gateways)
