"""A small event loop for the spawner and the inits: files, timers and ended children, in one thread.

asyncio would add 9 MB to every fork and can't be forked while it runs. A callback that raises is reported on
standard error and never ends the process: an init that dies takes its Pod with it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call to be made later; `cancel()` forgets it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Don't call."""
        self.call = None


class Reactor:
    """`run()` until `stop()`. SIGCHLD belongs to it: every child is reaped and its watcher told."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._children: dict[int, Callable[[int], None]] = {}
        self._running = True
        self.idle: Callable[[], None] = lambda: None
        """Called after every round of callbacks."""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.watch(self._wake_read, READ, self._woken)

    def close(self) -> None:
        """Let go of everything, as a forked child does with its parent's reactor."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call with the events that are there whenever `fd` is ready; replaces an earlier watch of it."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, call)
        else:
            self._selector.register(fd, events, call)

    def forget(self, fd: int) -> None:
        """End a watch; before the file is closed. Unknown files are ignored."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once after `delay_s`."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._count), timer))
        return timer

    def child(self, pid: int, call: Callable[[int], None]) -> None:
        """Call with the wait status once that child has ended."""
        self._children[pid] = call

    def stop(self) -> None:
        """Leave `run` after this round."""
        self._running = False

    def run(self) -> None:
        """Serve until stopped."""
        while self._running:
            while self._timers and self._timers[0][2].call is None:
                heapq.heappop(self._timers)
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self._selector.select(wait):
                if key.fd in self._selector.get_map():
                    self._call(lambda key=key, events=events: key.data(events))
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                call = heapq.heappop(self._timers)[2].call
                if call:
                    self._call(call)
            self._call(self.idle)

    def reap(self) -> None:
        """Collect ended children and tell their watchers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            call = self._children.pop(pid, None)
            if call:
                self._call(lambda call=call, status=status: call(status))

    def _woken(self, events: int) -> None:
        os.read(self._wake_read, 4096)
        self.reap()

    @staticmethod
    def _call(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            sys.stderr.write(traceback.format_exc())
            sys.stderr.flush()
