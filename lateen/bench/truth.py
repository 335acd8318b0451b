"""What it costs to say of every object whether it is live, while many change at once.

    report = measure(TruthPlan())

A whole control plane with its store and API, simulated sidecars, and one VirtualService for each service. Then all of
them change within some seconds, as controllers do it, while a watcher reads the conditions from the API as `kubectl
wait` does. A condition is right when it is about the newest generation and says `Live` or that nobody needs the object.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client, Listing, place
from lateen.bench.host import BenchError, Origin, cpu_s, free_port, origin
from lateen.bench.plane import Plane
from lateen.bench.results import Figures
from lateen.bench.xds import Plan, fleet
from lateen.bench.xds_mesh import HTTP, MeshShape, common, namespace_of, service

Json = dict[str, Any]

_STEP_S: Final = 0.1
_RIGHT_S: Final = 120.0
_BATCH: Final = 200
"""Objects of one apply while the mesh is made."""


class TruthPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`objects` change in `seconds`, before the eyes of so many sidecars."""

    objects: int = 1000
    seconds: float = 10
    sidecars: int = 20
    on_demand: bool = True


class TruthReport(msgspec.Struct, frozen=True, kw_only=True):
    """`right_s`: from the answer to the last apply until every condition was right; `p50_s` and `p99_s` the same for
    each object. `statuses` were written in all, `cpu_s` seconds of CPU used by the control plane, for all it did."""

    origin: Origin
    plan: TruthPlan
    needed: int
    took_s: float
    right_s: float
    p50_s: float
    p99_s: float
    statuses: int
    cpu_s: float


def figures(report: TruthReport) -> Figures:
    """The figures to compare with earlier ones."""
    values = {
        "right after the last change, s": report.right_s,
        "p99 of an object, s": report.p99_s,
        "statuses": report.statuses,
        "CPU, s": report.cpu_s,
    }
    return values, report.origin


class _Watcher:
    """What the API says of the VirtualServices."""

    def __init__(self) -> None:
        self.right: dict[str, tuple[int, float]] = {}
        self.needed: set[str] = set()
        self.statuses = 0
        self.news = asyncio.Event()
        self._seen: dict[str, int] = {}

    async def run(self, socket: Path) -> None:
        async with Client(socket) as client:
            async for each in client.follow("vs"):
                for document in each.items if isinstance(each, Listing) else (each.object,):
                    self._take(document)
                self.news.set()

    def _take(self, document: Json) -> None:
        key, generation = _key(document), int(document["metadata"]["generation"])
        if self._seen.get(key) == generation:
            self.statuses += 1
        self._seen[key] = generation
        listed: list[Json] = document.get("status", {}).get("conditions", [])
        for condition in listed:
            if condition["type"] == "Programmed" and condition["observedGeneration"] == generation:
                if condition["status"] == "True":
                    self.right.setdefault(key, (0, 0.0))
                    if self.right[key][0] < generation:
                        self.right[key] = (generation, time.monotonic())
                if condition["reason"] == "Live":
                    self.needed.add(key)

    async def until(self, keys: list[str], generation: int) -> None:
        """Returns when all of them are right at a generation."""
        try:
            async with asyncio.timeout(_RIGHT_S):
                while not all(self.right.get(key, (0,))[0] >= generation for key in keys):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            late = [key for key in keys if self.right.get(key, (0,))[0] < generation]
            raise BenchError(
                f"{len(late)} objects are not right after {_RIGHT_S:g} s, {late[0]} for one", remedy="lateen status"
            ) from None


def measure(plan: TruthPlan, say: Callable[[str], None] = lambda _: None) -> TruthReport:
    """Runs a plan. BenchError when the control plane or the sidecars do not work."""
    with tempfile.TemporaryDirectory(prefix="lateen-") as home:
        port = free_port()
        with Plane(Path(home), ports={"plaintext_xds_port": port}, with_agent=False) as plane:
            return asyncio.run(_measured(plan, plane, port, say))


