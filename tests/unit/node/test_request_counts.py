"""What proxies count, read off admin interfaces: differences, proxies that start anew, that hang, that are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lateen.lib.request_counts import RequestCount
from lateen.node.request_counts import MAX_TARGETS, RequestCounts

A = "outbound|80||a.default.svc.cluster.local"


class Admin:
    """An admin interface with these counters."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.silent = False

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            assert request.startswith(b"GET /stats?filter=%5Elateen")
            if not self.silent:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + "\n".join(self.lines).encode())
            else:
                await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(answer, str(path))
        async with server:
            yield

    def count(self, requests: int, failed: int = 0, target: str = A) -> None:
        self.lines = [each for each in self.lines if target not in each]
        self.lines.append(f"lateen.requests.service.{target}: {requests}")
        if failed:
            self.lines.append(f"lateen.server_errors.service.{target}: {failed}")


async def test_differences_of_all_proxies(tmp_path: Path) -> None:
    one, other, counts = Admin(), Admin(), RequestCounts()
    sockets = {"one": tmp_path / "1.sock", "other": tmp_path / "2.sock", "away": tmp_path / "none.sock"}
    async with one.serving(sockets["one"]), other.serving(sockets["other"]):
        one.count(100)
        assert await counts.look(sockets) == ()
        one.count(110, 4)
        other.count(5)
        assert await counts.look(sockets) == (RequestCount(A, 15, 0, 4),)
        assert await counts.look(sockets) == ()
        one.count(3, 1)  # started anew
        assert await counts.look(sockets) == (RequestCount(A, 3, 0, 1),)
        one.silent = True
        other.count(6)
        assert await counts.look(sockets) == (RequestCount(A, 1),)
        one.silent = False
        one.count(13, 1)
        assert await counts.look(sockets) == (RequestCount(A, 10),)
        assert await counts.look({"one": sockets["one"]}) == ()
        other.count(50)
        assert await counts.look(sockets) == ()  # it was away, and is as new


async def test_a_report_is_bounded(tmp_path: Path) -> None:
    admin, counts = Admin(), RequestCounts()
    async with admin.serving(tmp_path / "1.sock"):
        await counts.look({"one": tmp_path / "1.sock"})
        for number in range(1, 2 * MAX_TARGETS):
            admin.count(number, target=f"outbound|80||{number}.example")
        found = await counts.look({"one": tmp_path / "1.sock"})
    assert len(found) == MAX_TARGETS
    assert found[0].requests == 2 * MAX_TARGETS - 1
