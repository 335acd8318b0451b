"""A load generator: sends HTTP/1.1 requests over kept connections and counts what comes back.

    report = await run(Load(url="http://127.0.0.1:8080/productpage", connections=16, duration_s=60))
    report.failed, report.latency.p99_ms, report.groups, report.seconds[3].groups

Closed loop by default: each connection sends its next request when the last one is answered. With `rate` it is
an open loop, requests are due at fixed times and latency counts from when one was due, so a stall is not hidden
by the requests it kept from being sent. `group_by` counts the answers by a header, a JSON field or a pattern in
the text, so that the weights of a split can be seen, over all and in each second.

A request is failed when its status is not expected, or without an answer. The one exception: a kept connection
that the server closed before the first byte of an answer. As HTTP allows for idempotent requests (RFC 9110
9.2.2) the request is sent again on a new connection, and counted in `reconnects`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import h11
import msgspec

PAUSE_S = 0.02
"""After a request without an answer a connection rests this long: a dead server is not hammered."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. At least one of `requests` (in all) and `duration_s` ends it; with both, the first to come.

    `rate` is requests per second over all connections (None: as fast as the answers come). `timeout_s` bounds one
    request. `expect` are the statuses that count as success, empty meaning 200-399. `group_by` is `header:NAME`,
    `json:FIELD.0.FIELD` or `text:PATTERN` (the first group of the regular expression, or all of it).
    `ca_file` verifies an https server, `insecure` does not look; `server_name` replaces the URL's host as SNI.
    """

    url: str
    connections: int = 8
    requests: int | None = None
    duration_s: float | None = None
    rate: float | None = None
    timeout_s: float = 15.0
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    expect: tuple[int, ...] = ()
    group_by: str = ""
    ca_file: str = ""
    insecure: bool = False
    server_name: str = ""

    def accepts(self, status: int) -> bool:
        """Whether this status counts as success."""
        return status in self.expect if self.expect else 200 <= status < 400


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of answered requests, milliseconds; zeros when there were none."""

    mean_ms: float = 0
    p50_ms: float = 0
    p90_ms: float = 0
    p99_ms: float = 0
    p999_ms: float = 0
    max_ms: float = 0


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that ended in one second of the run, counted from its start."""

    second: int
    requests: int
    failed: int
    groups: Mapping[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `requests` ended, answered or not; `errors` are those without an answer, by kind."""

    started_at: float
    elapsed_s: float
    requests: int
    failed: int
    statuses: Mapping[int, int]
    errors: Mapping[str, int]
    reconnects: int
    groups: Mapping[str, int]
    latency: Latency
    seconds: tuple[Second, ...]

    @property
    def per_second(self) -> float:
        """Requests ended per second of the run."""
        return self.requests / self.elapsed_s if self.elapsed_s else 0.0

    def lines(self) -> list[str]:
        """The report for people."""
        latency = self.latency
        told = [
            f"{self.requests} requests in {self.elapsed_s:.1f} s ({self.per_second:.0f}/s), {self.failed} failed",
            f"latency ms: p50 {latency.p50_ms:.1f}, p90 {latency.p90_ms:.1f}, p99 {latency.p99_ms:.1f}, "
            f"p99.9 {latency.p999_ms:.1f}, max {latency.max_ms:.1f}",
            "statuses: " + ", ".join(f"{status} x {count}" for status, count in sorted(self.statuses.items())),
        ]
        if self.errors:
            told.append("no answer: " + ", ".join(f"{name} x {n}" for name, n in sorted(self.errors.items())))
        if self.reconnects:
            told.append(f"reconnects: {self.reconnects}")
        told += [f"{name or '(none)'}: {n} ({n / self.requests:.1%})" for name, n in sorted(self.groups.items())]
        return told


async def run(load: Load, stop: asyncio.Event | None = None) -> Report:
    """Send the load and report; `stop` ends it early. ValueError for a load without an end or an address that can't
    be used."""
    if load.requests is None and load.duration_s is None and stop is None:
        raise ValueError("a load needs a number of requests or a duration")
    target, group = _Target(load), grouping(load.group_by)
    tally = _Tally(load)
    turn = _Turns(load, tally.start, stop or asyncio.Event())
    async with asyncio.TaskGroup() as tasks:
        for _ in range(load.connections):
            tasks.create_task(_worker(load, target, turn, tally, group))
    return tally.report(time.monotonic())


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers by lower-case name, body."""


def grouping(spec: str) -> Callable[[Answer], str] | None:
    """The function that names an answer's group; empty string when the answer has no such part."""
    kind, _, what = spec.partition(":")
    match kind:
        case "":
            return None
        case "header":
            return lambda answer: answer[1].get(what.lower(), "")
        case "json":
            path = what.split(".")
            return lambda answer: _field(answer[2], path)
        case "text":
            pattern = re.compile(what)
            return lambda answer: _first(pattern, answer[2])
        case _:
            raise ValueError(f"{spec!r} is not header:NAME, json:FIELD or text:PATTERN")


def _field(body: bytes, path: Sequence[str]) -> str:
    try:
        value: Any = json.loads(body)
        for step in path:
            value = cast("list[Any]", value)[int(step)] if isinstance(value, list) else value[step]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(value)


def _first(pattern: re.Pattern[str], body: bytes) -> str:
    found = pattern.search(body.decode("utf-8", "replace"))
    return "" if found is None else found.group(1 if pattern.groups else 0) or ""


