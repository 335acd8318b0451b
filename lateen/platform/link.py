"""The asyncio end of the platform's control sockets (`lateen.platform.wire` is the other one)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

LIMIT_BYTES = 8 << 20


class LinkLost(Exception):
    """The other side has closed the connection."""


class Link:
    """Requests with answers, and the latest news. Made by `open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._latest: Any = None
        self._news = asyncio.Event()
        self.lost = asyncio.Event()
        self._task = asyncio.create_task(self._read(), name="platform link")

    @classmethod
    async def open(cls, path: str) -> Link:
        """Connect to a Unix socket. OSError when nobody listens."""
        return cls(*await asyncio.open_unix_connection(path, limit=LIMIT_BYTES))

    async def close(self) -> None:
        """Hang up."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, request: Mapping[str, object]) -> Any:
        """Send a request and wait for its answer. OSError with the other side's words; LinkLost."""
        if self.lost.is_set():
            raise LinkLost
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(msgspec.json.encode({**request, "id": number}) + b"\n")
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def news(self) -> Any:
        """Wait for the next state and return the latest one. LinkLost."""
        while self._latest is None:
            if self.lost.is_set():
                raise LinkLost
            await self._news.wait()
            self._news.clear()
        latest, self._latest = self._latest, None
        return latest

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                message = msgspec.json.decode(line, type=dict[str, Any])
                if "state" in message:
                    self._latest = message["state"]
                    self._news.set()
                    continue
                answer = self._waiting.get(message["id"])
                if answer and not answer.done():
                    if "error" in message:
                        answer.set_exception(OSError(message["error"]))
                    else:
                        answer.set_result(message.get("ok"))
        except (OSError, ValueError):
            pass
        finally:
            self.lost.set()
            self._news.set()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(LinkLost())
