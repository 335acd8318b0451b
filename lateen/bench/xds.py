"""What a change costs: a control plane, simulated sidecars, one change after the other.

    report = measure(Plan(shape=MeshShape(1000, 200), on_demand=True))

Processes: the server under test (lateen's own on a folder or with its Kubernetes API, or what `server` names), the
sidecars, and the floor, which sends as many bytes to as many streams and does nothing else. Times run from the change
to the last sidecar; CPU is the server's, until it has been idle for a while; bytes are what arrived, per sidecar. Every
stream is counted that a sidecar has to the control plane. Afterwards real Envoys connect, and each change is made once
more: the report says when they had it, or that they never heard of it.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from lateen.api.codec import decode
from lateen.bench.children import IDLE_S, Helper, Server, serving
from lateen.bench.host import BenchError, Origin, cpu_s, free_port, origin
from lateen.bench.plane import Plane
from lateen.bench.results import Figures
from lateen.bench.xds_churn import Churn, churn
from lateen.bench.xds_envoys import RealSidecars
from lateen.bench.xds_mesh import (
    GRPC,
    HTTP,
    MeshShape,
    ServiceState,
    address_of,
    client_of,
    common,
    hears,
    host_of,
    namespace_of,
    service,
    used_by,
)
from lateen.bench.xds_sidecars import Client, Fleet
from lateen.bench.xds_sources import ApiSource, FolderSource, Source
from lateen.engine import Graph, Transaction
from lateen.intent.scope import Capabilities, Proxy, ProxyKind, scope_of

REAL: Final = 2
"""Real Envoys that confirm the rows."""

Json = dict[str, Any]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure. `server` is a command in which `{folder}`, `{kubeconfig}` and `{address}` stand for where the
    mesh is and where xDS is to be served; each change is made `rounds` times and the median told. `churn_s` is how long
    100 endpoints a second change at the end; 0: not. `confirm` lets real Envoys confirm the rows (root)."""

    shape: MeshShape
    on_demand: bool = True
    source: Literal["folder", "api"] = "folder"
    server: str = ""
    rounds: int = 3
    churn_s: float = 0
    confirm: bool = False
    idle_s: float = IDLE_S
    """For how long the server has to be idle to have dealt with a change."""

    @property
    def name(self) -> str:
        """What tells results apart: `xds-1000x200`, `-eager` and `-api` after it."""
        ways = ("" if self.on_demand else "-eager") + ("" if self.source == "folder" else "-api")
        return f"xds-{self.shape.services}x{self.shape.sidecars}{ways}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One change: seconds to the last sidecar, the server's CPU seconds, bytes per sidecar, how many sidecars got
    something and in how many messages; the floor's seconds and CPU for the same bytes. `envoy_s` is when the last real
    Envoy used it; None when none was asked or (`unheard`) it concerned none."""

    name: str
    last_s: float
    cpu_s: float
    bytes_each: float
    sidecars: int
    messages: int = 0
    floor_s: float = 0
    floor_cpu_s: float = 0
    envoy_s: float | None = None
    unheard: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. `read_s` is how long the server took to read the mesh, before any sidecar came; `scopes` the number
    of different things to translate for (0 for a server that is not lateen's); `peak_mib` is before the churn."""

    plan: Plan
    read_s: float
    streams: int
    scopes: int
    cold: Row
    changes: tuple[Row, ...]
    peak_mib: float
    churn: Churn | None
    origin: Origin


def figures(report: Report) -> Figures:
    """What is worth comparing."""
    found: dict[str, float] = {"peak MiB": report.peak_mib}
    for row in (report.cold, *report.changes):
        found |= {f"{row.name}: s": row.last_s, f"{row.name}: CPU s": row.cpu_s, f"{row.name}: bytes": row.bytes_each}
    if report.churn is not None:
        found |= {"churn: behind s": report.churn.behind_max_s, "churn: CPU s": report.churn.cpu_s}
    return found, report.origin


class _Change(msgspec.Struct, frozen=True):
    """A change: of which service, what that is after the `n`-th time, and what an Envoy shows of it."""

    name: str
    service: Callable[[MeshShape, int], int]
    state: Callable[[int], ServiceState]
    shows: Literal["endpoints", "route"]


def _last_routed(shape: MeshShape) -> int:
    return (shape.services - 2) // 10 * 10


