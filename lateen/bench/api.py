"""What the Kubernetes API costs: lists, watches and changes over many objects, beside a real kube-apiserver.

    report = measure(ApiPlan(objects=10_000))

The server is a process of its own; so is the client, which is this one: it reads sockets and counts, and decodes
nothing. Changes are merge patches of single ConfigMaps over keep-alive connections, offered at a fixed rate; a change
has arrived when its event has been read by every watcher.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from lateen.bench.host import BenchError, Memory, Origin, cpu_s, memory, origin
from lateen.bench.kubernetes import Cluster
from lateen.bench.lag import percentile_ms
from lateen.bench.results import Figures

PROGRAMS: Final = "LATEEN_KUBE_BIN"
_SPACE: Final = "default"
_MAPS: Final = f"/api/v1/namespaces/{_SPACE}/configmaps"
_WRITERS: Final = 16
_END_OF_EVENT: Final = b"}\n"
_SETTLE_S: Final = 30.0
_STARTS_S: Final = 120.0


class ApiPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How many objects of about half a kilobyte, watchers and changes. `kubernetes`: a directory with kube-apiserver
    and etcd to measure beside, empty for none."""

    objects: int = 10_000
    watchers: int = 20
    rate: int = 2_000
    seconds: float = 10
    kubernetes: str = ""

    @property
    def name(self) -> str:
        """What the result is kept as."""
        return f"api-{self.objects}"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One server's figures. `start_s`: with the objects there (a kube-apiserver's: empty, with etcd's), `start_cpu_s`
    the processor time of that; `list_s`, `table_s`: all of them, to the last byte;
    `watch_s`: list, watch, and the first event; `changes_s`: changes a second that every watcher has seen, of those
    offered; `behind_ms`: from a change's answer to its event at the last watcher; `lag_ms` of the server's loop, 0
    where there is none to ask; `cpu_us` of the server for a change. Percentiles are p50 and p99."""

    name: str
    start_s: float
    start_cpu_s: float
    list_s: float
    list_mib: float
    table_s: float
    watch_s: float
    changes_s: float
    behind_ms: tuple[float, float]
    lag_ms: tuple[float, float]
    cpu_us: float
    memory: Memory


class ApiReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run; the first server is lateen's."""

    plan: ApiPlan
    servers: tuple[Served, ...]
    origin: Origin


def measure(plan: ApiPlan, say: Callable[[str], None] = lambda _: None) -> ApiReport:
    """Runs a plan. BenchError when a server does not start or refuses."""
    servers: list[Served] = []
    with tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp") as directory:
        say("lateen")
        servers.append(asyncio.run(_lateen(plan, Path(directory))))
    if plan.kubernetes:
        with tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp") as directory:
            say("kube-apiserver with etcd")
            servers.append(asyncio.run(_kubernetes(plan, Path(directory))))
    return ApiReport(plan=plan, servers=tuple(servers), origin=origin())


def figures(report: ApiReport) -> Figures:
    """The figures of a report by name."""
    found: dict[str, float] = {}
    for each in report.servers:
        found |= {
            f"{each.name}: start, s": each.start_s,
            f"{each.name}: list, s": each.list_s,
            f"{each.name}: table, s": each.table_s,
            f"{each.name}: list and watch, s": each.watch_s,
            f"{each.name}: CPU of a change, us": each.cpu_us,
            f"{each.name}: memory, MiB": each.memory.rss_mib,
        }
    return found, report.origin


# -- servers -------------------------------------------------------------------------------------------


class _Door:
    """Where a server is: how to connect, what to say in front of each request, its processes."""

    def __init__(self, connect: Callable[[], Any], pids: tuple[int, ...]) -> None:
        self.connect = connect
        self.pids = pids


async def _lateen(plan: ApiPlan, directory: Path) -> Served:
    socket, store = directory / "api.sock", directory / "store.db"

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(socket), limit=1 << 20)

    async with _program(store, socket) as (process, _):
        await _fill(_Door(connect, (process.pid,)), plan)
    async with _program(store, socket) as (process, started):
        door = _Door(connect, (process.pid,))
        found = await _measure(door, plan, lambda: _lags(process))
        return Served(name="lateen", start_s=started["start_s"], start_cpu_s=started["cpu_s"], **found)


