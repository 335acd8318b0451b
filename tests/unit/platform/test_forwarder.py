"""The forwarder when it is full: who is silent makes room, who speaks is kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from lateen.platform import forwarder
from lateen.platform.relay import Relay

MOST = 8
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where a forwarder for a few connections leads to a server that says everything again."""
    monkeypatch.setattr(forwarder, "SILENT_S", 0.5)
    monkeypatch.setattr(forwarder, "AT_ONCE", 2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(100):
            writer.write(said)
        writer.close()

    async def dial(client: Relay, accepted: socket.socket) -> None:
        _, upstream = await asyncio.get_running_loop().create_connection(lambda: Relay(client), *address)
        client.join(upstream)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    task = asyncio.create_task(forwarder.accept(listener, dial, MOST))
    yield listener.getsockname()[1]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    server.close()


async def speaks(connection: Connection) -> bool:
    """Whether something said comes back."""
    reader, writer = connection
    writer.write(b"hello")
    try:
        async with asyncio.timeout(30):
            return await reader.readexactly(5) == b"hello"
    except (asyncio.IncompleteReadError, ConnectionError):
        return False


async def test_the_silent_make_room_and_who_speaks_is_kept(port: int) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
    assert [await speaks(each) for each in opened] == [True] * MOST
    talking, silent = opened[:2], opened[2:]
    for _ in range(8):  # longer than others may be silent
        await asyncio.sleep(0.1)
        assert [await speaks(each) for each in talking] == [True, True]
    more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    assert [await speaks(each) for each in more] == [True] * 3
    assert [await speaks(each) for each in talking] == [True, True]
    gone = [each for each in silent if not await speaks(each)]
    assert 3 <= len(gone) <= 4, "two at a time, as many as are needed"
    for _, writer in (*opened, *more):
        writer.close()


async def test_when_all_speak_one_more_waits(port: int) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
    assert [await speaks(each) for each in opened] == [True] * MOST
    late = await asyncio.open_connection("127.0.0.1", port)
    waiting = asyncio.create_task(speaks(late))
    for _ in range(8):
        await asyncio.sleep(0.1)
        assert [await speaks(each) for each in opened] == [True] * MOST
    assert not waiting.done()
    opened[0][1].close()
    assert await waiting
    for _, writer in (*opened, late):
        writer.close()
