"""The pump: the one task that changes the graph, re-checks what is watched, and does heavy work in small slices.

Events come at any speed; a revision takes as long as it takes. So transactions that arrive while a revision
drains gather and become the next revision (back-pressure is the debounce; a single change leaves at once), and
nothing is sent to anybody before a revision has drained: whoever reads a watch then sees one consistent state.
Long work (re-checking 40,000 queries, building everything for a new proxy) is cut into slices of a few
milliseconds with the event loop's other work in between.

    pump = Pump(graph)
    handle = pump.watch(on_change, query, "arg")
    pump.submit(Transaction(put=[...]))      # from the loop's thread
    await pump.run()                         # as a task of its own
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import structlog

from lateen.engine import Graph, Key, Q, Transaction, Watch
from lateen.xds.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")

SLICE_S: Final = 0.002
FREEZE_AFTER: Final = 1_000
"""New memoised queries until they are taken out of the garbage collector's sight. They live long and hold no cycles
once they are forgotten, while a full collection over 20,000 of them stopped the loop for 160 ms."""
JOBS_TURN_S: Final = 0.05
"""How long jobs may keep a new revision waiting."""
SWEEP_AFTER: Final = 2_000
"""Watches given up until queries nobody watches are forgotten."""

log = structlog.get_logger()


class Handle(Generic[R]):
    """One party's interest in a query."""

    __slots__ = ("_callback", "_pump", "watch")

    def __init__(self, pump: Pump, watch: Watch[R], callback: Callable[[], None]) -> None:
        self._pump = pump
        self._callback = callback
        self.watch = watch

    def value(self) -> R:
        """The current answer. Raises what the query raised."""
        return self.watch.value()

    def close(self) -> None:
        """Ends the interest."""
        self._pump._close(self.watch, self._callback)


class Pump:
    """Owns commits and drains of one graph. All methods are for the loop's thread."""

    def __init__(self, graph: Graph, slice_s: float = SLICE_S) -> None:
        self.graph = graph
        self.drained = 0  # the newest revision that everybody has been told of
        self.journal = Journal()
        self._since = 0.0
        self._slice_s = slice_s
        self._inbox: dict[Key, Any] = {}
        self._callbacks: dict[Watch[Any], list[Callable[[], None]]] = {}
        self._jobs: deque[Iterator[None]] = deque()
        self._flushes: list[Callable[[], Iterator[None]]] = []
        self._woken = asyncio.Event()
        self._closed = 0
        self._frozen = 0

    def submit(self, tx: Transaction) -> None:
        """Takes a transaction in; it becomes part of the next revision. The last word on a key counts."""
        if not self._inbox:
            self._since = time.monotonic()
        for key, value in tx.put:
            self._inbox[key] = value
        for key in tx.delete:
            self._inbox[key] = None
        self._woken.set()

    def waiting(self, key: Key) -> bool:
        """True when a change of that key has not become part of a revision yet."""
        return key in self._inbox

    def watch(
        self, on_change: Callable[[], None], fn: Callable[Concatenate[Q, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Handle[R]:
        """Keeps a query up to date and calls back when its answer changed; the query runs now if it must."""
        watch = self.graph.watch(fn, *args, **kwargs)
        self._callbacks.setdefault(watch, []).append(on_change)
        return Handle(self, watch, on_change)

    def _close(self, watch: Watch[Any], callback: Callable[[], None]) -> None:
        callbacks = self._callbacks[watch]
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[watch]
        watch.close()
        self._closed += 1

    def job(self, work: Iterator[None]) -> None:
        """Runs a generator in slices, in turns with other jobs, between revisions."""
        self._jobs.append(work)
        self._woken.set()

    def on_drained(self, flush: Callable[[], Iterator[None]]) -> None:
        """Adds work done in slices whenever a revision and all jobs are through; the next revision waits for it."""
        self._flushes.append(flush)

    def wake(self) -> None:
        """Asks for a round although nothing was submitted (something to flush has come up)."""
        self._woken.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._in_slices(self._round())

    async def _in_slices(self, work: Iterator[None]) -> None:
        end = time.perf_counter() + self._slice_s
        for _ in work:
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + self._slice_s

    def _round(self) -> Iterator[None]:
        while True:
            if self._inbox:
                self._commit()
            for watch in self.graph.drain():
                for callback in tuple(self._callbacks.get(watch, ())):
                    callback()
                yield
            self.drained = self.graph.revision
            self.journal.worked_out(self.graph.ran)
            turn_ends = time.perf_counter() + JOBS_TURN_S
            while self._jobs and not (self._inbox and time.perf_counter() > turn_ends):
                work = self._jobs.popleft()
                try:
                    next(work)
                except StopIteration:
                    continue
                self._jobs.append(work)
                yield
            if not self.graph.idle:
                continue
            for flush in self._flushes:
                yield from flush()
            if not self._inbox and not self._jobs:
                break
        if self._closed > SWEEP_AFTER:
            self._closed = 0
            swept = self.graph.sweep()
            self._frozen = min(self._frozen, len(self.graph))
            log.info("queries forgotten", count=swept)
        if len(self.graph) > self._frozen * 1.2 + FREEZE_AFTER:
            self._frozen = len(self.graph)
            gc.freeze()

    def _commit(self) -> None:
        changes, self._inbox = self._inbox, {}
        before, ran = self.graph.revision, self.graph.ran
        self.graph.commit(
            Transaction(
                put=[(key, value) for key, value in changes.items() if value is not None],
                delete=[key for key, value in changes.items() if value is None],
            )
        )
        if self.graph.revision != before:
            self.journal.committed(self.graph.revision, changes, self._since, ran)