@asynccontextmanager
async def _program(store: Path, socket: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, float]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lateen.bench.api_server", str(store), str(socket)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_STARTS_S):
            line = await process.stdout.readline()
        if not line:
            raise BenchError("the API's process has ended", remedy="its words are above")
        yield process, json.loads(line)
    finally:
        process.stdin.close()
        await process.wait()


async def _lags(process: asyncio.subprocess.Process) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    said = json.loads(await process.stdout.readline())
    return said["p50"], said["p99"]


async def _kubernetes(plan: ApiPlan, directory: Path) -> Served:
    cluster = Cluster(Path(plan.kubernetes), directory)
    try:
        begun = time.monotonic()
        await asyncio.to_thread(cluster.start)
        start_s, start_cpu_s = time.monotonic() - begun, cpu_s(*cluster.pids)
        tls = ssl.create_default_context(cafile=str(cluster.ca))
        tls.load_cert_chain(*map(str, cluster.administrator))
        host = urlsplit(cluster.url)

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(host.hostname, host.port, ssl=tls, limit=1 << 20)

        async def none() -> tuple[float, float]:
            return 0.0, 0.0

        door = _Door(connect, cluster.pids)
        await _fill(door, plan)
        found = await _measure(door, plan, none)
        return Served(name="kube-apiserver", start_s=round(start_s, 3), start_cpu_s=round(start_cpu_s, 3), **found)
    finally:
        await asyncio.to_thread(cluster.stop)


# -- the client ----------------------------------------------------------------------------------------


class _Connection:
    """One keep-alive connection: a request, its whole answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json", accept: str = ""
    ) -> bytes:
        """The body of the answer. BenchError when it is a refusal."""
        head = f"{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(f"{head}Accept: {accept or 'application/json'}\r\n\r\n".encode() + body)
        status, length, chunked = await _head(self._reader)
        content = await _chunks(self._reader) if chunked else await self._reader.readexactly(length)
        if status >= 300:
            raise BenchError(f"{method} {path}: {status} {content[:300].decode(errors='replace')}")
        return content

    def close(self) -> None:
        self._writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, int, bool]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), int(headers.get("content-length", 0)), "transfer-encoding" in headers


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while True:
        size = int(await reader.readline(), 16)
        parts.append((await reader.readexactly(size + 2))[:-2])
        if size == 0:
            return b"".join(parts)


def _map(number: int) -> bytes:
    metadata = {"name": f"m{number}", "labels": {"app": f"a{number % 100}"}}
    data = {"text": f"{number} " * 60, "count": "0"}
    return msgspec.json.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


async def _fill(door: _Door, plan: ApiPlan) -> None:
    async def some(first: int) -> None:
        connection = _Connection(*await door.connect())
        for number in range(first, plan.objects, _WRITERS):
            await connection.ask("POST", _MAPS, _map(number))
        connection.close()

    await asyncio.gather(*map(some, range(_WRITERS)))


class _Watcher:
    """Reads a watch and notes when each event has come, by their number."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Until the connection ends."""
        tail = b""
        while content := await reader.read(1 << 18):
            found = (tail + content).count(_END_OF_EVENT)
            tail = content[-1:]
            self.at += [time.monotonic()] * found


async def _watch(door: _Door, since: str) -> tuple[_Watcher, asyncio.Task[None], asyncio.StreamWriter]:
    reader, writer = await door.connect()
    writer.write(f"GET {_MAPS}?watch=1&resourceVersion={since} HTTP/1.1\r\nHost: api\r\n\r\n".encode())
    status, _, _ = await _head(reader)
    if status != 200:
        raise BenchError(f"the watch was refused: {status}")
    watcher = _Watcher()
    return watcher, asyncio.create_task(watcher.run(reader)), writer