async def _measured(plan: TruthPlan, plane: Plane, port: int, say: Callable[[str], None]) -> TruthReport:
    shape = MeshShape(plan.objects * 10 // 9 + 20, plan.sidecars)
    numbers = [each for each in range(shape.services - 1) if each % 10][: plan.objects]  # others have a rule already
    watcher = _Watcher()
    async with Client(plane.layout.api_socket) as client, _running(watcher.run(plane.layout.api_socket)):
        await _apply(client, common(shape))
        await _apply(client, [part for number in range(shape.services) for part in service(shape, number)])
        say(f"{shape.services} services are there")
        async with _sidecars(shape, port, on_demand=plan.on_demand):
            say(f"{plan.sidecars} sidecars have what they need")
            await _apply(client, [_rule(each, 1) for each in numbers])
            keys = [_key(_rule(each, 1)) for each in numbers]
            await watcher.until(keys, 1)
            say(f"{len(numbers)} VirtualServices are live")
            before, statuses = cpu_s(plane.pid("controlplane")), watcher.statuses
            started, steps = time.monotonic(), max(1, round(plan.seconds / _STEP_S))
            applied: dict[str, float] = {}
            for step in range(steps):
                part = numbers[len(numbers) * step // steps : len(numbers) * (step + 1) // steps]
                await asyncio.gather(*[_change(client, each, applied) for each in part])
                await asyncio.sleep(max(0.0, started + (step + 1) * _STEP_S - time.monotonic()))
            took_s = max(applied.values()) - started
            await watcher.until(keys, 2)
            delays = sorted(watcher.right[key][1] - at for key, at in applied.items())
            right_s = max(watcher.right[key][1] for key in keys) - max(applied.values())
            await asyncio.sleep(1)  # what is written and used after the last condition counts, too
            return TruthReport(
                origin=origin(),
                plan=plan,
                needed=len(watcher.needed.intersection(keys)),
                took_s=round(took_s, 2),
                right_s=round(max(right_s, 0), 3),
                p50_s=round(delays[len(delays) // 2], 3),
                p99_s=round(delays[len(delays) * 99 // 100], 3),
                statuses=watcher.statuses - statuses,
                cpu_s=round(cpu_s(plane.pid("controlplane")) - before, 2),
            )


def _rule(service: int, timeout_s: int) -> Json:
    host = f"svc{service}"
    to = {"host": host, "port": {"number": HTTP}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": host, "namespace": namespace_of(service)},
        "spec": {"hosts": [host], "http": [{"timeout": f"{timeout_s}s", "route": [{"destination": to}]}]},
    }


def _key(document: Json) -> str:
    return f"{document['metadata']['namespace']}/{document['metadata']['name']}"


async def _change(client: Client, service: int, applied: dict[str, float]) -> None:
    """As a controller does it: one server-side apply."""
    document = _rule(service, 2)
    path = place(document["apiVersion"], "virtualservices", namespace_of(service), document["metadata"]["name"])
    await client.apply(path, document)
    applied[_key(document)] = time.monotonic()


async def _apply(client: Client, documents: list[Json]) -> None:
    for start in range(0, len(documents), _BATCH):
        text = "\n---\n".join(map(json.dumps, documents[start : start + _BATCH]))
        result = await apply_files(client, [("mesh.yaml", text)])
        if not result.applied:
            raise BenchError("; ".join(map(str, result.findings[:5])), remedy="mend the objects")


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name="watcher")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _sidecars(shape: MeshShape, port: int, *, on_demand: bool) -> AsyncIterator[None]:
    plan = Plan(shape=shape, on_demand=on_demand)
    helper = fleet(plan, f"127.0.0.1:{port}", range(shape.sidecars))
    try:
        await asyncio.to_thread(helper.read)
        yield
    finally:
        await asyncio.to_thread(helper.close)
