"""What Pods use of the processor and of memory, from the kernel's own account of their processes.

A container is a process of its Pod's init with everything below it. The time of a process that has ended stays with
the parent that waited for it, so the sum over a container's tree only grows; the rate is the growth between two
looks. Memory is what is resident. Nothing is asked of the Pods, and no right is needed: one pass over `/proc`.

Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from lateen.lib.usage import Amount, Measured
from lateen.platform.pod import PodState

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_IDLE: Final = (3, 4)
"""Columns of the machine's processor line that are no work: idle, waiting for disks."""


class _Process(msgspec.Struct, frozen=True, gc=False):
    parent: int
    cpu_s: float
    started: str
    memory_bytes: int


class Sampler:
    """Looks at Pods again and again. `node`: what this machine is called."""

    def __init__(self, node: str, proc: Path = Path("/proc")) -> None:
        self._node = node
        self._proc = proc
        self._before: dict[tuple[int, str], float] = {}
        self._busy_s: float | None = None
        self._at: float | None = None

    def look(self, pods: Iterable[PodState]) -> Measured:
        """What was used since the last look; containers that have started since then are left out. Blocks for some
        milliseconds."""
        at, processes = time.monotonic(), _processes(self._proc)
        window_s = at - self._at if self._at is not None else 0.0
        below: dict[int, list[int]] = {}
        for pid, each in processes.items():
            below.setdefault(each.parent, []).append(pid)
        seen: dict[tuple[int, str], float] = {}
        found: dict[str, Mapping[str, Amount]] = {}
        for pod in pods:
            containers: dict[str, Amount] = {}
            for container in (*pod.containers, *((pod.proxy,) if pod.proxy is not None else ())):
                first = processes.get(container.pid)
                if container.phase != "running" or first is None:
                    continue
                tree = [processes[pid] for pid in _tree(container.pid, below)]
                key = (container.pid, first.started)
                seen[key] = sum(each.cpu_s for each in tree)
                if key in self._before and window_s > 0:
                    used_s = max(0.0, seen[key] - self._before[key])
                    memory = sum(each.memory_bytes for each in tree)
                    containers[container.name] = Amount(used_s / window_s, memory)
            if containers:
                found[pod.uid] = containers
        machine = self._machine(window_s)
        self._before, self._at = seen, at
        return Measured(time.time(), window_s, found, {self._node: machine} if machine is not None else {})

    def _machine(self, window_s: float) -> Amount | None:
        columns = [int(each) for each in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy_s = sum(each for index, each in enumerate(columns) if index not in _IDLE) * _TICK_S
        sizes = {
            name: int(rest.split()[0]) * 1024
            for name, _, rest in (line.partition(":") for line in (self._proc / "meminfo").read_text().splitlines())
        }
        before, self._busy_s = self._busy_s, busy_s
        if before is None or window_s <= 0:
            return None
        return Amount((busy_s - before) / window_s, sizes["MemTotal"] - sizes["MemAvailable"])


def _processes(proc: Path) -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for entry in os.listdir(proc):
        if not entry.isdecimal():
            continue
        try:
            with open(f"{proc}/{entry}/stat", "rb") as file:
                text = file.read()
        except OSError:  # it has ended
            continue
        fields = text[text.rindex(b")") + 2 :].split()
        ticks = sum(int(each) for each in fields[11:15])  # its own, and that of children it waited for
        found[int(entry)] = _Process(
            int(fields[1]), ticks * _TICK_S, fields[19].decode(), int(fields[21]) * _PAGE_BYTES
        )
    return found


def _tree(root: int, below: Mapping[int, list[int]]) -> list[int]:
    found = [root]
    for each in found:
        found += below.get(each, ())
    return found