_CHANGES: Final = (
    _Change("endpoint all use", lambda _to, _n: 0, lambda n: ServiceState(endpoints=5 + n % 2), "endpoints"),
    _Change(
        "endpoint some use", lambda to, _: _last_routed(to), lambda n: ServiceState(endpoints=5 + n % 2), "endpoints"
    ),
    _Change("endpoint nobody uses", lambda to, _: to.last, lambda n: ServiceState(endpoints=5 + n % 2), "endpoints"),
    _Change("route all use", lambda _to, _n: 0, lambda n: ServiceState(timeout_s=40 + n), "route"),
    _Change("route some use", lambda to, _: _last_routed(to), lambda n: ServiceState(timeout_s=60 + n), "route"),
    _Change("route nobody uses", lambda to, _: to.last, lambda n: ServiceState(timeout_s=80 + n), "route"),
    _Change("new service", lambda to, n: to.services + 1 + n * 10, lambda _: ServiceState(), "endpoints"),
)


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Report:
    """Runs a plan. BenchError when the server or the sidecars do not work."""
    shape = plan.shape
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp")))
        workloads = MeshShape(shape.services, shape.sidecars + REAL, shape.uses)
        mesh = {"common": common(workloads), **{f"svc{n}": service(shape, n) for n in range(shape.services)}}
        say(f"{shape.services} services, {shape.sidecars} sidecars")
        started = time.time()
        server, source = stack.enter_context(serve_mesh(plan, home, mesh))
        read_s = time.time() - started
        say(f"the mesh was read in {read_s:.1f} s")
        floor = Helper("lateen.bench.xds_floor", floor_address := f"127.0.0.1:{free_port()}")
        stack.callback(floor.close)
        floor.read()
        before = server.cpu_s()
        sidecars = fleet(plan, server.address, range(shape.sidecars))
        stack.callback(sidecars.close)
        ready: Json = json.loads(sidecars.read())
        cold = Row(
            name="cold start",
            last_s=round(float(ready["ready_s"]), 3),
            cpu_s=round(server.settled_cpu_s(plan.idle_s) - before, 3),
            bytes_each=float(ready["bytes"]) / shape.sidecars,
            sidecars=shape.sidecars,
            messages=int(ready["responses"]),
        )
        listeners = fleet(plan, floor_address, range(shape.sidecars), floor=True)
        stack.callback(listeners.close)
        listeners.read()
        rows = [_change(plan, source, server, sidecars, floor, each) for each in _CHANGES]
        peak_mib = server.peak_mib()
        if plan.confirm:
            say(f"{REAL} real Envoys")
            rows = _confirmed(plan, source, server, home, rows, stack)
        moved = churn(source, shape, server, sidecars, plan.churn_s, say) if plan.churn_s else None
        return Report(
            plan=plan,
            read_s=round(read_s, 2),
            streams=shape.sidecars,
            scopes=0 if plan.server else _scopes(plan, mesh),
            cold=cold,
            changes=tuple(rows),
            peak_mib=round(peak_mib),
            churn=moved,
            origin=origin(),
        )