class _Target:
    """Where to connect, and the request as it goes out."""

    def __init__(self, load: Load) -> None:
        url = urlsplit(load.url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{load.url!r} is not an http or https URL")
        self.host = url.hostname
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            self.tls = ssl.create_default_context(cafile=load.ca_file or None)
            if load.insecure:
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE
        self.server_name = load.server_name or self.host
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = list(load.headers)
        if not any(name.lower() == "host" for name, _ in headers):
            headers.insert(0, ("Host", url.netloc.rpartition("@")[2]))
        if load.body:
            headers.append(("Content-Length", str(len(load.body))))
        self.request = h11.Request(method=load.method, target=path, headers=headers)


class _Turns:
    """Hands out the requests of a run: how many are left, until when, and when each is due."""

    def __init__(self, load: Load, start: float, stop: asyncio.Event) -> None:
        self._stop = stop
        self._requests = math.inf if load.requests is None else load.requests
        self._duration_s = math.inf if load.duration_s is None else load.duration_s
        self._rate = load.rate
        self._start = start
        self._taken = 0

    async def take(self) -> float | None:
        """Waits for the next request's time and returns it; None when the run is over.

        With a rate, every request that was due is sent, also late.
        """
        since_start = time.monotonic() - self._start
        due = since_start if self._rate is None else self._taken / self._rate
        if self._stop.is_set() or self._taken >= self._requests or due >= self._duration_s:
            return None
        self._taken += 1
        if due > since_start:
            await asyncio.sleep(due - since_start)
        return self._start + due


class _Tally:
    """Counts while a run goes on."""

    def __init__(self, load: Load) -> None:
        self.start = time.monotonic()
        self.reconnects = 0
        self._load = load
        self._started_at = time.time()
        self._statuses: Counter[int] = Counter()
        self._errors: Counter[str] = Counter()
        self._groups: Counter[str] = Counter()
        self._latencies_s: list[float] = []
        self._seconds: dict[int, tuple[Counter[str], list[int]]] = {}

    def answered(self, due: float, status: int, group: str | None) -> None:
        now = time.monotonic()
        self._statuses[status] += 1
        self._latencies_s.append(now - due)
        self._second(now, failed=not self._load.accepts(status), group=group)

    def unanswered(self, error: Exception) -> None:
        self._errors[type(error).__name__] += 1
        self._second(time.monotonic(), failed=True, group=None)

    def _second(self, now: float, *, failed: bool, group: str | None) -> None:
        groups, counts = self._seconds.setdefault(int(now - self.start), (Counter(), [0, 0]))
        counts[0] += 1
        counts[1] += failed
        if group is not None:
            groups[group] += 1
            self._groups[group] += 1

    def report(self, now: float) -> Report:
        seconds = tuple(
            Second(second=second, requests=counts[0], failed=counts[1], groups=dict(groups))
            for second, (groups, counts) in sorted(self._seconds.items())
        )
        return Report(
            started_at=self._started_at,
            elapsed_s=now - self.start,
            requests=sum(second.requests for second in seconds),
            failed=sum(second.failed for second in seconds),
            statuses=dict(self._statuses),
            errors=dict(self._errors),
            reconnects=self.reconnects,
            groups=dict(self._groups),
            latency=latency(self._latencies_s),
            seconds=seconds,
        )


def latency(seconds: Sequence[float]) -> Latency:
    """Mean and nearest-rank percentiles of durations given in seconds."""
    if not seconds:
        return Latency()
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000

    return Latency(
        mean_ms=sum(ordered) / len(ordered) * 1000,
        p50_ms=rank(0.5),
        p90_ms=rank(0.9),
        p99_ms=rank(0.99),
        p999_ms=rank(0.999),
        max_ms=ordered[-1] * 1000,
    )


class ClosedError(Exception):
    """The server closed the connection in the middle of an answer, or before one on a new connection."""


class _Connection:
    """One connection: sends a request and reads its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self.heard = False
        self.used = False

    @staticmethod
    async def open(target: _Target) -> _Connection:
        name = target.server_name if target.tls else None
        return _Connection(
            *await asyncio.open_connection(target.host, target.port, ssl=target.tls, server_hostname=name)
        )

    async def exchange(self, request: h11.Request, body: bytes) -> Answer:
        """The answer. ClosedError, OSError or h11.RemoteProtocolError when there is none."""
        self.heard = False
        data = (self._http.send(request) or b"") + (self._http.send(h11.Data(body)) or b"" if body else b"")
        self._writer.write(data + (self._http.send(h11.EndOfMessage()) or b""))
        status, headers, parts = 0, dict[str, str](), list[bytes]()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                received = await self._reader.read(65536)
                self.heard = self.heard or bool(received)
                if not received and not self.heard:
                    raise ClosedError
                self._http.receive_data(received)
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise ClosedError
        self.used = True
        return status, headers, b"".join(parts)

    def reusable(self) -> bool:
        """Ready for the next request; False when the answer announced the connection's end."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        self._writer.close()


async def _worker(
    load: Load, target: _Target, turns: _Turns, tally: _Tally, group: Callable[[Answer], str] | None
) -> None:
    connection: _Connection | None = None
    try:
        while (due := await turns.take()) is not None:
            try:
                async with asyncio.timeout(load.timeout_s):
                    while True:
                        connection = connection or await _Connection.open(target)
                        try:
                            answer = await connection.exchange(target.request, load.body)
                            break
                        except (ClosedError, OSError):
                            if not connection.used or connection.heard or load.method not in IDEMPOTENT:
                                raise
                            connection.close()
                            connection = None
                            tally.reconnects += 1
            except (ClosedError, OSError, h11.RemoteProtocolError) as error:  # TimeoutError is an OSError
                tally.unanswered(error)
                if connection is not None:
                    connection.close()
                    connection = None
                await asyncio.sleep(PAUSE_S)
                continue
            tally.answered(due, answer[0], group(answer) if group else None)
            if not connection.reusable():
                connection.close()
                connection = None
    finally:
        if connection is not None:
            connection.close()
