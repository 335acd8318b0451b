"""The object store: every object of the mesh, changed by transactions, each object's change one revision.

One thread writes. It takes all transactions that wait, runs them one after another against the rows it knows, and
commits them to SQLite together, so many small writes share one sync of the disk; only then anybody hears of them.
Everything else runs in the event loop and never waits for the disk: reads come from a view of what is committed,
watches from a ring of the latest changes, so a slow reader is told to list again (410) instead of growing a queue.

    store = await Store.open(path)
    rows = await store.write([Create(document)], author="me")
    async for changes in store.changes(("", "Pod"), since=store.revision): ...
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from collections.abc import Collection as Collect
from pathlib import Path
from typing import Final

import msgspec

from lateen.apiserver.database import Database
from lateen.apiserver.deletion import ALWAYS_THERE
from lateen.apiserver.errors import GoneError, StorageError
from lateen.apiserver.operations import Create, Operation
from lateen.apiserver.owners import Owners
from lateen.apiserver.rows import Change, Mark, Row, Version
from lateen.lib.ids import Ref

Collection = tuple[str, str]
"""Group and kind."""

_BATCH: Final = 512
CHANGES_KEPT: Final = 2_000
"""Of each kind: some 15 MB at most for a kind whose objects have a few kB, and twenty seconds at a hundred a second."""
_PRUNE_EVERY: Final = 2_000
_KEPT: Final = dt.timedelta(days=90)
"""How long history is kept; what is in force stays longer."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

Subscriber = Callable[[Sequence[Change]], None]
"""Called in the event loop with the changes of each commit, in order; must not block."""


class _Job(msgspec.Struct):
    """What waits for the writer: a transaction, or a question to the database (`ask`)."""

    future: asyncio.Future[list[Row | None] | list[Version]]
    operations: Sequence[Operation] = ()
    author: str = ""
    dry_run: bool = False
    ask: Callable[[Database], list[Version]] | None = None


def utc_now() -> dt.datetime:
    """The clock."""
    return dt.datetime.now(dt.UTC)


