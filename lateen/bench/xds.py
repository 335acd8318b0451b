"""What a change costs: a control plane on a folder of YAML, simulated sidecars, one change after the other.

    report = measure(Plan(shape=MeshShape(1000, 200), on_demand=True))

Three processes: the server under test (lateen's own unless `server` names another command), the sidecars, and the
floor, which sends as many bytes to as many streams and does nothing else. Times run from the rename of the changed
file to the last sidecar; CPU is the server's, from /proc, until it has been idle for a while; bytes are what
arrived, per sidecar.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from lateen.bench.xds_mesh import MeshShape, write_mesh, write_service
from lateen.lib.errors import LateenError

IDLE_S: Final = 0.3
"""The server has dealt with a change when it has used next to no CPU for this long."""
TICKS: Final = os.sysconf("SC_CLK_TCK")

Json = dict[str, Any]


class BenchError(LateenError):
    """A process of the benchmark ended or did not answer."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure. `server` is a command in which `{folder}` and `{address}` stand for where the mesh is and where
    xDS is to be served; each change is made `rounds` times and the median told."""

    shape: MeshShape
    on_demand: bool = True
    server: str = ""
    rounds: int = 3


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One change: seconds to the last sidecar, the server's CPU seconds, bytes per sidecar, how many sidecars got
    something; the floor's seconds and CPU for the same bytes."""

    name: str
    last_s: float
    cpu_s: float
    bytes_each: float
    sidecars: int
    floor_s: float = 0
    floor_cpu_s: float = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. `read_s` is how long the server took to read the folder, before any sidecar came."""

    plan: Plan
    read_s: float
    cold: Row
    changes: tuple[Row, ...]
    peak_mib: float


class _Process:
    """A child that answers lines with lines."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._process.args} ended", remedy="run it alone to see why")
        return line.strip()

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Report:
    """Runs a plan. BenchError when the server or the sidecars do not work."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lateen-bench-")))
        folder = home / "mesh"
        folder.mkdir()
        write_mesh(folder, plan.shape)
        say(f"{plan.shape.services} services, {plan.shape.sidecars} sidecars")
        address = f"127.0.0.1:{_free_port()}"
        started = time.time()
        server = stack.enter_context(_server(plan, folder, address))
        read_s = time.time() - started
        say(f"the folder was read in {read_s:.1f} s")
        floor = _Process("lateen.bench.xds_floor", floor_address := f"127.0.0.1:{_free_port()}")
        stack.callback(floor.close)
        floor.read()
        before = _cpu_s(server)
        sidecars = _sidecars(plan, address, floor=False)
        stack.callback(sidecars.close)
        ready: Json = json.loads(sidecars.read())
        cold = Row(
            name="cold start",
            last_s=round(float(ready["ready_s"]), 3),
            cpu_s=round(_settled(server) - before, 3),
            bytes_each=float(ready["bytes"]) / plan.shape.sidecars,
            sidecars=plan.shape.sidecars,
        )
        listeners = _sidecars(plan, floor_address, floor=True)
        stack.callback(listeners.close)
        listeners.read()
        changes = [_change(plan, folder, server, sidecars, floor, each) for each in _changes(plan.shape)]
        return Report(plan=plan, read_s=round(read_s, 2), cold=cold, changes=tuple(changes), peak_mib=_peak_mib(server))


class _Change(msgspec.Struct, frozen=True):
    """A change and how many sidecars it concerns when they hold what they use (`all` otherwise)."""

    name: str
    make: Callable[[Path, int], None]
    used: bool


def _changes(shape: MeshShape) -> Iterator[_Change]:
    last = (shape.services - 1) // 10 * 10
    yield _Change("endpoint of a service all use", lambda to, n: write_service(to, 0, endpoints=5 + n % 2), True)
    yield _Change("endpoint of a service few use", lambda to, n: write_service(to, last, endpoints=5 + n % 2), False)
    yield _Change("route all use", lambda to, n: write_service(to, 0, timeout_s=40 + n), True)
    yield _Change("route few use", lambda to, n: write_service(to, last, timeout_s=40 + n), False)
    yield _Change("new service", lambda to, n: write_service(to, shape.services + 1 + n * 10), False)


def _change(plan: Plan, folder: Path, server: int, sidecars: _Process, floor: _Process, change: _Change) -> Row:
    rows: list[Row] = []
    for number in range(plan.rounds):
        sidecars.ask("mark")
        before, started = _settled(server), time.time()
        change.make(folder, number)
        if change.used or not plan.on_demand:
            sidecars.ask(f"wait {plan.shape.sidecars}")
        cpu_s = _settled(server) - before
        got: Json = json.loads(sidecars.ask("wait 0"))
        each = int(got["bytes"]) // plan.shape.sidecars
        floor_before, floor_started = _cpu_s(floor.pid), time.time()
        if each:
            floor.ask(str(each))
        floor_s = time.time() - floor_started
        rows.append(
            Row(
                name=change.name,
                last_s=round(max(float(got["last_at"]) - started, 0), 4),
                cpu_s=round(cpu_s, 3),
                bytes_each=int(got["bytes"]) / plan.shape.sidecars,
                sidecars=int(got["sidecars"]),
                floor_s=round(floor_s, 4),
                floor_cpu_s=round(_cpu_s(floor.pid) - floor_before, 3),
            )
        )
    return sorted(rows, key=lambda row: row.cpu_s)[len(rows) // 2]


@contextmanager
def _server(plan: Plan, folder: Path, address: str) -> Iterator[int]:
    own = f"{shlex.quote(sys.executable)} -m lateen.cli.main serve --config-dir {{folder}} --xds-address {{address}}"
    command = shlex.split((plan.server or own).format(folder=folder, address=address))
    with (folder.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        host, _, port = address.rpartition(":")
        while True:
            if process.poll() is not None:
                words = (folder.parent / "server.log").read_text()[-2000:]
                raise BenchError(f"the server ended:\n{words}", remedy=shlex.join(command))
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    break
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _sidecars(plan: Plan, target: str, *, floor: bool) -> _Process:
    settings = {
        "target": target,
        "shape": msgspec.to_builtins(plan.shape),
        "on_demand": plan.on_demand,
        "floor": floor,
    }
    return _Process("lateen.bench.xds_sidecars", json.dumps(settings))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _settled(pid: int) -> float:
    """The CPU seconds of a process once it has used next to none for a while."""
    while True:
        before = _cpu_s(pid)
        time.sleep(IDLE_S)
        if (now := _cpu_s(pid)) - before <= 2 / TICKS:
            return now


def _peak_mib(pid: int) -> float:
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
