"""What HTTP rules of a VirtualService match: texts, and requests by all their parts (networking.istio.io)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Struct, UInt32
from lateen.lib.names import is_header_name

CLAIM_PREFIX = "@request.auth.claims"
"""A header name that means a claim of a JSON web token."""
ANYTHING = "*"
"""No expression, but often written for one: any value."""


class StringMatch(Struct, frozen=True):
    """A string by its whole, its beginning, or an RE2 expression for all of it."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("exact", "prefix", "regex"),)

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.regex and self.regex != ANYTHING:
            yield from rules.regex("regex", self.regex)

    def texts(self, *, empty_prefix: bool = False, anything: bool = False) -> Iterator[Problem]:
        """What is wrong with the text itself. `empty_prefix`: it means everything. `anything`: so may `*`, as an
        expression."""
        if self.regex == ANYTHING and not anything:
            yield from rules.regex("regex", self.regex)
        if self.regex == "" or (self.prefix == "" and not empty_prefix):
            field = "regex" if self.regex == "" else "prefix"
            yield Problem(field, "the text to match is empty", "say what to match")
        elif self.exact == "" or self.prefix == "":
            field = "exact" if self.exact == "" else "prefix"
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
        yield from traffic.source_namespace("sourceNamespace", self.source_namespace)
        if self.ignore_uri_case and (self.uri is None or self.uri.regex is not None):
            what = "without uri" if self.uri is None else "on expressions"
            remedy = "match the uri" if self.uri is None else "write (?i) into the expression"
            yield warning("ignoreUriCase", f"it has no effect {what}", remedy)
        for path, match in self._texts():
            under = match.texts(empty_prefix=path == "uri", anything=path.startswith("withoutHeaders"))
            yield from (msgspec.structs.replace(each, path=f"{path}.{each.path}") for each in under)
        for part, names in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name in names:
                if not is_header_name(name) and not name.startswith((":", CLAIM_PREFIX)):
                    yield from rules.header_name(at(part, name), name)
        if "" in self.query_params:
            yield Problem("queryParams", "the name of a parameter is empty", "name it")
        if self.stat_prefix is not None:
            yield from traffic.stat_prefix("statPrefix", self.stat_prefix)
        yield from traffic.gateways("gateways", self.gateways)

    def _texts(self) -> Iterator[tuple[str, StringMatch]]:
        for part in ("authority", "method", "scheme", "uri"):
            if (match := getattr(self, part)) is not None:
                yield part, match
        mappings = (
            ("headers", self.headers),
            ("queryParams", self.query_params),
            ("withoutHeaders", self.without_headers),
        )
        for part, matches in mappings:
            for name, match in matches.items():
                yield at(part, name), match
