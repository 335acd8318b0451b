"""The agent's control socket: JSON lines over a Unix stream socket, file descriptors beside them.

A request is `{"id": N, "do": NAME, ...}`, its answer `{"id": N, "ok": VALUE}` or `{"id": N, "error": TEXT}`. The
descriptors a request names travel with its first byte (SCM_RIGHTS); those that nobody takes are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]
Handler = Callable[[Json, list[int]], Awaitable[Any]]
"""Answers one request. It owns the descriptors it removes from the list. ControlError becomes the error answer."""

LINE_BYTES = 1 << 20
MAX_DESCRIPTORS = 8
TIMEOUT_S = 10.0


class ControlError(Exception):
    """A request was not carried out; the message says why."""


class ControlServer:
    """Listens for this user's processes only."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler

    async def run(self) -> None:
        """Serves until cancelled; a socket file of a dead agent is replaced."""
        loop = asyncio.get_running_loop()
        with _listen(self._path) as listener:
            async with asyncio.TaskGroup() as connections:
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    connections.create_task(self._serve(connection), name="agent control connection")

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pending = b""
        fds: list[int] = []
        with connection:
            try:
                while True:
                    received, more = await _receive(connection)
                    fds += more
                    if not received or len(pending) + len(received) > LINE_BYTES:
                        return
                    *lines, pending = (pending + received).split(b"\n")
                    for line in lines:
                        answer = await self._answer(line, fds)
                        await loop.sock_sendall(connection, msgspec.json.encode(answer) + b"\n")
                        _close(fds)
            except OSError:
                return
            finally:
                _close(fds)

    async def _answer(self, line: bytes, fds: list[int]) -> Json:
        try:
            request = msgspec.json.decode(line, type=Json)
        except msgspec.DecodeError as error:
            return {"error": f"not a JSON object: {error}"}
        try:
            return {"id": request.get("id"), "ok": await self._handler(request, fds)}
        except ControlError as error:
            return {"id": request.get("id"), "error": str(error)}


async def call(path: Path, do: str, fds: tuple[int, ...] = (), **fields: object) -> Any:
    """Asks the agent at a control socket; its answer's value. ControlError when it refuses or does not answer in time,
    OSError when nobody listens."""
    loop = asyncio.get_running_loop()
    line = msgspec.json.encode({"id": 1, "do": do, **fields}) + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await loop.sock_connect(connection, str(path))
                sent = socket.send_fds(connection, [line], list(fds)) if fds else 0
                await loop.sock_sendall(connection, line[sent:])
                received = b""
                while not received.endswith(b"\n"):
                    part = await loop.sock_recv(connection, 65536)
                    if not part:
                        raise ControlError("the agent hung up")
                    received += part
        except TimeoutError:
            raise ControlError(f"the agent did not answer {do} in {TIMEOUT_S:.0f} s") from None
    answer = msgspec.json.decode(received, type=Json)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["ok"]


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


async def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The next bytes and the descriptors that came with them; asyncio has no such call."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            received, fds, _, _ = socket.recv_fds(connection, 65536, MAX_DESCRIPTORS)
            return received, list(fds)
        readable = loop.create_future()
        loop.add_reader(connection, lambda: readable.done() or readable.set_result(None))  # noqa: B023
        try:
            await readable
        finally:
            loop.remove_reader(connection)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
