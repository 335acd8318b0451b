"""Clients that are slow with a request are hung up on; those that have made one may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from lateen.apiserver import serving

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
