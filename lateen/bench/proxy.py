"""What the proxies of the mesh cost a request: ways from a client to a server, side by side in one run.

    report = measure(ProxyPlan(seconds=3, rounds=5))

Each protocol goes every way in turn, at a fixed rate and with as much as goes, `rounds` times over and each time from
another way on, so that whatever else the machine does meets all of them. What is told is the median of the rounds;
ratios are of the same round, to the pair of Envoys written by hand. CPU is that of both proxies, from their process
clocks.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from lateen.bench.envoys import Envoy, bare
from lateen.bench.host import Memory, Origin, cpu_s, memory, origin
from lateen.bench.loads import PROTOCOLS, Measured
from lateen.bench.loads import Protocol as Wire
from lateen.bench.network import CLIENT, Cable
from lateen.bench.plane import Plane
from lateen.bench.proxy_lanes import NAMESPACE, Lane, Sidecars, by_hand, direct, objects
from lateen.bench.results import Figures

RATE: Final = 1000
BASE: Final = "hand-written"
WARM_S: Final = 0.3


class ProxyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: each protocol, in the clear and with mutual TLS, `rounds` times `seconds` on every way."""

    protocols: tuple[Wire, ...] = PROTOCOLS
    mtls: tuple[bool, ...] = (False, True)
    rates: tuple[int, ...] = (RATE, 0)
    seconds: float = 3
    rounds: int = 5


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way of one case: medians of the rounds. `cpu_us` is what both proxies used for a request, `cpu_least_us` in
    the round in which it was least, which other work on the machine disturbs least. The ratios are to the pair written
    by hand, of the same round (of its least, `cpu_least_ratio`); 0 where there is none."""

    name: str
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    cpu_least_us: float
    per_second_ratio: float
    p50_ratio: float
    p99_ratio: float
    cpu_ratio: float
    cpu_least_ratio: float


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A protocol at a rate (requests a second; 0: as much as goes)."""

    protocol: Wire
    mtls: bool
    rate: int
    ways: tuple[Way, ...]


class ProxyReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run; `memory` is of idle processes: an Envoy with nothing to do, a sidecar's, its agent's."""

    plan: ProxyPlan
    cases: tuple[Case, ...]
    memory: dict[str, Memory]
    origin: Origin


class Sample(msgspec.Struct, frozen=True):
    """One way in one round: what came back, and the CPU of its proxies a request."""

    got: Measured
    cpu_us: float


def measure(plan: ProxyPlan, say: Callable[[str], None] = lambda _: None) -> ProxyReport:
    """Runs a plan. BenchError when something does not work or is missing."""
    cases: list[Case] = []
    for mtls in plan.mtls:
        with _lanes(mtls=mtls) as lanes:
            for wire in plan.protocols:
                for rate in plan.rates:
                    say(f"{wire}, {'mutual TLS' if mtls else 'in the clear'}, {rate or 'as many as go'}/s")
                    orders = [lanes[turn % len(lanes) :] + lanes[: turn % len(lanes)] for turn in range(plan.rounds)]
                    samples = [_round(order, plan, wire, rate) for order in orders]
                    ways = tuple(way_of(each.name, samples) for each in lanes)
                    cases.append(Case(protocol=wire, mtls=mtls, rate=rate, ways=ways))
    return ProxyReport(plan=plan, cases=tuple(cases), memory=idle_memory(), origin=origin())


@contextmanager
def _lanes(*, mtls: bool) -> Iterator[tuple[Lane, ...]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp")))
        yield (
            direct(directory, stack),
            by_hand(directory, stack, mtls=mtls),
            *(Sidecars(directory, stack, mtls=mtls, telemetry=each) for each in (False, True)),
        )


def _round(lanes: tuple[Lane, ...], plan: ProxyPlan, wire: Wire, rate: int) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for lane in lanes:
        lane.send(wire, WARM_S, rate)
        before = cpu_s(*lane.proxies)
        got = lane.send(wire, plan.seconds, rate)
        samples[lane.name] = Sample(got, (cpu_s(*lane.proxies) - before) / max(got.requests, 1) * 1e6)
    return samples


def way_of(name: str, rounds: list[dict[str, Sample]]) -> Way:
    """The row of one way, from all rounds."""

    def median(value: Callable[[Sample], float]) -> float:
        return round(statistics.median(value(each[name]) for each in rounds), 3)

    def ratio(value: Callable[[Sample], float]) -> float:
        pairs = [(value(each[name]), value(each[BASE])) for each in rounds]
        return round(statistics.median(mine / base for mine, base in pairs if base), 3) if pairs[0][1] else 0

    least, base_least = (min(each[way].cpu_us for each in rounds) for way in (name, BASE))
    return Way(
        name=name,
        failed=sum(each[name].got.failed for each in rounds),
        per_second=median(lambda each: each.got.per_second),
        p50_ms=median(lambda each: each.got.p50_ms),
        p99_ms=median(lambda each: each.got.p99_ms),
        cpu_us=median(lambda each: each.cpu_us),
        cpu_least_us=round(least, 1),
        per_second_ratio=ratio(lambda each: each.got.per_second),
        p50_ratio=ratio(lambda each: each.got.p50_ms),
        p99_ratio=ratio(lambda each: each.got.p99_ms),
        cpu_ratio=ratio(lambda each: each.cpu_us),
        cpu_least_ratio=round(least / base_least, 3) if base_least else 0,
    )


def figures(report: ProxyReport) -> Figures:
    """What is worth comparing: ratios to the pair by hand, which hardly depend on how busy the machine is."""
    found: dict[str, float] = {}
    for case in report.cases:
        for way in case.ways:
            if way.cpu_ratio and way.name != BASE:
                place = f"{case.protocol} {'mutual TLS' if case.mtls else 'clear'} {case.rate or 'max'} {way.name}"
                found |= {f"{place}: CPU to hand": way.cpu_least_ratio, f"{place}: p50 to hand": way.p50_ratio}
    found |= {f"{name}: PSS MiB": each.pss_mib for name, each in report.memory.items()}
    return found, report.origin


def idle_memory() -> dict[str, Memory]:
    """The memory of an Envoy with nothing to do, of a sidecar's that nobody has called, and of its agent."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp")))
        cable = stack.enter_context(Cable(redirected=False))
        nothing = Envoy.of(bare(), directory, "bare", cable.client)
        stack.callback(nothing.close)
        nothing.wait_live()
        plane = stack.enter_context(Plane(directory))
        plane.apply(objects(mtls=True, log=False))
        sidecar = plane.sidecar(NAMESPACE, "client", CLIENT, cable.client)
        pids = {"bare Envoy": nothing.pid, "Envoy of a sidecar": sidecar.pid, "agent": plane.pid("agent")}
        return {name: memory(pid) for name, pid in pids.items()}