class Store:
    """Made by `open`; everything but the writer belongs to one event loop."""

    def __init__(
        self, database: Database, rows: Iterable[Row], now: Callable[[], dt.datetime], changes_kept: int
    ) -> None:
        self._changes_kept = changes_kept
        self._view: dict[Collection, dict[Ref, Row]] = {}
        self._writer = _Writer(database, {row.ref: row for row in rows}, now)
        for row in self._writer.rows():
            self._view.setdefault(row.ref.collection, {})[row.ref] = row
        self.revision = self._writer.revision
        self._first = self.revision
        self._rings: dict[Collection, _Ring] = {}
        self._subscribers: list[Subscriber] = []
        self._waiting: dict[tuple[Collection, str], set[asyncio.Future[None]]] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_jobs, name="store writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls, path: Path, now: Callable[[], dt.datetime] = utc_now, *, changes_kept: int = CHANGES_KEPT
    ) -> Store:
        """The store in that file, made when it is not there. StorageError when it cannot be used. `changes_kept`: how
        many changes of each kind can be followed afterwards."""

        def load() -> tuple[Database, list[Row]]:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = Database(path)
            try:
                return database, list(database.rows())
            except (sqlite3.Error, msgspec.DecodeError, ValueError) as error:
                raise StorageError(f"{path} cannot be read: {error}", remedy="restore it from a copy") from error

        store = cls(*await asyncio.to_thread(load), now, changes_kept)
        missing = [name for name in ALWAYS_THERE if store.get(Ref("", "Namespace", "", name)) is None]
        if missing:
            spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in missing]
            await store.write([Create(each) for each in spaces], author="lateen")
        return store

    async def close(self) -> None:
        """Returns when everything that was asked for is written and the file is closed."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- reading ---------------------------------------------------------------------------------------

    def get(self, ref: Ref) -> Row | None:
        """The object as committed, or None."""
        return self._view.get(ref.collection, {}).get(ref)

    def list(self, collection: Collection, namespace: str = "") -> list[Row]:
        """All objects of a kind, in one namespace or in all, by namespace and name."""
        rows = self._view.get(collection, {}).values()
        return sorted((row for row in rows if not namespace or row.ref.namespace == namespace), key=lambda row: row.ref)

    def members(self, collection: Collection) -> Collect[Row]:
        """All objects of a kind, in no order, without a copy: not to be kept over an await."""
        return self._view.get(collection, {}).values()

    def rows(self) -> list[Row]:
        """All objects of all kinds."""
        return [row for rows in self._view.values() for row in rows.values()]

    async def history(self, ref: Ref) -> list[Version]:
        """What an object asked for at its former revisions, newest first; also of one that is gone."""
        return await self.past(lambda database: database.versions(ref))

    async def past(self, question: Callable[[Database], list[Version]]) -> list[Version]:
        """Asks the history, in the writer's thread and in turn with what is written."""
        future: asyncio.Future[list[Version]] = self._loop.create_future()
        job = _Job(future, ask=question)  # pyright: ignore[reportArgumentType] (one of the two kinds of answers)
        self._jobs.put(job)
        return await future

    # -- writing ---------------------------------------------------------------------------------------

    async def write(
        self, operations: Sequence[Operation], *, author: str = "", dry_run: bool = False
    ) -> list[Row | None]:
        """Runs the operations as one transaction; returns each object as it then is, None for one that is gone.

        Returns when the transaction is on the disk (a dry run: never is). Raises the ApiError of the first
        operation that refuses; then none has happened.
        """
        future: asyncio.Future[list[Row | None]] = self._loop.create_future()
        self._jobs.put(_Job(future, operations, author, dry_run))  # pyright: ignore[reportArgumentType]
        return await future

    # -- following -------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber) -> None:
        """From now on calls `subscriber` with the changes of every commit."""
        self._subscribers.append(subscriber)

    def keeps(self, collection: Collection, since: int) -> bool:
        """True when every change of that kind after that revision is still known."""
        ring = self._rings.get(collection)
        return (self._first if ring is None else ring.oldest) <= since <= self.revision

    async def changes(
        self, collection: Collection, since: int, *, namespace: str = "", idle_s: float | None = None
    ) -> AsyncGenerator[list[Change]]:
        """The changes of one kind after that revision, as they come, in one namespace or in all.

        With `idle_s`, an empty list after so long without a change: everything up to the store's revision was told.
        GoneError when so old a revision, or one that never was, cannot be followed: list again.
        """
        while True:
            if not self.keeps(collection, since):
                raise GoneError(f"changes since revision {since} are not known here", remedy="list again")
            ring = self._rings.get(collection)
            found = [] if ring is None else ring.after(since, namespace)
            since = self.revision
            if found:
                yield found
                continue
            if not await self._wait((collection, namespace), idle_s):
                since = self.revision
                yield []

    async def _wait(self, key: tuple[Collection, str], at_most_s: float | None) -> bool:
        """Returns at the next change of that kind (in that namespace); False when there was none for so long."""
        future: asyncio.Future[None] = self._loop.create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=at_most_s)
            return future.done()
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(key) is waiting:  # who was faster may wait in a new set already
                del self._waiting[key]

    # -- the writer's thread ---------------------------------------------------------------------------

    def _write_jobs(self) -> None:
        running = True
        while running:
            jobs: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == _BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            running = job is not None
            if jobs:
                answers, changes = self._writer.commit(jobs)
                with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                    self._loop.call_soon_threadsafe(self._deliver, jobs, answers, changes)
        self._writer.close()

    def _deliver(self, jobs: list[_Job], answers: list[_Answer], changes: list[Change]) -> None:
        for change in changes:
            row = change.row
            rows = self._view.setdefault(row.ref.collection, {})
            if change.after is None:
                rows.pop(row.ref, None)
            else:
                rows[row.ref] = change.after
            ring = self._rings.get(row.ref.collection)
            if ring is None:
                ring = self._rings[row.ref.collection] = _Ring(self._first, self._changes_kept)
            ring.append(change)
            self.revision = change.revision
        for subscriber in self._subscribers if changes else ():
            subscriber(changes)
        for job, answer in zip(jobs, answers, strict=True):
            if job.future.done():
                continue  # who asked has gone
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
        touched = {(row.ref.collection, space) for row in (c.row for c in changes) for space in ("", row.ref.namespace)}
        for key in touched:
            for future in self._waiting.pop(key, ()):
                if not future.done():
                    future.set_result(None)


