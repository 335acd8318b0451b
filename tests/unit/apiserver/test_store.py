from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lateen.apiserver.database import Database
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ConflictError, ExistsError, GoneError, InvalidError, NotFoundError, StorageError
from lateen.apiserver.holding import Hold, Release
from lateen.apiserver.operations import Create, Put, PutStatus, Replace, SetFindings
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.store import Store
from lateen.lib.findings import Finding, Level
from tests.unit.apiserver.conftest import config_map, ref

Json = dict[str, Any]


async def one(store: Store, operation: Any, **keywords: Any) -> Row:
    rows = await store.write([operation], **keywords)
    assert rows[0] is not None
    return rows[0]


def accepted(row: Row | None) -> Json | None:
    assert row is not None
    document = row.accepted()
    return None if document is None else msgspec.json.decode(document)


async def test_two_namespaces_are_there_from_the_start_and_stay(store: Store) -> None:
    assert [row.ref.name for row in store.list(("", "Namespace"))] == ["default", "istio-system"]
    with pytest.raises(InvalidError):
        await store.write([Delete(ref("default", "Namespace", ""))])


async def test_an_object_gets_identity_and_comes_back_as_it_was_written(store: Store) -> None:
    document = config_map("a", x="1") | {"unknown": {"survives": [1, 2.5, None]}}
    row = await one(store, Create(document), author="me")
    got = row.decode()
    assert got["data"] == {"x": "1"}
    assert got["unknown"] == {"survives": [1, 2.5, None]}
    assert got["metadata"]["uid"]
    assert got["metadata"]["creationTimestamp"].endswith("Z")
    assert got["metadata"]["generation"] == 1
    assert got["metadata"]["resourceVersion"] == str(store.revision)
    assert row.author == "me"
    with pytest.raises(ExistsError):
        await store.write([Create(document)])


async def test_generated_names_differ(store: Store) -> None:
    document: Json = {"apiVersion": "v1", "kind": "ConfigMap"}
    document["metadata"] = {"generateName": "a-", "namespace": "default"}
    rows = await store.write([Create(document) for _ in range(50)])
    names = {row.ref.name for row in rows if row}
    assert len(names) == 50
    assert all(len(name) == 7 and name.startswith("a-") for name in names)


async def test_a_missing_namespace_is_an_error(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no namespace shop"):
        await store.write([Create(config_map("a", "shop"))])


async def test_compare_and_set(store: Store) -> None:
    first = await one(store, Create(config_map("a", x="1")))
    stale = first.decode()
    second = await one(store, Replace(stale | {"data": {"x": "2"}}))
    assert second.generation == 2
    with pytest.raises(ConflictError):
        await store.write([Replace(stale | {"data": {"x": "3"}})])
    with pytest.raises(ConflictError):
        await store.write([Delete(ref("a"), uid="another")])
    # Without a resourceVersion the last one wins.
    third = await one(store, Replace(config_map("a", x="4")))
    assert third.decode()["metadata"]["uid"] == stale["metadata"]["uid"]


async def test_of_many_writers_with_the_same_version_one_wins(store: Store) -> None:
    document = (await one(store, Create(config_map("a", n="0")))).decode()
    attempts = [store.write([Replace(document | {"data": {"n": str(n)}})]) for n in range(1, 21)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(each, list) for each in results) == 1
    assert sum(isinstance(each, ConflictError) for each in results) == 19


async def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    revision = store.revision
    with pytest.raises(NotFoundError):
        await store.write([Create(config_map("a")), Create(config_map("b")), Delete(ref("missing"))])
    assert store.revision == revision
    assert store.list(("", "ConfigMap")) == []
    await store.write([Create(config_map("a"))])
    assert store.revision == revision + 1


async def test_a_dry_run_answers_and_leaves_nothing(store: Store) -> None:
    revision = store.revision
    row = await one(store, Create(config_map("a")), dry_run=True)
    assert row.revision == revision + 1
    assert store.get(ref("a")) is None
    assert store.revision == revision
    assert await store.history(ref("a")) == []


async def test_an_unchanged_write_makes_no_revision(store: Store) -> None:
    row = await one(store, Create(config_map("a", x="1", y="2")))
    same = config_map("a") | {"data": {"y": "2", "x": "1"}}
    assert (await one(store, Replace(same))).revision == row.revision


async def test_a_status_is_a_revision_but_no_generation_and_no_history(store: Store) -> None:
    row = await one(store, Create(config_map("a")))
    after = await one(store, PutStatus(row.decode() | {"status": {"ready": True, "findings": ["echo"]}}))
    assert (after.revision, after.generation) == (row.revision + 1, 1)
    assert after.decode()["status"] == {"ready": True}
    with pytest.raises(ConflictError):
        await store.write([PutStatus(row.decode() | {"status": {}})])
    assert len(await store.history(ref("a"))) == 1
    # What the object asks for leaves the status alone.
    assert (await one(store, Replace(config_map("a", x="1")))).decode()["status"] == {"ready": True}


async def test_finalizers_delay_the_end(store: Store) -> None:
    document = config_map("a")
    document["metadata"]["finalizers"] = ["example.com/hold"]
    await store.write([Create(document)])
    going = await one(store, Delete(ref("a")))
    assert going.deleting
    assert going.decode()["metadata"]["deletionTimestamp"]
    assert await store.write([Delete(ref("a"))]) == [going]
    free = going.decode()
    free["metadata"]["finalizers"] = []
    assert await store.write([Replace(free)]) == [None]
    assert store.get(ref("a")) is None


async def test_a_pod_on_a_node_has_its_grace(store: Store) -> None:
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}
    pod["spec"] = {"containers": [], "nodeName": "n", "terminationGracePeriodSeconds": 7}
    await store.write([Create(pod)])
    going = await one(store, Delete(ref("a", "Pod")))
    assert going.decode()["metadata"]["deletionGracePeriodSeconds"] == 7
    sooner = await one(store, Delete(ref("a", "Pod"), grace_s=2))
    assert sooner.decode()["metadata"]["deletionGracePeriodSeconds"] == 2
    assert await store.write([Delete(ref("a", "Pod"), grace_s=0)]) == [None]


