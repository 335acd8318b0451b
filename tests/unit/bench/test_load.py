"""The load generator against small servers on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lateen.bench.load import Load, grouping, latency, run

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?x=1"


async def head(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def response(body: bytes = b"", status: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


async def test_counts_answers_by_status_and_field() -> None:
    served = 0

    async def alternate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            assert (await head(reader)).startswith("GET /path?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
            served += 1
            body = json.dumps({"pods": [{"name": "ab"[served % 2]}]}).encode()
            writer.write(response(body, 200 if served % 4 else 503))

    async with serving(alternate) as url:
        report = await run(Load(url=url, connections=3, requests=40, group_by="json:pods.0.name"))
    assert served == report.requests == 40
    assert report.statuses == {200: 30, 503: 10}
    assert report.groups == {"a": 20, "b": 20}
    assert report.failed == 10
    assert report.reconnects == 0
    assert sum(second.requests for second in report.seconds) == 40
    assert "a: 20 (50.0%)" in report.lines()


async def test_expected_statuses_are_not_failures() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(response(status=403, more="connection: close\r\n"))

    async with serving(refuse) as url:
        report = await run(Load(url=url, connections=1, requests=3, expect=(403,)))
    assert (report.statuses, report.failed) == ({403: 3}, 0)


async def test_a_connection_closed_while_idle_is_no_failure() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(response(b"chunk"))
        await writer.drain()

    async with serving(once) as url:
        report = await run(Load(url=url, connections=1, requests=5))
        assert (report.failed, report.reconnects, report.statuses) == (0, 4, {200: 5})
        posted = await run(Load(url=url, connections=1, requests=5, method="POST", body=b"x"))
        assert posted.errors == {"ClosedError": 2}


async def test_half_an_answer_a_silent_server_and_a_closed_port_are_failures() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(half) as url:
        assert (await run(Load(url=url, connections=1, requests=2))).errors == {"RemoteProtocolError": 2}
    async with serving(silent) as url:
        report = await run(Load(url=url, connections=2, requests=2, timeout_s=0.05))
        assert (report.errors, report.failed) == ({"TimeoutError": 2}, 2)
    assert (await run(Load(url=url, connections=1, requests=2))).errors == {"ConnectionRefusedError": 2}


async def test_a_rate_spreads_requests_and_charges_a_stall_to_those_it_delayed() -> None:
    async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await asyncio.sleep(0.2)
        while True:
            writer.write(response())
            await head(reader)

    async with serving(stalling) as url:
        report = await run(Load(url=url, connections=1, duration_s=0.3, rate=100))
    assert report.requests == 30
    assert report.elapsed_s >= 0.29
    assert report.latency.p50_ms > 40  # of the 30 requests, the 20 due during the stall waited for it


async def test_a_load_ends_when_told() -> None:
    stop = asyncio.Event()

    async def third(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await head(reader)
            writer.write(response())
        stop.set()

    async with serving(third) as url:
        report = await run(Load(url=url, connections=1), stop)
    assert report.requests >= 3
    assert report.failed == 0


async def test_a_load_must_have_an_end_and_a_usable_address() -> None:
    with pytest.raises(ValueError, match="duration"):
        await run(Load(url="http://127.0.0.1:1/"))
    with pytest.raises(ValueError, match="ftp"):
        await run(Load(url="ftp://127.0.0.1/", requests=1))
    with pytest.raises(ValueError, match="nothing:x"):
        grouping("nothing:x")


def test_groupings_name_an_answers_group() -> None:
    answer = (200, {"x-pod": "p1"}, b'{"podname": "reviews-v1-abc", "n": [1]}')
    expected = {
        "header:X-Pod": "p1",
        "header:missing": "",
        "json:podname": "reviews-v1-abc",
        "json:n.0": "1",
        "json:n.x": "",
        "text:reviews-(v[0-9])": "v1",
        "text:[0-9]": "1",
        "text:nothing": "",
    }
    for spec, group in expected.items():
        name = grouping(spec)
        assert name is not None
        assert name(answer) == group


def test_percentiles_are_nearest_rank() -> None:
    found = latency([n / 1000 for n in range(1, 101)])
    assert [round(value) for value in (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms)] == [50, 90, 99, 100]
    assert latency([]).p99_ms == 0
