"""Clients that are slow with a request are hung up on; those that have made one may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from lateen.apiserver import serving
from lateen.apiserver.connections import Connections

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def slow(_: Request) -> Response:
    await asyncio.sleep(0.6)
    return PlainTextResponse("done")


async def silent(socket: WebSocket) -> None:
    await socket.accept()
    await asyncio.sleep(0.6)
    await socket.send_text("hello")
    await socket.close()


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: loc", b""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"done"),
        (UPGRADE, b"hello"),
    ],
)
async def test_patience_ends_where_no_request_begins(sent: bytes, got: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.2)
    listener = serving.tcp_listener("127.0.0.1", 0)
    application = Starlette(routes=[Route("/", slow), WebSocketRoute("/ws", silent)])
    task = asyncio.create_task(serving.serve(application, listener))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        started = time.monotonic()
        writer.write(sent)
        answer = b""
        async with asyncio.timeout(30):
            while not answer.endswith(got) or not got:
                if not (more := await reader.read(4096)):
                    break
                answer += more
        assert got in answer
        assert answer or time.monotonic() - started >= 0.2
    finally:
        writer.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def served(*routes: Route) -> AsyncIterator[tuple[str, int]]:
    """An application on a port of its own."""
    listener = serving.tcp_listener("127.0.0.1", 0)
    address = listener.getsockname()
    task = asyncio.create_task(serving.serve(Starlette(routes=[*routes]), listener))
    yield address
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_body_that_does_not_come_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "BODY_S", 0.2)
    ended = asyncio.Event()

    async def reads(request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        finally:
            ended.set()

    async with served(Route("/", reads, methods=["POST"])) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n1")
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await ended.wait()
        writer.close()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\n123")
        assert (await reader.read()).endswith(b"\r\n\r\n3")
        writer.close()


async def test_an_answer_that_nobody_reads_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "READ_S", 1.0)
    size = 64 << 20

    async def large(_: Request) -> Response:
        return PlainTextResponse("x" * size)

    async with served(Route("/", large)) as address:
        reader, writer = await asyncio.open_connection(*address, limit=1 << 16)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(3)  # it reads nothing
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while more := await reader.read(1 << 20):
                got += len(more)
        assert got < size
        writer.close()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = 0
        while more := await reader.read(1 << 20):
            got += len(more)
        assert got > size, "who reads gets all of it"
        writer.close()


async def test_those_that_wait_longest_make_room_and_no_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "Connections", lambda: Connections(4))
    go = asyncio.Event()

    async def waits(_: Request) -> Response:
        await go.wait()
        return PlainTextResponse("done")

    async with served(Route("/", waits), Route("/quick", slow)) as address:
        busy = await asyncio.open_connection(*address)
        busy[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        silent = [await asyncio.open_connection(*address) for _ in range(5)]
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /quick HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.read()).endswith(b"done")
            writer.close()
            go.set()
            assert (await busy[0].read()).endswith(b"done")
            for reader, _ in silent[:3]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert not silent[4][0].at_eof()
        for _, writer in (busy, *silent):
            writer.close()
