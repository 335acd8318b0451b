"""Container logs: what a program writes goes through the Pod's init into files, one per run.

`<log_dir>/<container>/<run>.log` holds the bytes as written (standard output and error in order); run 0 is the
first, the files of the last two runs stay. A file that grows past its size is renamed to `<run>.log.1` and begun
anew. Beside each, `<run>.times` says when it was written: records of 16 bytes, an offset into the file and the
nanoseconds since the epoch at which what begins there came; within a hundredth of a second there is one record.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_END_BYTES = 400
_RECORD = struct.Struct("<QQ")
_APART_NS = 10_000_000


class LogWriter:
    """The log of one container; errors of the disk lose lines, never the container."""

    def __init__(
        self, log_dir: str, container: str, size_bytes: int, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._directory = f"{log_dir}/{container}"
        self._limit = size_bytes
        self._clock_ns = clock_ns
        self._size = 0
        self._fd = -1
        self._times_fd = -1
        self._at_ns = 0
        self._path = ""
        self._end = b""

    @property
    def last_line(self) -> str:
        """The last line of this run that says anything; cut where it is long."""
        lines = [line for each in self._end.splitlines() if (line := each.strip())]
        return lines[-1].decode(errors="replace") if lines else ""

    def begin(self, run: int) -> None:
        """Start the file of another run and remove those before the previous one."""
        self.close()
        self._end = b""
        self._path = f"{self._directory}/{run}.log"
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            for old in os.listdir(self._directory):
                if old.partition(".")[0].isdigit() and int(old.partition(".")[0]) < run - 1:
                    os.unlink(f"{self._directory}/{old}")
            self._open()

    def write(self, data: bytes) -> None:
        """Append."""
        self._end = (self._end + data)[-_END_BYTES:]
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            now_ns = self._clock_ns()
            if now_ns - self._at_ns >= _APART_NS or not self._size:
                os.write(self._times_fd, _RECORD.pack(self._size, now_ns))
                self._at_ns = now_ns
            self._size += os.write(self._fd, data)
            if self._size > self._limit:
                os.rename(self._path, f"{self._path}.1")
                os.rename(times_of(self._path), times_of(f"{self._path}.1"))
                self.close()
                self._open()

    def close(self) -> None:
        """Close the file."""
        for fd in (self._fd, self._times_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._times_fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._times_fd = os.open(times_of(self._path), flags, 0o600)
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._at_ns = 0


class Times(msgspec.Struct, frozen=True):
    """When the parts of a log file were written: offsets, and nanoseconds since the epoch, both ascending."""

    offsets: tuple[int, ...] = ()
    at_ns: tuple[int, ...] = ()

    def at(self, offset: int) -> int:
        """When what stands there came, as far as is known; 0 when nothing is."""
        index = bisect.bisect_right(self.offsets, offset) - 1
        return self.at_ns[index] if index >= 0 else 0

    def since(self, moment_ns: int) -> int | None:
        """Where what came at that moment or later begins; None when nothing did."""
        index = bisect.bisect_left(self.at_ns, moment_ns)
        return self.offsets[index] if index < len(self.offsets) else None


def times_of(log: str | Path) -> str:
    """The file beside a log file."""
    return str(log).replace(".log", ".times")


def read_times(log: Path) -> Times:
    """When a log file was written; empty where nobody noted it."""
    try:
        content = Path(log.parent / times_of(log.name)).read_bytes()
    except FileNotFoundError:
        return Times()
    whole = content[: len(content) - len(content) % _RECORD.size]
    records = list(_RECORD.iter_unpack(whole))
    return Times(tuple(each[0] for each in records), tuple(each[1] for each in records))


def log_files(log_dir: str | Path, container: str, *, previous: bool = False) -> list[Path]:
    """The files of a container's current (or previous) run, oldest first; empty when there is none."""
    directory = Path(log_dir) / container
    runs = sorted({int(path.name.partition(".")[0]) for path in directory.glob("*.log*")})
    index = 2 if previous else 1
    if len(runs) < index:
        return []
    current = directory / f"{runs[-index]}.log"
    return [path for path in (current.with_name(f"{current.name}.1"), current) if path.exists()]