def _change(plan: Plan, source: Source, server: Server, sidecars: Helper, floor: Helper, change: _Change) -> Row:
    rows: list[Row] = []
    for number in range(plan.rounds):
        sidecars.ask("mark")
        before, started = server.settled_cpu_s(plan.idle_s), time.time()
        source.put(*_named(plan, change, number))
        number_of = change.service(plan.shape, number)
        each_hears = (hears(plan.shape, one, number_of, on_demand=plan.on_demand) for one in range(plan.shape.sidecars))
        sidecars.ask(f"wait {sum(each_hears)}")
        used_s = server.settled_cpu_s(plan.idle_s) - before
        got: Json = json.loads(sidecars.ask("wait 0"))
        each = int(got["bytes"]) // plan.shape.sidecars
        floor_before, floor_started = cpu_s(floor.pid), time.time()
        if each:
            floor.ask(str(each))
        floor_s = time.time() - floor_started
        rows.append(
            Row(
                name=change.name,
                last_s=round(max(float(got["last_at"]) - started, 0), 4),
                cpu_s=round(used_s, 3),
                bytes_each=int(got["bytes"]) / plan.shape.sidecars,
                sidecars=int(got["sidecars"]),
                messages=int(got["responses"]),
                floor_s=round(floor_s, 4) if each else 0,
                floor_cpu_s=round(cpu_s(floor.pid) - floor_before, 3),
            )
        )
    return sorted(rows, key=lambda row: row.cpu_s)[len(rows) // 2]


def _named(plan: Plan, change: _Change, number: int) -> tuple[str, list[Json]]:
    of = change.service(plan.shape, number)
    return f"svc{of}", service(plan.shape, of, change.state(number))


def _confirmed(plan: Plan, source: Source, server: Server, home: Path, rows: list[Row], stack: ExitStack) -> list[Row]:
    """Each change once more, with real Envoys."""
    numbers = range(plan.shape.sidecars, plan.shape.sidecars + REAL)
    with ExitStack() as inner:
        real = RealSidecars(home, server.address, numbers, on_demand=plan.on_demand, stack=inner)
        called = (0, _last_routed(plan.shape))
        for each in called:
            address = f"172.20.{each >> 8}.{each & 255}"
            real.call(host_of(each), address)
            real.until(partial(_loaded, real, host_of(each)))
        return [
            _seen(plan, source, server, real, row, change, called) for row, change in zip(rows, _CHANGES, strict=True)
        ]


def _loaded(real: RealSidecars, host: str) -> bool:
    return all(real.endpoints(host))


def _seen(
    plan: Plan,
    source: Source,
    server: Server,
    real: RealSidecars,
    row: Row,
    change: _Change,
    called: tuple[int, ...],
) -> Row:
    number = plan.rounds
    of, state = change.service(plan.shape, number), change.state(number)
    host = host_of(of)
    before = real.endpoints(host)
    started = time.time()
    source.put(*_named(plan, change, number))
    if plan.on_demand and of not in called:
        server.settled_cpu_s(plan.idle_s)
        if any(real.endpoints(host)) or (change.shows == "route" and any(real.knows(f'"{state.timeout_s}s"'))):
            raise BenchError(f"{row.name}: real Envoys have what they do not use")
        return msgspec.structs.replace(row, unheard=True)
    if change.shows == "route":
        seen = real.until(lambda: all(real.knows(f'"{state.timeout_s}s"')))
    else:
        seen = real.until(lambda: all(now != then for now, then in zip(real.endpoints(host), before, strict=True)))
    return msgspec.structs.replace(row, envoy_s=round(seen - started, 3))


def fleet(plan: Plan, target: str, numbers: range, *, floor: bool = False) -> Helper:
    """Some of the plan's sidecars in a process of their own; its first line comes when they are ready."""
    shape = plan.shape
    clients = [
        Client(
            namespace_of(each),
            client_of(each),
            address_of(each),
            tuple(f"{HTTP}/{host_of(used)}:{HTTP}" for used in used_by(shape, each)),
        )
        for each in numbers
    ]
    wanted = Fleet(
        target=target,
        clients=tuple(clients),
        tables=(str(HTTP), str(GRPC)),
        on_demand=plan.on_demand,
        floor=floor,
        stamped=f"outbound|{HTTP}||{host_of(0)}",
    )
    helper = Helper("lateen.bench.xds_sidecars")
    helper.tell(msgspec.json.encode(wanted).decode())
    return helper


@contextmanager
def serve_mesh(plan: Plan, home: Path, mesh: dict[str, list[Json]]) -> Iterator[tuple[Server, Source]]:
    """The server under test with the mesh in front of it, and where to change the mesh."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        folder = home / "mesh"
        kubeconfig = home / "s" / "kubeconfig"
        if plan.source == "api":
            own = not plan.server
            ports = {"plaintext_xds_port": port} if own else {"api_port": free_port()}
            plane = stack.enter_context(Plane(home, ports=ports, with_agent=False))
            source = ApiSource(plane)
            stack.callback(source.close)
            source.load([each for documents in mesh.values() for each in documents])
            if own:
                yield Server(plane.pid("controlplane"), address), source
                return
        else:
            folder.mkdir()
            source = FolderSource(folder)
            for name, documents in mesh.items():
                source.put(name, documents)
        serve = (
            f"{shlex.quote(sys.executable)} -m lateen.cli.main serve --config-dir {{folder}} --xds-address {{address}}"
        )
        command = (plan.server or serve).format(folder=folder, address=address, kubeconfig=kubeconfig)
        yield stack.enter_context(serving(command, address, home / "server.log")), source


def _scopes(plan: Plan, mesh: dict[str, list[Json]]) -> int:
    """How many different Scopes the sidecars have, by the query that decides it."""
    graph = Graph()
    objects = [decode(each) for documents in mesh.values() for each in documents]
    graph.commit(Transaction(put=[(each.ref, each) for each in objects]))
    can = Capabilities(on_demand=plan.on_demand)
    proxies = [
        Proxy(ProxyKind.SIDECAR, namespace_of(each), client_of(each), capabilities=can)
        for each in range(plan.shape.sidecars)
    ]
    return len({graph.pull(scope_of, each) for each in proxies})