class _Ring:
    """The latest changes of one kind; `oldest` is the revision after which all of them are known."""

    def __init__(self, oldest: int, kept: int) -> None:
        self.oldest = oldest
        self._changes: collections.deque[Change] = collections.deque(maxlen=kept)

    def append(self, change: Change) -> None:
        if len(self._changes) == self._changes.maxlen:
            self.oldest = self._changes[0].revision
        self._changes.append(change)

    def after(self, since: int, namespace: str) -> list[Change]:
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.revision <= since:
                break
            if not namespace or change.row.ref.namespace == namespace:
                found.append(change)
        found.reverse()
        return found


_Answer = list[Row | None] | list[Version] | Exception


class _Writer:
    """The rows as they will be on the disk. Used by the writer's thread alone."""

    def __init__(self, database: Database, rows: dict[Ref, Row], now: Callable[[], dt.datetime]) -> None:
        self._database = database
        self._rows = rows
        self._owners = Owners()
        for row in rows.values():
            self._owners.add(row)
        self._now = now
        self.revision = database.revision()
        self._unpruned = _PRUNE_EVERY
        self._changes: list[Change] = []
        self.now = ""
        self.author = ""

    def commit(self, jobs: Sequence[_Job]) -> tuple[list[_Answer], list[Change]]:
        """One commit for all the jobs: the answer to each, and what changed."""
        self.now = self._now().strftime(_TIME)
        begun, changes = self.revision, list[Change]()
        answers: list[_Answer] = []
        try:
            self._database.begin()
            for job in jobs:
                if job.ask is not None:
                    answers.append(job.ask(self._database))
                    continue
                answer, made = self._transact(job)
                answers.append(answer)
                changes += made
            self._unpruned += len(changes)
            if self._unpruned > _PRUNE_EVERY:
                self._database.prune((self._now() - _KEPT).strftime(_TIME))
                self._unpruned = 0
            self._database.commit(self.revision)
        except sqlite3.Error as error:
            self._database.roll_back()
            self._undo(changes, begun)
            failure = StorageError(f"the object store cannot be written: {error}", remedy="check the disk's free space")
            return [failure for _ in jobs], []
        return answers, changes

    def _transact(self, job: _Job) -> tuple[_Answer, list[Change]]:
        self._changes, self.author = [], job.author
        begun = self.revision
        self._database.savepoint()
        try:
            answer: _Answer = [operation.run(self) for operation in job.operations]
            for change in self._changes if not job.dry_run else ():
                self._database.write(change, self.now, job.author)
        except sqlite3.Error:
            self._undo(self._changes, begun)
            raise
        except Exception as error:  # a refusal, or a bug in an operation: either ends this transaction alone
            answer, job.dry_run = error, True
        if job.dry_run:
            self._undo(self._changes, begun)
            self._database.forget()
            return answer, []
        self._database.keep()
        return answer, self._changes

    def _undo(self, changes: Sequence[Change], revision: int) -> None:
        for change in reversed(changes):
            self._owners.change(change.after, change.before)
            if change.before is None:
                self._rows.pop(change.row.ref, None)
            else:
                self._rows[change.before.ref] = change.before
        self.revision = revision

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    # -- what operations use ---------------------------------------------------------------------------

    def row(self, ref: Ref) -> Row | None:
        return self._rows.get(ref)

    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def put(self, row: Row) -> Row:
        self.revision += 1
        before = self._rows.get(row.ref)
        after = msgspec.structs.replace(row, revision=self.revision)
        self._rows[row.ref] = after
        self._owners.change(before, after)
        self._changes.append(Change(self.revision, before, after))
        return after

    def remove(self, row: Row) -> None:
        self.revision += 1
        before = self._rows.pop(row.ref)
        self._owners.change(before, None)
        self._changes.append(Change(self.revision, before, None))

    def owned_by(self, uid: str) -> list[Row]:
        return [self._rows[ref] for ref in self._owners.dependents(uid)]

    def with_uid(self, uid: str) -> Row | None:
        ref = self._owners.ref(uid)
        return self._rows[ref] if ref is not None else None

    def versions(self, ref: Ref) -> list[Version]:
        return self._database.versions(ref)

    def condemn(self, ref: Ref, revision: int, *, condemned: bool) -> None:
        self._database.condemn(ref, revision, condemned=condemned)

    def mark(self, ref: Ref, revision: int, marks: tuple[Mark, ...]) -> None:
        self._database.mark(ref, revision, marks)