async def test_a_namespace_takes_along_what_is_in_it(store: Store) -> None:
    space: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}}
    pod["spec"] = {"containers": [], "nodeName": "n"}
    await store.write([Create(space), Create(config_map("a", "shop")), Create(pod)])
    going = await one(store, Delete(ref("shop", "Namespace", "")))
    assert going.deleting
    assert store.get(ref("a", namespace="shop")) is None
    with pytest.raises(InvalidError, match="being deleted"):
        await store.write([Create(config_map("b", "shop"))])
    await store.write([Delete(ref("p", "Pod", "shop"), grace_s=0)])
    assert store.get(ref("shop", "Namespace", "")) is None


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.db")
    await store.write([Put(config_map("a", x="1"), b'{"file":"f","lines":{}}')], author="me")
    await store.write([Replace(config_map("a", x="2"))])
    await store.write([Hold(ref("a"), "refused")])
    await store.write([SetFindings(ref("a"), "node", (Finding(code="X", level=Level.INFO, message="m"),))])
    await store.write([PutStatus(config_map("a") | {"status": {"s": 1}})])
    await store.write([Create(config_map("b")), Delete(ref("b"))])
    before, revision = store.rows(), store.revision
    await store.close()
    again = await Store.open(tmp_path / "s.db")
    assert sorted(again.rows(), key=lambda row: row.ref) == sorted(before, key=lambda row: row.ref)
    assert again.revision == revision
    assert [each.action for each in await again.history(ref("b"))] == ["delete", "create"]
    await again.close()


async def test_the_file_is_private_and_locked(tmp_path: Path, store: Store) -> None:
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o600
    child = (
        f"import sqlite3; sqlite3.connect({str(tmp_path / 'store.db')!r}, timeout=0.1).execute('SELECT * FROM objects')"
    )
    got = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert "locked" in got.stderr


async def test_a_file_of_a_newer_lateen_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="99"):
        await Store.open(tmp_path / "s.db")


async def test_a_disk_that_fails_loses_nothing_that_was_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.write([Create(config_map("a"))])
    revision = store.revision

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "commit", full)
        with pytest.raises(StorageError, match="disk is full"):
            await store.write([Create(config_map("b"))])
    assert store.revision == revision
    row = await one(store, Create(config_map("b")))
    assert row.revision == revision + 1


# -- hold -------------------------------------------------------------------------------------------------


async def test_a_held_object_is_read_as_it_last_was_good(store: Store) -> None:
    await store.write([Create(config_map("a", x="good"))])
    await store.write([Replace(config_map("a", x="bad"))])
    row = await one(store, Hold(ref("a"), "Envoy said no"))
    document = accepted(row)
    assert document is not None
    assert document["data"] == {"x": "good"}
    assert row.decode()["data"] == {"x": "bad"}
    # A second bad version goes back to the same good one, a status does not end the hold.
    await store.write([Replace(config_map("a", x="worse"))])
    assert (accepted(store.get(ref("a"))) or {})["data"] == {"x": "worse"}
    await store.write([Hold(ref("a"), "again")])
    await store.write([PutStatus(config_map("a") | {"status": {"s": 1}})])
    assert (accepted(store.get(ref("a"))) or {})["data"] == {"x": "good"}
    # The fix counts at once.
    fixed = await one(store, Replace(config_map("a", x="fixed")))
    assert fixed.held is None


async def test_a_new_object_that_is_held_is_not_there_for_queries(store: Store) -> None:
    await store.write([Create(config_map("a", x="old")), Delete(ref("a")), Create(config_map("a", x="bad"))])
    row = await one(store, Hold(ref("a"), "no"))
    assert accepted(row) is None
    assert accepted(await one(store, Hold(ref("a"), "still no"))) is None
    released = await one(store, Release(ref("a")))
    assert (accepted(released) or {})["data"] == {"x": "bad"}


