"""What proxies count of the requests they send, as both ends know it: names of the counters, rows of a report."""

from __future__ import annotations

import re
from typing import Final

import msgspec

PREFIX: Final = "lateen"
TAG: Final = "service"
REQUESTS: Final = "requests"
CLIENT_ERRORS: Final = "client_errors"
SERVER_ERRORS: Final = "server_errors"
FILTER: Final = rf"^{PREFIX}\.({REQUESTS}|{CLIENT_ERRORS}|{SERVER_ERRORS})\."
"""A regular expression for Envoy's admin interface."""
_LINE: Final = re.compile(rf"{PREFIX}\.(\w+)\.{TAG}\.(.*): (\d+)")


class RequestCount(msgspec.Struct, frozen=True):
    """Requests to one target over some time. `target`: what the counters' tag says, cluster and VirtualService."""

    target: str
    requests: int
    client_errors: int = 0
    server_errors: int = 0


class Report(msgspec.Struct, frozen=True):
    """What an agent's proxies counted in the seconds before it was sent, by target."""

    seconds: float
    counts: tuple[RequestCount, ...]


def parse(text: str) -> dict[str, RequestCount]:
    """The counters by target, from the admin interface's lines."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line)) is not None:
            found.setdefault(match[2], {})[match[1]] = int(match[3])
    return {
        target: RequestCount(target, each.get(REQUESTS, 0), each.get(CLIENT_ERRORS, 0), each.get(SERVER_ERRORS, 0))
        for target, each in found.items()
    }


def since(before: RequestCount | None, now: RequestCount) -> RequestCount:
    """What came in between; a proxy that was started anew counts from nothing."""
    if before is None or now.requests < before.requests:
        return now
    return RequestCount(
        now.target,
        now.requests - before.requests,
        now.client_errors - before.client_errors,
        now.server_errors - before.server_errors,
    )
