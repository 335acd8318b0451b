"""Marks the revisions after which error rates jumped: what proxies count, held against what was changed and when.

Agents report every two seconds what their proxies counted of the requests they sent, by service. Changes of objects
come from the store. Every two seconds the hosts that were called are judged (`analysis/jumps`) by the changes that can
concern them (`analysis/reach`); the verdict goes into the object's history, where it stays, and on the object as a
finding until it changes again. Nothing here is in the way of a push, and translation reads none of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from lateen.analysis.jumps import AFTER_S, BEFORE_S, History, Jump, Moment, Sample
from lateen.analysis.reach import NOBODY, Reach, answers_itself, reach
from lateen.api.struct import Json
from lateen.apiserver.errors import ApiError
from lateen.apiserver.marking import MarkRevision
from lateen.apiserver.past import CONTROLLED
from lateen.apiserver.rows import Change, Mark, Row
from lateen.apiserver.store import Store
from lateen.lib.ids import Ref
from lateen.lib.request_counts import Report, RequestCount

INTERVAL_S: Final = 2.0
"""How often hosts are judged."""
LONGEST_S: Final = 10.0
"""A report over a longer time says too little of when: it is left out."""
MAX_HOSTS: Final = 10_000
MAX_CHANGES: Final = 1_000
"""Changes that are remembered; with more in two minutes, the oldest are judged no more."""
_OBJECT: Final = "/apis/"

_log = structlog.stdlib.get_logger("lateen.errors")


class _Changed(msgspec.Struct, frozen=True):
    moment: Moment
    ref: Ref
    reach: Reach


class ErrorRates:
    """Counts and changes of one mesh. `domain` is the cluster domain now. For the loop's thread."""

    def __init__(self, store: Store, domain: Callable[[], str]) -> None:
        self._store = store
        self._domain = domain
        self._hosts: dict[str, History] = {}
        self._called: set[str] = set()
        self._changes: deque[_Changed] = deque(maxlen=MAX_CHANGES)
        self._marked: dict[tuple[int, str], float] = {}
        store.subscribe(self._stored)

    def take(self, report: Report) -> None:
        """What some proxies counted until now."""
        now = asyncio.get_running_loop().time()
        if not 0 < report.seconds <= LONGEST_S:
            return
        sums: dict[str, Sample] = {}
        for count in report.counts:
            if host := self._host(count.target):
                sums[host] = _added(sums.get(host), count, now - report.seconds, now)
        for host, sample in sums.items():
            if host in self._hosts or len(self._hosts) < MAX_HOSTS:
                self._hosts.setdefault(host, History()).add(sample)
                self._called.add(host)

    async def run(self) -> None:
        """Judges until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._mark(self._judge())

    # -- what is said --------------------------------------------------------------------------------------

    def _host(self, target: str) -> str:
        """The host that a counter is about: of the cluster `outbound|PORT|SUBSET|HOST`, or of a VirtualService that
        answers itself; empty when it is about none."""
        cluster, slash, path = target.partition(_OBJECT)
        if cluster.startswith("outbound|"):
            return cluster.rpartition("|")[2]
        parts = path.split("/")
        if cluster or not slash or len(parts) != 6 or parts[4] != "virtual-service":
            return ""
        ref = Ref(parts[0], "VirtualService", parts[3], parts[5])
        row = self._store.get(ref)
        return answers_itself(ref, _body(row).get("spec") or {}, self._domain()) if row is not None else ""

    def _stored(self, changes: Sequence[Change]) -> None:
        at = asyncio.get_running_loop().time()
        for change in changes:
            before, after = change.before, change.after
            ref = change.row.ref
            same = before is not None and after is not None and before.body == after.body
            if same or ref.kind in CONTROLLED:
                continue
            reached = reach(ref, [_body(row) for row in (before, after) if row is not None], self._domain())
            if reached != NOBODY:
                self._changes.append(_Changed(Moment(at, change.revision), ref, reached))

    # -- what comes of it ----------------------------------------------------------------------------------

    def _judge(self) -> list[tuple[str, Jump]]:
        now = asyncio.get_running_loop().time()
        while self._changes and self._changes[0].moment.at < now - BEFORE_S - AFTER_S:
            self._changes.popleft()
        self._marked = {key: at for key, at in self._marked.items() if at > now - 2 * (BEFORE_S + AFTER_S)}
        called, self._called = self._called, set()
        domain, found = self._domain(), list[tuple[str, Jump]]()
        for host in sorted(called) if self._changes else ():
            moments = [each.moment for each in self._changes if each.reach.concerns(host, domain)]
            for jump in self._hosts[host].jumps(moments):
                fresh = [(revision, host) for revision in jump.revisions if (revision, host) not in self._marked]
                if fresh:
                    self._marked.update(dict.fromkeys(fresh, now))
                    found.append((host, jump))
        for host in [host for host, each in self._hosts.items() if each.newest < now - BEFORE_S - AFTER_S]:
            del self._hosts[host]
        return found

    async def _mark(self, found: Sequence[tuple[str, Jump]]) -> None:
        refs = {each.moment.revision: each.ref for each in self._changes}
        for host, jump in found:
            mark = Mark(host, jump.what, str(jump.before), str(jump.after), len(jump.revisions) - 1)
            known = [revision for revision in jump.revisions if revision in refs]
            _log.warning("errors jumped", mark=str(mark), objects=[refs[each].short for each in known])
            try:
                await self._store.write([MarkRevision(refs[each], each, mark) for each in known], author="lateen")
            except ApiError as error:  # the disk is full, say
                _log.warning("revisions not marked", error=str(error))


def _added(there: Sample | None, count: RequestCount, start: float, end: float) -> Sample:
    more = Sample(start, end, count.requests, count.client_errors, count.server_errors)
    if there is None:
        return more
    return Sample(
        start,
        end,
        there.requests + more.requests,
        there.client_errors + more.client_errors,
        there.server_errors + more.server_errors,
    )


def _body(row: Row) -> Json:
    return msgspec.json.decode(row.body)
