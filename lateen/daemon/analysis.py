"""What the checks say about every object, kept beside the objects in the store.

It runs behind the pushes and never in front of them: when a revision is in force, a task of its own asks for each
object's findings in slices of a few milliseconds (an answer that cannot have changed costs a lookup) and writes
those that are new, several at a time. Writing findings changes nothing that queries read, so it never feeds itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import structlog

from lateen.analysis.checks import CHECKS
from lateen.analysis.findings import findings
from lateen.apiserver.errors import ApiError
from lateen.apiserver.operations import SetFindings
from lateen.apiserver.positions import placed
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.engine import Graph
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref
from lateen.xds.pump import Pump

ORIGIN: Final = "analysis"
_SLICE_S: Final = 0.004
_PAUSE_S: Final = 0.05
_BATCH: Final = 200

_log = structlog.stdlib.get_logger("lateen.analysis")


class Analysis:
    """The checks over one store and the graph that follows it. For the loop's thread."""

    def __init__(self, store: Store, graph: Graph, pump: Pump) -> None:
        self._store = store
        self._graph = graph
        self._kinds = sorted({(each.kind.GROUP, each.kind.KIND) for each in CHECKS})
        self._said: dict[Ref, tuple[tuple[Finding, ...], bytes]] = {}
        self._failed: set[Ref] = set()
        self._woken = asyncio.Event()
        self._woken.set()
        pump.on_drained(self._drained)

    def of(self, refs: Iterable[Ref]) -> list[Finding]:
        """What the checks say about these objects now."""
        rows = [row for row in map(self._store.get, refs) if row is not None]
        return [placed(each, row.source) for row in rows for each in self._ask(row.ref)]

    async def run(self) -> None:
        """Keeps the store's findings up to date until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._write(await self._changed())
            await asyncio.sleep(_PAUSE_S)

    def _drained(self) -> Iterator[None]:
        self._woken.set()
        yield

    def _ask(self, ref: Ref) -> tuple[Finding, ...]:
        try:
            found = self._graph.pull(findings, ref)
        except Exception:
            if ref not in self._failed:  # a bug in a check: said once, and the others go on
                self._failed.add(ref)
                _log.exception("check failed", object=str(ref))
            return ()
        self._failed.discard(ref)
        return found

    async def _changed(self) -> list[tuple[Row, tuple[Finding, ...]]]:
        changed: list[tuple[Row, tuple[Finding, ...]]] = []
        rows = [row for kind in self._kinds for row in self._store.members(kind)]
        for ref in self._said.keys() - {row.ref for row in rows}:
            del self._said[ref]
        end = time.perf_counter() + _SLICE_S
        for row in rows:
            found = self._ask(row.ref)
            before = self._said.get(row.ref)
            if before is None or before[0] is not found or before[1] != row.source:
                self._said[row.ref] = (found, row.source)
                here = tuple(placed(each, row.source) for each in found)
                if msgspec.json.encode(here) != row.findings.get(ORIGIN, b"[]"):
                    changed.append((row, here))
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + _SLICE_S
        return changed

    async def _write(self, changed: Sequence[tuple[Row, tuple[Finding, ...]]]) -> None:
        for start in range(0, len(changed), _BATCH):
            steps = [SetFindings(row.ref, ORIGIN, found) for row, found in changed[start : start + _BATCH]]
            steps = [each for each in steps if self._store.get(each.ref) is not None]
            try:
                await self._store.write(steps, author="lateen")
            except ApiError as error:  # an object went meanwhile, or the disk is full: the next round tries again
                _log.warning("findings not written", error=str(error))
                for each in steps:
                    self._said.pop(each.ref, None)
                self._woken.set()
