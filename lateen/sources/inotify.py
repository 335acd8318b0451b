"""Linux's inotify in an event loop: which files of a folder are whole again, as soon as they are.

The kernel tells a file that is being written (modified, still open) from one that is complete (closed after
writing, or renamed to its name). A watcher by time alone cannot, and has to wait or reads halves. Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

MODIFY: Final = 0x00000002
ATTRIBUTES: Final = 0x00000004
CLOSE_WRITE: Final = 0x00000008
MOVED_FROM: Final = 0x00000040
MOVED_TO: Final = 0x00000080
CREATE: Final = 0x00000100
DELETE: Final = 0x00000200
DELETE_SELF: Final = 0x00000400
MOVE_SELF: Final = 0x00000800
OVERFLOW: Final = 0x00004000
IS_DIRECTORY: Final = 0x40000000
_ONLY_DIRECTORY: Final = 0x01000000
_MASK: Final = (
    MODIFY
    | ATTRIBUTES
    | CLOSE_WRITE
    | MOVED_FROM
    | MOVED_TO
    | CREATE
    | DELETE
    | DELETE_SELF
    | MOVE_SELF
    | _ONLY_DIRECTORY
)
_HEAD: Final = struct.Struct("iIII")


class Event(msgspec.Struct, frozen=True):
    """What happened to a path (for OVERFLOW: to any)."""

    mask: int
    path: Path


class Inotify:
    """Watches directories, not what is below them. `fileno()` is readable when there are events."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._paths: dict[int, Path] = {}

    def fileno(self) -> int:
        return self._fd

    def watch(self, directory: Path) -> None:
        """Starts to watch a directory, or goes on. OSError when it is gone or the system's limit is reached."""
        number: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
        self._paths[number] = directory

    def events(self) -> Iterator[Event]:
        """What has happened since the last call."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            directory = self._paths.get(number, Path())
            yield Event(mask, directory / os.fsdecode(name) if name else directory)

    def close(self) -> None:
        """Ends all watches."""
        os.close(self._fd)
