"""What a process costs on this machine, and which machine and revision a result is of."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from pathlib import Path

import msgspec

from lateen import __version__
from lateen.lib.errors import LateenError


class BenchError(LateenError):
    """A program of a benchmark ended, did not answer, or is missing."""


class Memory(msgspec.Struct, frozen=True):
    """Of one process, MiB: what is resident, its share of it (pages that others map too are divided by how many do),
    and the highest that was ever resident."""

    rss_mib: float
    pss_mib: float
    peak_mib: float


class Origin(msgspec.Struct, frozen=True):
    """Where a result comes from. `revision` is the commit, `+` after it when the program differs from it; empty outside
    of a repository."""

    lateen: str
    revision: str
    cpu: str
    cores: int
    memory_mib: int
    kernel: str
    python: str
    at: str


def cpu_s(*pids: int) -> float:
    """The CPU seconds that processes have used up to now, all threads, to the nanosecond.

    Source: clock_getcpuclockid(3); the number of a process's clock is made of its id.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def memory(pid: int) -> Memory:
    """The memory of a process now."""
    fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return Memory(fields["Rss"], fields["Pss"], _fields(Path(f"/proc/{pid}/status"))["VmHWM"])


def _fields(path: Path) -> dict[str, float]:
    lines = (each.split() for each in path.read_text().splitlines())
    return {each[0].rstrip(":"): round(int(each[1]) / 1024, 1) for each in lines if each[-1] == "kB"}


def origin() -> Origin:
    """This machine, this revision, now."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return Origin(
        lateen=__version__,
        revision=_revision(),
        cpu=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        kernel=platform.release(),
        python=platform.python_version(),
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _revision() -> str:
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", ".."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
