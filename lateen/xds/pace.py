"""How much large responses may wait in memory at a time: they are made as fast as clients read, and no faster.

When everybody connects at once everybody gets everything, and gRPC keeps its own copy of what a client has not read. So
streams wait for their turn while too much is unread. What a client has not read within SLOW_S counts no longer: a slow
client holds nobody back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LARGE_BYTES: Final = 64 << 10
"""Smaller responses never wait."""
UNREAD_MAX_BYTES: Final = 32 << 20
SLOW_S: Final = 0.5


class Pace:
    """Counts large responses from when they are made until they are written. `resume` is called when there is room
    again. For the loop's thread."""

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._unread = 0

    @property
    def full(self) -> bool:
        """True while no more large responses should be made."""
        return self._unread > UNREAD_MAX_BYTES

    def made(self, size: int) -> Callable[[], None]:
        """A response of so many bytes waits; to be called when it is written."""
        if size < LARGE_BYTES:
            return _nothing
        self._unread += size
        counted = True

        def end() -> None:
            nonlocal counted
            if counted:
                counted = False
                slow.cancel()
                was_full = self.full
                self._unread -= size
                if was_full and not self.full:
                    self._resume()

        slow = asyncio.get_running_loop().call_later(SLOW_S, end)
        return end


def _nothing() -> None:
    pass