async def _measure(door: _Door, plan: ApiPlan, lags: Callable[[], Any]) -> dict[str, Any]:
    connection = _Connection(*await door.connect())
    await connection.ask("GET", f"{_MAPS}?limit=1")
    begun = time.monotonic()
    content = await connection.ask("GET", _MAPS)
    list_s = time.monotonic() - begun
    begun = time.monotonic()
    await connection.ask("GET", _MAPS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    table_s = time.monotonic() - begun
    watch_s = await _first_watch(door, connection)
    revision = _revision(content)
    watchers = [await _watch(door, revision) for _ in range(plan.watchers)]
    await _until(lambda: all(len(each.at) >= 1 for each, _, _ in watchers))  # that of the first watch
    await lags()
    used = cpu_s(*door.pids)
    answered = await _change(door, plan)
    wanted = len(answered) + 1
    await _until(lambda: all(len(each.at) >= wanted for each, _, _ in watchers))
    used = cpu_s(*door.pids) - used
    lag_ms = await lags()
    arrived = [max(each.at[index + 1] for each, _, _ in watchers) for index in range(len(answered))]
    took_s = arrived[-1] - answered[0]
    # events come in the order of revisions, and answers nearly so: the n-th of each are compared
    behind = [max(0.0, event - answer) for event, answer in zip(sorted(arrived), sorted(answered), strict=True)]
    for _, task, writer in watchers:
        task.cancel()
        writer.close()
    connection.close()
    costs = [memory(pid) for pid in door.pids]
    return {
        "list_s": round(list_s, 3),
        "list_mib": round(len(content) / (1 << 20), 1),
        "table_s": round(table_s, 3),
        "watch_s": round(watch_s, 3),
        "changes_s": round(len(answered) / took_s),
        "behind_ms": (percentile_ms(behind, 0.5), percentile_ms(behind, 0.99)),
        "lag_ms": lag_ms,
        "cpu_us": round(used / len(answered) * 1e6),
        "memory": Memory(*(sum(getattr(each, name) for each in costs) for name in ("rss_mib", "pss_mib", "peak_mib"))),
    }


async def _first_watch(door: _Door, connection: _Connection) -> float:
    """What a client does first: list all, watch from there; until it sees the first change."""
    begun = time.monotonic()
    revision = _revision(await connection.ask("GET", _MAPS))
    watcher, task, writer = await _watch(door, revision)
    await connection.ask("PATCH", f"{_MAPS}/m0", b'{"data":{"first":"1"}}', "application/merge-patch+json")
    await _until(lambda: bool(watcher.at))
    took = time.monotonic() - begun
    task.cancel()
    writer.close()
    return took


async def _change(door: _Door, plan: ApiPlan) -> list[float]:
    """Offers changes at the plan's rate; when each was answered."""
    answered: list[float] = []
    begun, count = time.monotonic(), int(plan.rate * plan.seconds)

    async def some(first: int) -> None:
        connection = _Connection(*await door.connect())
        for number in range(first, count, _WRITERS):
            wait_s = begun + number / plan.rate - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            patch = b'{"data":{"count":"n%d"}}' % number
            path = f"{_MAPS}/m{number * 7919 % plan.objects}"
            await connection.ask("PATCH", path, patch, "application/merge-patch+json")
            answered.append(time.monotonic())
        connection.close()

    await asyncio.gather(*map(some, range(_WRITERS)))
    return answered


def _revision(content: bytes) -> str:
    return msgspec.json.decode(content)["metadata"]["resourceVersion"]


async def _until(done: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(_SETTLE_S):
            while not done():  # noqa: ASYNC110 (events are counted by other tasks)
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise BenchError("events did not arrive", remedy="look at the server's log") from None


def programs() -> str:
    """Where a real kube-apiserver and etcd are, if `scripts/kube/build.sh` has built them here; else empty."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lateen/kube"
    places = [Path(os.environ[PROGRAMS])] if os.environ.get(PROGRAMS) else sorted(cache.glob("[0-9]*"))
    return next((str(each) for each in reversed(places) if (each / "kube-apiserver").exists()), "")
