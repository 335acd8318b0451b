"""Processes of a benchmark: helpers that answer lines with lines, and the server under test."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lateen.bench.host import BenchError, cpu_s, memory

IDLE_S: Final = 0.3
"""A server has dealt with a change when it has used next to no CPU for this long."""
_IDLE_SHARE: Final = 0.05


class Helper:
    """A module of lateen's that answers lines on its standard input."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def read(self) -> str:
        """Its next line. BenchError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._process.args} ended", remedy="see what it wrote above")
        return line.strip()

    def tell(self, line: str) -> None:
        """Sends it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> str:
        """Sends it a line; what it answers."""
        self.tell(line)
        return self.read()

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Server:
    """The server under test, a process with all its children."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address
        """HOST:PORT of its xDS."""

    def cpu_s(self) -> float:
        """The CPU seconds it has used, of the processes there are now."""
        return cpu_s(*_family(self.pid))

    def settled_cpu_s(self, idle_s: float = IDLE_S) -> float:
        """The same, once it has used next to none for a while."""
        while True:
            before = self.cpu_s()
            time.sleep(idle_s)
            if (now := self.cpu_s()) - before < idle_s * _IDLE_SHARE:
                return now

    def rss_mib(self) -> float:
        """What is resident now."""
        return sum(memory(each).rss_mib for each in _family(self.pid))

    def peak_mib(self) -> float:
        """The sum of the highest that each of its processes has ever had."""
        return sum(memory(each).peak_mib for each in _family(self.pid))


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


@contextmanager
def serving(command: str, address: str, log: Path) -> Iterator[Server]:
    """Runs a command that serves xDS at HOST:PORT; it is there when the port is. BenchError when it ends before."""
    with log.open("wb") as output:
        process = subprocess.Popen(shlex.split(command), stdout=output, stderr=subprocess.STDOUT)
    try:
        host, _, port = address.rpartition(":")
        while True:
            if process.poll() is not None:
                raise BenchError(f"the server ended:\n{log.read_text(errors='replace')[-2000:]}", remedy=command)
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    break
            time.sleep(0.02)
        yield Server(process.pid, address)
    finally:
        process.terminate()
        process.wait(30)
