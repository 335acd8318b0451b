"""Reading a container's log as `kubectl logs` asks for it: the last lines, from a moment on, with times, and on."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from lateen.apiserver.streams import LogOptions
from lateen.platform.logs import Times, read_times

_POLL_S: Final = 0.1
_CHUNK: Final = 64 * 1024
_UNLIMITED: Final = 1 << 62


async def read(files: Sequence[Path], options: LogOptions, ended: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """What the files (oldest first) say, and with `follow` what is written until `ended`."""
    left = options.limit_bytes if options.limit_bytes is not None else _UNLIMITED
    with contextlib.ExitStack() as stack:
        parts = [_Part(stack.enter_context(each.open("rb")), each, options) for each in files]
        if options.tail is not None:
            _to_tail(parts, options.tail)
        for part in parts:
            last = part is parts[-1]
            while left > 0:
                over = not last or not options.follow or ended()
                while left > 0 and (content := part.read(over=over)):
                    yield content[:left]
                    left -= len(content)
                if over:
                    break
                await asyncio.sleep(_POLL_S)


def _to_tail(parts: Sequence[_Part], count: int) -> None:
    """Moves to the beginning of the last lines."""
    lines: Iterator[tuple[int, int]] = ((index, offset) for index, part in enumerate(parts) for offset in part.lines())
    kept = collections.deque(lines, maxlen=count)
    first, offset = kept[0] if kept else (len(parts), 0)
    for index, part in enumerate(parts):
        if index < first:
            part.to_end()
        elif index == first:
            part.position = offset


class _Part:
    """One file from a position on. With times only whole lines are given, as long as it may go on."""

    def __init__(self, file: BinaryIO, path: Path, options: LogOptions) -> None:
        self._file = file
        self._path = path
        self._stamped = options.timestamps
        self._times = Times()
        self.position = 0
        if options.since is not None:
            self._skip(int(options.since * 1e9))

    def to_end(self) -> None:
        """Nothing of what is there now."""
        self.position = self._file.seek(0, 2)

    def lines(self) -> Iterator[int]:
        """Where each line from here on begins."""
        self._file.seek(self.position)
        at = self.position
        for line in self._file:
            yield at
            at += len(line)

    def read(self, *, over: bool) -> bytes:
        """The next piece; empty at the end. `over`: nothing will be added."""
        self._file.seek(self.position)
        content = self._file.read(_CHUNK)
        if not self._stamped:
            self.position += len(content)
            return content
        whole = content.rfind(b"\n") + 1
        if not whole and (over or len(content) == _CHUNK):
            whole = len(content)
        content = content[:whole]
        if content:
            self._times = read_times(self._path)
        stamped: list[bytes] = []
        for line in content.splitlines(keepends=True):
            stamped.append(_stamp(self._times.at(self.position)) + line)
            self.position += len(line)
        return b"".join(stamped)

    def _skip(self, moment_ns: int) -> None:
        times = read_times(self._path)
        if not times.offsets:  # written by somebody who did not note when
            return
        found = times.since(moment_ns)
        if found is None:
            self.to_end()
            return
        self._file.seek(max(0, found - _CHUNK))
        before = self._file.read(found - max(0, found - _CHUNK))
        self.position = found - len(before) + before.rfind(b"\n") + 1  # the line that was begun before, too


def _stamp(at_ns: int) -> bytes:
    moment = dt.datetime.fromtimestamp(at_ns // 1_000_000_000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ns % 1_000_000_000:09}Z ".encode()
