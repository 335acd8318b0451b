"""A key server for tests: a small HTTP server on loopback whose answers a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Answer:
    """What is said to one path."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    silent: bool = False
    endless: bool = False


class KeyServer(AbstractAsyncContextManager["KeyServer"]):
    """Serves `answers` by path; `asked` counts requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> KeyServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for each in self._open:
            each.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            answer = self.answers.get(head.split()[1].decode(), Answer(status=404))
            if answer.silent:
                await reader.read()
                return
            lines = [f"HTTP/1.1 {answer.status} X", "connection: close"]
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join((*lines, "", "")).encode() + answer.body)
            while answer.endless:
                writer.write(b" " * 65536)
                await writer.drain()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
