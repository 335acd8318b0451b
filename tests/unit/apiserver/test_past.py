"""History of the mesh: what was, what differs, and going back as a whole or not at all."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from lateen.api.check import check
from lateen.apiserver.client import Client
from lateen.apiserver.database import Database
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ApiError, BadRequestError, ConflictError, InvalidError, NotFoundError
from lateen.apiserver.holding import Hold
from lateen.apiserver.marking import MarkRevision
from lateen.apiserver.operations import Put, Restore, SetConditions
from lateen.apiserver.past import Past
from lateen.apiserver.rows import Mark
from lateen.apiserver.store import Store
from lateen.lib.ids import Ref
from tests.unit.apiserver.api import client as client  # a fixture

Json = dict[str, Any]


def rule(name: str, timeout: str = "1s", namespace: str = "default") -> Json:
    http = [{"timeout": timeout, "route": [{"destination": {"host": "a"}}]}]
    metadata = {"name": name, "namespace": namespace}
    spec = {"hosts": [f"{name}.example"], "http": http}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}


def ref(name: str, namespace: str = "default") -> Ref:
    return Ref("networking.istio.io", "VirtualService", namespace, name)


async def timeout(client: Client, name: str) -> str:
    return (await client.get("vs", name))["spec"]["http"][0]["timeout"]


async def back(client: Client, **body: Any) -> Json:
    return await client.post("/lateen/v1/rollback", {"author": "me", **body})


async def test_the_mesh_goes_back_as_one_new_revision(store: Store, client: Client) -> None:
    await store.write([Put(rule("kept")), Put(rule("changed")), Put(rule("deleted"))], author="ann")
    good = store.revision
    born = (await client.get("vs", "deleted"))["metadata"]["creationTimestamp"]
    await store.write([Put(rule("changed", "9s")), Delete(ref("deleted")), Put(rule("new"))], author="bob")
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    await store.write([Put({**pod, "spec": {"containers": [{"name": "c", "command": ["true"]}]}})])
    dry = await back(client, to=str(good), dryRun=True)
    assert await timeout(client, "changed") == "9s"
    done = await back(client, to=str(good))
    assert dry["steps"] == done["steps"]
    assert [(each["object"], each["action"]) for each in done["steps"]] == [
        ("VirtualService default/changed", "restored"),
        ("VirtualService default/deleted", "created again"),
        ("VirtualService default/new", "deleted"),
    ]
    assert await timeout(client, "changed") == "1s"
    assert (await client.get("vs", "deleted"))["metadata"]["creationTimestamp"] == born
    assert store.get(ref("new")) is None
    assert await client.get("Pod", "p")  # what runs is not configuration
    versions = (await client.read("/lateen/v1/revisions"))["versions"]
    assert [(each["author"], each["action"]) for each in versions[:3]] == [
        ("me", "delete"),
        ("me", "create"),
        ("me", "update"),
    ]
    again = await back(client, to=str(store.revision))
    assert again["steps"] == []
    await back(client, to=str(versions[3]["revision"]))  # and a rollback can be rolled back
    assert await timeout(client, "changed") == "9s"


async def test_an_object_goes_back_to_its_last_good_version(store: Store, client: Client) -> None:
    for text in ("1s", "2s"):
        await store.write([Put(rule("a", text))])
    await store.write([Put(rule("a", "3s"))])
    await store.write([Hold(ref("a"), "Envoy says no")])
    versions = (await client.read("/lateen/v1/revisions", ref=str(ref("a"))))["versions"]
    assert [each["refused"] for each in versions] == [True, False, False]
    await back(client, ref=str(ref("a")))
    assert await timeout(client, "a") == "2s"
    row = store.get(ref("a"))
    assert row is not None
    assert row.held is None
    await store.write([Delete(ref("a"))])
    done = await back(client, ref=str(ref("a")))
    assert done["steps"][0]["action"] == "created again"
    assert await timeout(client, "a") == "2s"
    await back(client, ref=str(ref("a")), to=str(versions[2]["revision"]))
    assert await timeout(client, "a") == "1s"


async def test_a_mark_of_errors_stays_in_history_and_on_the_object_until_it_changes(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "store.db")
    good, bad = [(await store.write([Put(rule("a", text))]))[0] for text in ("1s", "2s")]
    assert good is not None
    assert bad is not None
    mark = Mark("a.example", "server errors", "0 % of 100", "50 % of 40")
    await store.write([MarkRevision(ref("a"), bad.revision, mark), MarkRevision(ref("a"), bad.revision, mark)])
    await store.write([MarkRevision(ref("a"), 9_999, mark), MarkRevision(ref("never"), 1, mark)])
    await store.close()
    store = await Store.open(tmp_path / "store.db")
    assert [each.marks for each in await store.history(ref("a"))] == [(mark,), ()]
    row = store.get(ref("a"))
    assert row is not None
    (finding,) = row.decode()["status"]["findings"]
    assert (finding["code"], finding["message"]) == ("LTN0370", str(mark))
    await store.write([Put(rule("a", "3s"))])
    changed = store.get(ref("a"))
    assert changed is not None
    assert "status" not in changed.decode()
    assert (await Past(store, check).previous(ref("a"))).revision == good.revision  # not to the marked one
    await store.close()


async def test_what_was_applied_before_a_rollback_can_be_applied_again(store: Store, client: Client) -> None:
    """A field that the newer file took out goes again, although the rollback brought it back."""
    first = rule("a")
    second = rule("a")
    del second["spec"]["http"][0]["timeout"]
    await store.write([Put(first)])
    await store.write([Put(second)])
    await back(client, ref=str(ref("a")))
    assert await timeout(client, "a") == "1s"
    await store.write([Put(second)])
    assert "timeout" not in (await client.get("vs", "a"))["spec"]["http"][0]


async def test_what_cannot_be_done_is_said_and_nothing_is_half_done(store: Store, client: Client) -> None:
    await store.write([Put(rule("a")), Put(rule("b"))])
    good = store.revision
    await store.write([Put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}})])
    await store.write([Put(rule("there", namespace="gone"))])
    there = store.revision
    await store.write([Put(rule("a", "2s"))])
    await store.write([Delete(Ref("", "Namespace", "", "gone"))])
    with pytest.raises(InvalidError, match="no namespace gone"):
        await back(client, to=str(there))
    assert await timeout(client, "a") == "2s"
    for wrong, error in (("99999", NotFoundError), ("0", NotFoundError), ("soon", BadRequestError)):
        with pytest.raises(error):
            await back(client, to=wrong)
    for none in (str(ref("never")), str(ref("b"))):
        with pytest.raises(NotFoundError):
            await back(client, ref=none)
    with pytest.raises(BadRequestError):
        await back(client)
    with pytest.raises(ApiError):
        await back(client, ref="Pod/default/x", to=str(good))


async def test_a_version_that_validates_no_more_is_named_with_its_fields(store: Store, client: Client) -> None:
    bad = rule("a")
    bad["spec"]["http"][0]["timeout"] = "soon"
    await store.write([Put(bad)])  # an older lateen took it
    await store.write([Put(rule("a", "2s")), Put(rule("b", "2s"))])
    done = await back(client, to="3")
    assert done["done"] is False
    assert done["findings"][0]["path"] == "spec.http[0].timeout"
    assert await timeout(client, "b") == "2s"


async def test_a_change_meanwhile_stops_a_rollback(store: Store) -> None:
    await store.write([Put(rule("a"))])
    (version,) = await store.history(ref("a"))
    await store.write([Put(rule("a", "2s"))])
    with pytest.raises(ConflictError):
        await store.write([Restore(ref("a"), 1, version)])
    await store.write([Delete(ref("a"))])
    with pytest.raises(ConflictError):
        await store.write([Restore(ref("a"), 2, version)])


async def test_state_and_difference_at_a_revision_and_a_time(store: Store, client: Client) -> None:
    await store.write([Put(rule("a"))])
    first = store.revision
    await store.write([Put(rule("a", "2s")), Put(rule("b"))])
    then = await client.read("/lateen/v1/at", revision=str(first))
    (one,) = [each for each in then["items"] if each["kind"] == "VirtualService"]
    assert one["spec"]["http"][0]["timeout"] == "1s"
    answer = await client.read("/lateen/v1/diff", **{"from": str(first), "to": str(store.revision)})
    assert [each["ref"] for each in answer["objects"]] == [str(ref("a")), str(ref("b"))]
    assert answer["objects"][1]["before"] is None
    now = dt.datetime.now(dt.UTC).isoformat()
    assert (await client.read("/lateen/v1/at", revision=now))["revision"] == store.revision
    with pytest.raises(NotFoundError):
        await client.read("/lateen/v1/at", revision="2001-01-01T00:00:00Z")


async def test_a_difference_shows_no_secret(store: Store, client: Client) -> None:
    def secret(password: str) -> Json:
        metadata = {"name": "s", "namespace": "default"}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "data": {"password": password, "user": "dQ=="},
        }

    await store.write([Put(secret("b25l"))])
    first = store.revision
    await store.write([Put(secret("dHdv"))])
    answer = await client.read("/lateen/v1/diff", **{"from": str(first), "to": str(store.revision)})
    (pair,) = answer["objects"]
    assert pair["before"]["data"] == {"password": "*** (before)", "user": "***"}
    assert pair["after"]["data"] == {"password": "*** (after)", "user": "***"}
    assert "b25l" not in str(answer)


async def test_history_ends_by_age_but_what_is_in_force_stays(tmp_path: Path) -> None:
    clock = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store = await Store.open(tmp_path / "store.db", lambda: clock)
    for text in ("1s", "2s"):
        await store.write([Put(rule("a", text)), Put(rule("b", text))])
    await store.write([Delete(ref("b"))])
    await store.close()
    clock += dt.timedelta(days=200)
    store = await Store.open(tmp_path / "store.db", lambda: clock)
    await store.write([Put(rule("c"))])  # pruning comes with the first write
    assert [len(await store.history(ref(name))) for name in "abc"] == [1, 0, 1]
    await store.close()


async def test_conditions_keep_their_transition_time_and_other_parts(tmp_path: Path) -> None:
    clock = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store = await Store.open(tmp_path / "store.db", lambda: clock)
    await store.write([Put(rule("a"))])

    def condition(status: str, reason: str) -> Json:
        return {"type": "Programmed", "status": status, "reason": reason, "message": "", "observedGeneration": 1}

    async def said(status: str, reason: str, generation: int = 1) -> Json:
        await store.write([SetConditions(ref("a"), generation, (condition(status, reason),))])
        row = store.get(ref("a"))
        assert row is not None
        return row.decode()["status"]["conditions"][0]

    first = await said("False", "Pending")
    clock += dt.timedelta(seconds=5)
    assert (await said("False", "RefusedByProxies"))["lastTransitionTime"] == first["lastTransitionTime"]
    changed = await said("True", "Live")
    assert changed["lastTransitionTime"] == "2026-01-01T00:00:05Z"
    assert await said("False", "Pending", generation=7) == changed  # about another generation
    before = store.revision
    await said("True", "Live")
    assert store.revision == before
    await store.write([SetConditions(ref("none"), 1, ())])
    assert len(await store.history(ref("a"))) == 1
    await store.close()


async def test_history_survives_kill_9(tmp_path: Path) -> None:
    """The file as a killed process leaves it: nothing closed, the log not folded in."""
    store = await Store.open(tmp_path / "store.db")
    for number in range(5):
        await store.write([Put(rule("a", f"{number + 1}s"))], author=f"w{number}")
    await store.write([SetConditions(ref("a"), 5, ({"type": "X", "status": "True"},))])
    copy = tmp_path / "copy"
    copy.mkdir()
    for each in tmp_path.glob("store.db*"):
        (copy / each.name).write_bytes(each.read_bytes())
    database = await asyncio.to_thread(Database, copy / "store.db")
    assert [each.author for each in database.versions(ref("a"))] == ["w4", "w3", "w2", "w1", "w0"]
    (row,) = [each for each in database.rows() if each.ref == ref("a")]
    assert b'"X"' in row.status
    database.close()
    await store.close()
