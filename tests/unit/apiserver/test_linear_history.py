"""One history for all: whatever is written, watched, resumed, compacted or restarted, and in whatever order.

The model is a list of changes, one for each revision. A watcher, however it reads, must see the changes of its kind
(and of its selector) after the revision at which it began, each once and in order; one that has fallen behind what is
kept is told so (410) and misses nothing silently.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from starlette.requests import Request
from starlette.responses import StreamingResponse

from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ConflictError, ExistsError, GoneError, NotFoundError
from lateen.apiserver.operations import Create, Operation, PutStatus, Replace
from lateen.apiserver.reading import Reader
from lateen.apiserver.resources import Resources
from lateen.apiserver.rows import Change
from lateen.apiserver.store import Store, utc_now
from lateen.apiserver.targets import parse
from lateen.lib.ids import Ref

T = TypeVar("T")
Json = dict[str, Any]
KEPT = 8
"""Changes of a kind that are kept: few, so that compaction happens all the time."""
KINDS = {"ConfigMap": "configmaps", "Secret": "secrets"}
NAMESPACES = ("default", "istio-system")
KEYS = st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(NAMESPACES), st.sampled_from(["a", "b", "c"]))
COLOURS = st.sampled_from(["red", "blue"])
Key = tuple[str, str, str]


class Told(msgspec.Struct, frozen=True):
    """A change as the model knows it: the object before and after it, without what the store adds."""

    revision: int
    key: Key
    before: Json | None
    after: Json | None


class Follower:
    """A watch that stays open."""

    def __init__(self, kind: str, namespace: str, since: int, changes: AsyncGenerator[list[Change]]) -> None:
        self.kind = kind
        self.namespace = namespace
        self.since = since
        self.changes = changes


class Resumer:
    """A client that watches with a selector for a moment, and comes back with the last revision it has heard of."""

    def __init__(self, kind: str, colour: str, since: int) -> None:
        self.kind = kind
        self.colour = colour
        self.since = since
        self.known: dict[str, Json] = {}


def bare(document: Json | None) -> Json | None:
    if document is None:
        return None
    metadata = document["metadata"]
    return {
        "data": document.get("data", {}),
        "labels": metadata.get("labels", {}),
        "status": document.get("status", {}),
    }


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="lateen-"))
        self.told: list[Told] = []
        self.objects: dict[Key, Json] = {}
        self.followers: list[Follower] = []
        self.resumers: list[Resumer] = []
        self.counter = 0
        self.open()
        self.begun, self.first = self.store.revision, 0  # what a new store makes for itself can be followed, too

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def open(self) -> None:
        self.store = self.run(Store.open(self.directory / "s.db", changes_kept=KEPT))
        self.first = self.store.revision
        self.reader = Reader(self.store, utc_now)
        self.resources = Resources()

    def teardown(self) -> None:
        self.run(self.let_go())
        self.run(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.directory)

    async def let_go(self) -> None:
        for each in self.followers:
            await each.changes.aclose()
        self.followers.clear()

    # -- writing ---------------------------------------------------------------------------------------

    def document(self, key: Key, colour: str) -> Json:
        self.counter += 1
        kind, namespace, name = key
        metadata = {"name": name, "namespace": namespace, "labels": {"colour": colour}}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": {"n": str(self.counter)}}

    def expect(self, key: Key, after: Json | None) -> None:
        before = self.objects.pop(key, None)
        if after is not None:
            self.objects[key] = after
        revision = (self.told[-1].revision if self.told else self.begun) + 1
        self.told.append(Told(revision, key, before, after))

    def write(self, *operations: Operation) -> None:
        self.run(self.store.write(list(operations)))

    @rule(key=KEYS, colour=COLOURS)
    def create(self, key: Key, colour: str) -> None:
        document = self.document(key, colour)
        if key in self.objects:
            with pytest.raises(ExistsError):
                self.write(Create(document))
            return
        self.write(Create(document))
        self.expect(key, bare(document))

    @rule(key=KEYS, colour=COLOURS)
    def replace(self, key: Key, colour: str) -> None:
        document = self.document(key, colour)
        if key not in self.objects:
            with pytest.raises(NotFoundError):
                self.write(Replace(document))
            return
        self.write(Replace(document))
        self.expect(key, {**(bare(document) or {}), "status": self.objects[key]["status"]})

    @rule(key=KEYS)
    def say(self, key: Key) -> None:
        if key not in self.objects:
            return
        self.counter += 1
        kind, namespace, name = key
        status = {"n": self.counter}
        metadata = {"name": name, "namespace": namespace}
        self.write(PutStatus({"apiVersion": "v1", "kind": kind, "metadata": metadata, "status": status}))
        self.expect(key, {**self.objects[key], "status": status})

    @rule(key=KEYS)
    def delete(self, key: Key) -> None:
        if key not in self.objects:
            with pytest.raises(NotFoundError):
                self.write(Delete(Ref("", *key)))
            return
        self.write(Delete(Ref("", *key)))
        self.expect(key, None)

    @rule(keys=st.lists(KEYS, min_size=2, max_size=4, unique=True), colour=COLOURS)
    def several_at_once_or_none(self, keys: list[Key], colour: str) -> None:
        documents = [self.document(key, colour) for key in keys]
        if any(key in self.objects for key in keys):
            with pytest.raises(ExistsError):
                self.write(*map(Create, documents))
            return
        self.write(*map(Create, documents))
        for key, document in zip(keys, documents, strict=True):
            self.expect(key, bare(document))

    @rule(key=KEYS, colour=COLOURS)
    def nobody_overwrites_what_he_has_not_seen(self, key: Key, colour: str) -> None:
        row = self.store.get(Ref("", *key))
        if row is None:
            return
        stale = self.document(key, colour)
        stale["metadata"]["resourceVersion"] = str(row.revision - 1)
        with pytest.raises(ConflictError):
            self.write(Replace(stale))

    @rule()
    def the_control_plane_is_started_again(self) -> None:
        self.run(self.let_go())
        self.run(self.store.close())
        self.open()

    # -- watching --------------------------------------------------------------------------------------

    def kept(self, kind: str, since: int) -> bool:
        """Whether every change of a kind after a revision is still known."""
        later = sum(each.revision > since and each.key[0] == kind for each in self.told)
        return self.first <= since <= self.store.revision and later <= KEPT

    @rule(kind=st.sampled_from(sorted(KINDS)), namespace=st.sampled_from(["", *NAMESPACES]), back=st.integers(-2, 20))
    def follow(self, kind: str, namespace: str, back: int) -> None:
        since = self.store.revision - back
        changes = self.store.changes(("", kind), since, namespace=namespace, idle_s=0)
        if not self.kept(kind, since):
            with pytest.raises(GoneError):
                self.run(anext(changes))
            return
        self.followers.append(Follower(kind, namespace, since, changes))

    @precondition(lambda self: self.followers)
    @rule(index=st.integers(0, 50))
    def listen(self, index: int) -> None:
        one = self.followers[index % len(self.followers)]
        expected = [
            each
            for each in self.told
            if each.revision > one.since and each.key[0] == one.kind and one.namespace in ("", each.key[1])
        ]
        if not self.kept(one.kind, one.since):
            with pytest.raises(GoneError):
                self.run(anext(one.changes))
            self.followers.remove(one)
            return
        seen = self.run(anext(one.changes))
        if seen:  # told all there was; the next round says that there is no more
            assert self.run(anext(one.changes)) == []
        assert [each.revision for each in seen] == [each.revision for each in expected]
        for change, told in zip(seen, expected, strict=True):
            row = change.row
            assert (row.ref.kind, row.ref.namespace, row.ref.name) == told.key
            assert bare(change.before.decode() if change.before else None) == told.before
            assert bare(change.after.decode() if change.after else None) == told.after
        one.since = self.store.revision

    @rule(kind=st.sampled_from(sorted(KINDS)), colour=COLOURS)
    def come(self, kind: str, colour: str) -> None:
        one = Resumer(kind, colour, self.store.revision)
        one.known = self.matching(kind, colour)
        self.resumers.append(one)

    def matching(self, kind: str, colour: str) -> dict[str, Json]:
        return {
            f"{key[1]}/{key[2]}": document
            for key, document in self.objects.items()
            if key[0] == kind and document["labels"]["colour"] == colour
        }

    @precondition(lambda self: self.resumers)
    @rule(index=st.integers(0, 50))
    def resume(self, index: int) -> None:
        one = self.resumers[index % len(self.resumers)]
        lines = None
        if self.kept(one.kind, one.since):
            lines = self.run(self.watch(one))
        else:
            with pytest.raises(GoneError):
                self.run(self.watch(one))
            one.known, one.since = self.matching(one.kind, one.colour), self.store.revision
            return
        last = one.since
        for line in lines:
            found, metadata = line["object"], line["object"]["metadata"]
            revision = int(metadata["resourceVersion"])
            assert revision > last or (line["type"] == "BOOKMARK" and revision == last)
            last = revision
            if line["type"] == "BOOKMARK":
                continue
            name = f"{metadata['namespace']}/{metadata['name']}"
            assert (name in one.known) is (line["type"] != "ADDED")
            if line["type"] == "DELETED":
                del one.known[name]
            else:
                one.known[name] = bare(found) or {}
        assert one.known == self.matching(one.kind, one.colour)
        one.since = last

    async def watch(self, one: Resumer) -> list[Json]:
        query = f"watch=1&resourceVersion={one.since}&labelSelector=colour%3D{one.colour}&timeoutSeconds=0"
        query += "&allowWatchBookmarks=1"
        request = Request({"type": "http", "method": "GET", "headers": [], "query_string": query.encode(), "path": "/"})
        target = parse(self.resources, "GET", "", "v1", KINDS[one.kind], watch=True)
        answer = await self.reader.watch(request, target)
        assert isinstance(answer, StreamingResponse)
        text = b"".join([each async for each in answer.body_iterator])  # type: ignore[misc]
        return [msgspec.json.decode(line) for line in text.splitlines()]

    # -- always ----------------------------------------------------------------------------------------

    @invariant()
    def what_is_there_is_what_was_written(self) -> None:
        for kind in KINDS:
            rows = self.store.list(("", kind))
            there = {(kind, row.ref.namespace, row.ref.name): bare(row.decode()) for row in rows}
            assert there == {key: document for key, document in self.objects.items() if key[0] == kind}
        if self.told:
            assert self.store.revision == self.told[-1].revision


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
