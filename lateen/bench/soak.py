"""A control plane under churn for a long time: is its memory flat?

    report = soak(SoakPlan(minutes=30), print)

Endpoints and routes change, services come and go, and a third of the sidecars leave and come back, all the time. Memory
is told per period; it is flat when the last period has at most GROWTH of the one after the first, which warms up.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from lateen.bench.children import Helper
from lateen.bench.host import Origin, origin
from lateen.bench.results import Figures
from lateen.bench.xds import Plan, fleet, serve_mesh
from lateen.bench.xds_mesh import MeshShape, ServiceState, common, service
from lateen.bench.xds_sources import Source

GROWTH: Final = 1.1
_SAMPLE_S: Final = 1.0

Json = dict[str, Any]


class SoakPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`reconnect_s` is how often a third of the sidecars is replaced."""

    minutes: float = 30
    period_minutes: float = 5
    services: int = 300
    sidecars: int = 60
    changes_a_second: float = 20
    reconnect_s: float = 10
    source: Literal["folder", "api"] = "api"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What happened up to a minute of the run. Memory is what is resident in the server: median and highest."""

    until_minute: float
    changes: int
    services_made: int
    reconnects: int
    cpu_s: float
    median_mib: float
    highest_mib: float


class SoakReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    plan: SoakPlan
    periods: tuple[Period, ...]
    origin: Origin

    @property
    def growth(self) -> float:
        """The last period's memory to that of the second (of the first, if there are no more than two)."""
        medians = [each.median_mib for each in self.periods]
        return medians[-1] / medians[1 if len(medians) > 2 else 0]

    @property
    def flat(self) -> bool:
        """True when memory has not grown beyond what comes and goes."""
        return self.growth <= GROWTH


def figures(report: SoakReport) -> Figures:
    """What is worth comparing."""
    last = report.periods[-1]
    return {"growth": round(report.growth, 3), "MiB at the end": last.median_mib}, report.origin


def soak(plan: SoakPlan, say: Callable[[str], None] = lambda _: None) -> SoakReport:
    """Runs a plan. BenchError when the server or the sidecars end."""
    shape = MeshShape(plan.services, plan.sidecars)
    xds = Plan(shape=shape, source=plan.source)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp")))
        mesh = {"common": common(shape), **{f"svc{n}": service(shape, n) for n in range(shape.services)}}
        server, source = stack.enter_context(serve_mesh(xds, home, mesh))
        groups = _Groups(xds, server.address)
        stack.callback(groups.close)
        changes = _Changes(source, shape)
        periods: list[Period] = []
        start = time.monotonic()
        for number in range(1, max(1, round(plan.minutes / plan.period_minutes)) + 1):
            end, memory_mib = start + number * plan.period_minutes * 60, list[float]()
            before_cpu, before = server.cpu_s(), (changes.made, changes.services, groups.replaced)
            while (now := time.monotonic()) < end:
                groups.replace_due(now, plan.reconnect_s)
                changes.until(min(now + _SAMPLE_S, end), plan.changes_a_second)
                memory_mib.append(server.rss_mib())
            after = (changes.made, changes.services, groups.replaced)
            made, services, replaced = (now - then for now, then in zip(after, before, strict=True))
            period = Period(
                until_minute=round(number * plan.period_minutes, 2),
                changes=made,
                services_made=services,
                reconnects=replaced,
                cpu_s=round(server.cpu_s() - before_cpu, 1),
                median_mib=round(statistics.median(memory_mib), 1),
                highest_mib=round(max(memory_mib), 1),
            )
            periods.append(period)
            say(
                f"minute {period.until_minute:g}: {period.median_mib:.0f} MiB (at most {period.highest_mib:.0f}), "
                f"{made} changes, {services} services made, {replaced} sidecars replaced, {period.cpu_s:.0f} s of CPU"
            )
        return SoakReport(plan=plan, periods=tuple(periods), origin=origin())


class _Groups:
    """The sidecars in three processes, replaced in turn."""

    def __init__(self, plan: Plan, target: str) -> None:
        self._plan, self._target = plan, target
        size = max(1, plan.shape.sidecars // 3)
        starts = range(0, plan.shape.sidecars, size)
        self._numbers = [range(start, min(start + size, plan.shape.sidecars)) for start in starts]
        self._running = [self._start(each) for each in self._numbers]
        for each in self._running:
            each.read()
        self._turn = 0
        self._due = 0.0
        self.replaced = 0

    def _start(self, numbers: range) -> Helper:
        return fleet(self._plan, self._target, numbers)

    def replace_due(self, now: float, every_s: float) -> None:
        """Lets a group leave and come back, if it is time."""
        if now < self._due:
            return
        self._due = now + every_s
        place = self._turn % len(self._running)
        self._turn += 1
        self._running[place].close()
        self._running[place] = self._start(self._numbers[place])
        self._running[place].read()
        self.replaced += len(self._numbers[place])

    def close(self) -> None:
        for each in self._running:
            each.close()


class _Changes:
    """Endpoints and routes of services, and services that come and go."""

    def __init__(self, source: Source, shape: MeshShape) -> None:
        self._source, self._shape = source, shape
        self._random = random.Random(7)  # noqa: S311 (the same run every time)
        self._extra: list[int] = []
        self.made = 0
        self.services = 0

    def until(self, end: float, rate: float) -> None:
        """Makes that many changes a second."""
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(min(due, end) - now)
                continue
            due += 1 / rate
            self._one()

    def _one(self) -> None:
        self.made += 1
        if self.made % 25 == 0:
            self._come_and_go()
            return
        number = self._random.randrange(self._shape.services)
        state = ServiceState(endpoints=self._random.randint(3, 7), timeout_s=self._random.randint(10, 60))
        self._source.put(f"svc{number}", service(self._shape, number, state))

    def _come_and_go(self) -> None:
        number = self._shape.services + 1 + self.services
        self._source.put(f"svc{number}", service(self._shape, number))
        self.services += 1
        self._extra.append(number)
        if len(self._extra) > 5:
            gone = self._extra.pop(0)
            self._source.delete(f"svc{gone}", service(self._shape, gone))