async def test_holding_what_was_gone_back_to_goes_back_further(store: Store) -> None:
    for value in ("1", "2", "3"):
        await store.write([Put(config_map("a", x=value))])
    for expected in ("2", "1"):
        assert (accepted(await one(store, Hold(ref("a"), "no"))) or {})["data"] == {"x": expected}
    assert accepted(await one(store, Hold(ref("a"), "no"))) is None


async def test_history_keeps_the_good_version_however_many_bad_ones_follow(store: Store) -> None:
    await store.write([Create(config_map("a", x="good"))])
    for number in range(60):
        await store.write([Replace(config_map("a", x=str(number)))])
        await store.write([Hold(ref("a"), "no")])
    assert (accepted(store.get(ref("a"))) or {})["data"] == {"x": "good"}


async def test_history_is_bounded_and_says_who_and_what(store: Store) -> None:
    for number in range(40):
        await store.write([Put(config_map("a", x=str(number)))], author=f"author {number}")
    versions = await store.history(ref("a"))
    assert len(versions) == 20
    assert versions[0].author == "author 39"
    assert msgspec.json.decode(versions[1].body) == {"data": {"x": "38"}}
    assert [each.action for each in versions] == ["update"] * 20


# -- watch ------------------------------------------------------------------------------------------------


async def test_changes_from_a_revision_then_live(store: Store) -> None:
    begin = store.revision
    await store.write([Create(config_map("a")), Create(config_map("b"))])
    await store.write([Delete(ref("a"))])
    changes = store.changes(("", "ConfigMap"), begin)
    seen = await anext(changes)
    assert [(each.row.ref.name, each.before is None, each.after is None) for each in seen] == [
        ("a", True, False),
        ("b", True, False),
        ("a", False, True),
    ]
    waiting = asyncio.ensure_future(anext(changes))
    await store.write([Create(config_map("c"))])
    assert [each.row.ref.name for each in await waiting] == ["c"]
    await changes.aclose()


async def test_a_revision_that_is_too_old_or_not_there_yet_is_refused(tmp_path: Path, store: Store) -> None:
    await store.write([Create(config_map("a"))])
    with pytest.raises(GoneError):
        await anext(store.changes(("", "ConfigMap"), store.revision + 1))
    await store.close()
    again = await Store.open(tmp_path / "store.db")
    with pytest.raises(GoneError):
        await anext(again.changes(("", "ConfigMap"), again.revision - 1))
    await again.close()


async def test_a_slow_reader_is_told_to_list_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = store.revision
    for start in range(0, 20_500, 500):
        await store.write([Create(config_map(f"a{start + n}")) for n in range(500)])
    with pytest.raises(GoneError):
        await anext(store.changes(("", "ConfigMap"), begin))
    recent = await anext(store.changes(("", "ConfigMap"), store.revision - 10))
    assert len(recent) == 10


async def test_subscribers_see_every_change_once_in_order(store: Store) -> None:
    seen: list[Change] = []
    store.subscribe(seen.extend)
    await asyncio.gather(*(store.write([Create(config_map(f"a{n}"))]) for n in range(100)))
    assert [each.revision for each in seen] == list(range(seen[0].revision, seen[0].revision + 100))


# -- crash ------------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, sys
from pathlib import Path
from lateen.apiserver.operations import Create
from lateen.apiserver.store import Store
async def write(store, n):
    i = 0
    while True:
        name = f"w{n}-{i}"
        await store.write([Create({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"}, "data": {"i": str(i)}})])
        print(name, flush=True)
        i += 1
async def main():
    store = await Store.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(store, n) for n in range(20)))
asyncio.run(main())
"""


@pytest.mark.parametrize("writes", [1, 300, 1500])
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, writes: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / "s.db")], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(writes)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    store = await Store.open(tmp_path / "s.db")
    there = {row.ref.name for row in store.list(("", "ConfigMap"))}
    assert set(acknowledged) <= there
    assert len(acknowledged) >= writes
    revisions = [row.revision for row in store.rows()]
    assert len(set(revisions)) == len(revisions)
    assert store.revision >= max(revisions)
    await store.close()


async def test_nobody_who_follows_a_kind_misses_a_change_that_others_follow_too(store: Store) -> None:
    heard: list[list[str]] = [[], [], []]

    async def follow(number: int) -> None:
        async for changes in store.changes(("", "ConfigMap"), since=store.revision):
            heard[number] += [change.row.ref.name for change in changes]

    followers = [asyncio.create_task(follow(number)) for number in range(3)]
    await asyncio.sleep(0)
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await one(store, Create(config_map(name)))
        async with asyncio.timeout(10):
            while any(name not in each for each in heard):
                await asyncio.sleep(0.005)
    for each in followers:
        each.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    assert heard == [names] * 3
