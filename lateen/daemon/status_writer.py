"""Writes the conditions of every configuration object into its status, behind the pushes and never in front of them.

What may have changed is gathered while proxies and objects change: objects that were written, objects that other
proxies need than before, and those that are not live everywhere yet. A task of its own looks at these, and asks the
queries on conflicts of all, in slices of a few milliseconds, and writes what differs from the status in few
transactions. The faster things change, the more of them one round covers, so the last word is always written soon
after the last change. Writing a status changes nothing that queries read.

After a start the conditions that were stored before it stay until proxies had time to come back: that they are away for
a moment is not worth a change of everybody's status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import structlog

from lateen.analysis.conflicts import NONE, Losses, losses
from lateen.api import kinds
from lateen.api.struct import Json
from lateen.apiserver.errors import ApiError
from lateen.apiserver.operations import SetConditions
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.store import Store
from lateen.daemon.conditions import TYPES, Condition, conditions
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref
from lateen.xds.progress import Progress
from lateen.xds.server import XdsServer

RETURN_S: Final = 5.0
"""How long after a start proxies may take to connect again."""
_SLICE_S: Final = 0.004
_PAUSE_S: Final = 0.05
_SHARE: Final = 3
"""A round is followed by at least this many times its own length of pause: a quarter of a core at most."""
_BATCH: Final = 200
_NOBODY: Final = Progress(0)

_log = structlog.stdlib.get_logger("lateen.status")


def configures(ref: Ref) -> bool:
    """True for objects that carry conditions: those that configure the mesh."""
    return ref.group.endswith(".istio.io")


class StatusWriter:
    """The conditions over one store and the proxies that follow it. For the loop's thread."""

    def __init__(self, store: Store, xds: XdsServer, return_s: float = RETURN_S) -> None:
        self._store = store
        self._xds = xds
        self._return_s = return_s
        self._kinds = [(each.group, each.kind) for each in kinds.KINDS if each.group.endswith(".istio.io")]
        self._dirty: set[Ref] = set()
        self._unfinished: set[Ref] = set()
        self._losses: dict[Ref, Losses] = {}
        self._failed: set[Ref] = set()
        self._asked_at = -1
        self._woken = asyncio.Event()
        self.rounds = 0
        self.looked_at = 0
        self.written = 0
        self._dirty.update(row.ref for kind in self._kinds for row in store.members(kind))
        self._from_before = set(self._dirty)
        store.subscribe(self._stored)
        xds.pump.on_drained(self._drained)
        xds.on_news(self._woken.set)

    async def run(self) -> None:
        """Keeps statuses up to date until cancelled."""
        returned = asyncio.get_running_loop().time() + self._return_s
        asyncio.get_running_loop().call_at(returned, self._woken.set)
        while True:
            await self._woken.wait()
            self._woken.clear()
            started = time.perf_counter()
            await self._round(asyncio.get_running_loop().time() < returned)
            await asyncio.sleep(max(_PAUSE_S, _SHARE * (time.perf_counter() - started)))

    # -- what may have changed -----------------------------------------------------------------------------

    def _stored(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before, after = change.before, change.after
            if not configures(change.row.ref):
                continue
            if (
                before is None
                or after is None
                or (before.generation, before.findings, before.held)
                != (
                    after.generation,
                    after.findings,
                    after.held,
                )
            ):
                self._dirty.add(change.row.ref)
                self._woken.set()

    def _drained(self) -> Iterator[None]:
        self._woken.set()
        yield

    # -- one round -----------------------------------------------------------------------------------------

    async def _round(self, returning: bool) -> None:
        self.rounds += 1
        await self._ask_losses()
        refs, self._dirty = self._dirty | self._xds.touched() | self._unfinished, set()
        self._unfinished = set()
        wanted: list[Row] = []
        later: set[Ref] = set()
        for ref in refs:
            row = self._store.get(ref)
            if row is None:
                continue
            if self._on_its_way(ref) or (returning and ref in self._from_before and _said_before(row)):
                later.add(ref)
            else:
                wanted.append(row)
        self._dirty |= later
        changed: list[SetConditions] = []
        for start in range(0, len(wanted), _BATCH):
            changed += self._compare(wanted[start : start + _BATCH], returning)
            await asyncio.sleep(0)
        await self._write(changed)

    def _on_its_way(self, ref: Ref) -> bool:
        """True while what proxies are to get of an object is still being worked out."""
        pump = self._xds.pump
        return pump.waiting(ref) or pump.graph.changed_at(ref) > pump.drained

    def _compare(self, rows: Sequence[Row], returning: bool = False) -> list[SetConditions]:
        self.looked_at += len(rows)
        reached = self._xds.progress([row.ref for row in rows])
        changed: list[SetConditions] = []
        for row in rows:
            progress = reached.get(row.ref, _NOBODY)
            if progress.behind:
                self._unfinished.add(row.ref)
            if returning and progress.needed == 0 and row.held is None:
                self._dirty.add(row.ref)  # those that need it may be on their way back
                continue
            found = [each for part in row.findings.values() for each in msgspec.json.decode(part, type=list[Finding])]
            made = conditions(row, found, self._losses.get(row.ref, NONE), progress)
            if made != _stored_conditions(row):
                self._from_before.discard(row.ref)
                encoded = tuple(_json(each) for each in made)
                changed.append(SetConditions(row.ref, row.generation, encoded))
        return changed

    async def _ask_losses(self) -> None:
        """Asks for the conflicts of all objects when something that queries read has changed."""
        graph = self._xds.pump.graph
        if graph.revision == self._asked_at:
            return
        self._asked_at = graph.revision
        there = [row.ref for kind in self._kinds for row in self._store.members(kind)]
        for ref in self._losses.keys() - set(there):
            del self._losses[ref]
        end = time.perf_counter() + _SLICE_S
        for ref in there:
            found = self._ask(ref)
            before = self._losses.get(ref)
            if before is not found:
                self._losses[ref] = found
                if found != before:
                    self._dirty.add(ref)
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + _SLICE_S

    def _ask(self, ref: Ref) -> Losses:
        try:
            found = self._xds.pump.graph.pull(losses, ref)
        except Exception:
            if ref not in self._failed:  # a bug: said once, and the other objects go on
                self._failed.add(ref)
                _log.exception("conflicts not known", object=str(ref))
            return NONE
        self._failed.discard(ref)
        return found

    async def _write(self, changed: Sequence[SetConditions]) -> None:
        for start in range(0, len(changed), _BATCH):
            batch = changed[start : start + _BATCH]
            try:
                await self._store.write(batch, author="lateen")
                self.written += len(batch)
            except ApiError as error:  # the disk is full, say: the next round tries again
                _log.warning("conditions not written", error=str(error))
                self._dirty.update(each.ref for each in batch)
                self._woken.set()


def _said_before(row: Row) -> bool:
    """True when the status tells of this very generation and holds nothing that is no longer so for sure."""
    return {each.observed_generation for each in _stored_conditions(row)} == {row.generation}


def _stored_conditions(row: Row) -> tuple[Condition, ...]:
    status = msgspec.json.decode(row.status, type=_Status)
    return tuple(each for each in status.conditions if each.type in TYPES)


def _json(each: Condition) -> Json:
    return msgspec.to_builtins(each)


class _Status(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()
