"""The agent's control socket: JSON lines over a Unix stream socket, for processes of this user.

A request is `{"id": N, "do": NAME, ...}`, its answer `{"id": N, "ok": VALUE}` or `{"id": N, "error": TEXT}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]
Handler = Callable[[Json], Awaitable[Any]]
"""Answers one request. ControlError becomes the error answer."""

LINE_BYTES = 1 << 20
TIMEOUT_S = 10.0


class ControlError(Exception):
    """A request was not carried out; the message says why."""


async def serve(path: Path, handler: Handler) -> None:
    """Serves until cancelled; the socket file of a dead process is replaced. OSError when it cannot listen."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await _answer(handler, line)) + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # hung up, or a line beyond the limit
            return
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connection, str(path), limit=LINE_BYTES)
    try:
        _close_to_others(path)
        await asyncio.Event().wait()
    finally:
        server.close()


async def call(path: Path, do: str, **fields: object) -> Any:
    """Asks the agent at a control socket; the value it answers. ControlError when it refuses or does not answer in
    time, OSError when nobody listens."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES)
            try:
                writer.write(msgspec.json.encode({"id": 1, "do": do, **fields}) + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        raise ControlError(f"the agent did not answer {do} in {TIMEOUT_S:.0f} s") from None
    if not line:
        raise ControlError("the agent hung up")
    answer = msgspec.json.decode(line, type=Json)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["ok"]


async def _answer(handler: Handler, line: bytes) -> Json:
    try:
        request = msgspec.json.decode(line, type=Json)
    except msgspec.DecodeError as error:
        return {"error": f"not a JSON object: {error}"}
    try:
        return {"id": request.get("id"), "ok": await handler(request)}
    except ControlError as error:
        return {"id": request.get("id"), "error": str(error)}


def _close_to_others(path: Path) -> None:
    path.chmod(0o600)
