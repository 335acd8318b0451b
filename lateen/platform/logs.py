"""Container logs: what a program writes goes through the Pod's init into files, one per run.

`<log_dir>/<container>/<run>.log` holds the bytes as written (standard output and error in order); run 0 is the
first, the files of the last two runs stay. A file that grows past its size is renamed to `<run>.log.1` and begun
anew.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_END_BYTES = 400


class LogWriter:
    """The log of one container; errors of the disk lose lines, never the container."""

    def __init__(self, log_dir: str, container: str, size_bytes: int) -> None:
        self._directory = f"{log_dir}/{container}"
        self._limit = size_bytes
        self._size = 0
        self._fd = -1
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
            self._size += os.write(self._fd, data)
            if self._size > self._limit:
                os.rename(self._path, f"{self._path}.1")
                self.close()
                self._open()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size


def log_files(log_dir: str | Path, container: str, *, previous: bool = False) -> list[Path]:
    """The files of a container's current (or previous) run, oldest first; empty when there is none."""
    directory = Path(log_dir) / container
    runs = sorted({int(path.name.partition(".")[0]) for path in directory.glob("*.log*")})
    index = 2 if previous else 1
    if len(runs) < index:
        return []
    current = directory / f"{runs[-index]}.log"
    return [path for path in (current.with_name(f"{current.name}.1"), current) if path.exists()]
