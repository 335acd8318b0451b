"""Kubernetes' API conventions, the same on lateen's API and on a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
DEADLINE_S = 60


def config_map(name: str, labels: Json | None = None, **data: str) -> Json:
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(name: str, replicas: int = 1) -> Json:
    container = {"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }


def maps(space: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{space}/configmaps" + (f"/{name}" if name else "")


def deployments(space: str, name: str = "") -> str:
    return f"/apis/apps/v1/namespaces/{space}/deployments" + (f"/{name}" if name else "")


async def made(api: httpx.AsyncClient, path: str, body: Json) -> Json:
    answer = await api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(answer: httpx.Response, code: int, reason: str) -> Json:
    status = answer.json()
    assert (answer.status_code, status["kind"], status["status"]) == (code, "Status", "Failure"), answer.text
    assert (status["reason"], status["code"]) == (reason, code)
    return status


async def until(check: Callable[[], Any], what: str = "") -> None:
    """Returns when the coroutine that `check` makes is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not await check():
            await asyncio.sleep(0.05)


# -- one object ----------------------------------------------------------------------------------------


async def test_create_read_replace_delete(api: httpx.AsyncClient, space: str) -> None:
    first = await made(api, maps(space), config_map("a", x="1"))
    assert first["metadata"]["namespace"] == space
    assert first["metadata"]["uid"]
    assert (await api.get(maps(space, "a"))).json()["data"] == {"x": "1"}
    refused(await api.post(maps(space), json=config_map("a")), 409, "AlreadyExists")

    second = (await api.put(maps(space, "a"), json={**first, "data": {"x": "2"}})).json()
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    refused(await api.put(maps(space, "a"), json={**first, "data": {"x": "3"}}), 409, "Conflict")

    gone = (await api.delete(maps(space, "a"))).json()
    assert (gone["status"], gone["details"]["uid"]) == ("Success", first["metadata"]["uid"])
    missing = refused(await api.get(maps(space, "a")), 404, "NotFound")
    assert missing["message"] == 'configmaps "a" not found'
    assert (missing["details"]["name"], missing["details"]["kind"]) == ("a", "configmaps")


async def test_generation_counts_what_is_asked_for(api: httpx.AsyncClient, space: str) -> None:
    await made(api, deployments(space), deployment("web"))
    labelled = (
        await api.patch(deployments(space, "web"), json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    ).json()
    assert labelled["metadata"]["generation"] == 1
    scaled = (await api.patch(deployments(space, "web"), json={"spec": {"replicas": 2}}, headers=MERGE)).json()
    assert scaled["metadata"]["generation"] == 2
    same = (await api.patch(deployments(space, "web"), json={"spec": {"replicas": 2}}, headers=MERGE)).json()
    assert same["metadata"]["generation"] == 2


async def test_a_name_can_be_generated(api: httpx.AsyncClient, space: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-"}}
    names = {(await made(api, maps(space), body))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") and len(name) == 10 for name in names)


async def test_a_dry_run_keeps_nothing(api: httpx.AsyncClient, space: str) -> None:
    answer = await api.post(maps(space), json=config_map("a", x="1"), params={"dryRun": "All"})
    assert answer.status_code == 201
    refused(await api.get(maps(space, "a")), 404, "NotFound")
    await made(api, maps(space), config_map("a", x="1"))
    tried = await api.patch(maps(space, "a"), json={"data": {"x": "2"}}, headers=MERGE, params={"dryRun": "All"})
    assert tried.json()["data"] == {"x": "2"}
    assert (await api.delete(maps(space, "a"), params={"dryRun": "All"})).status_code == 200
    assert (await api.get(maps(space, "a"))).json()["data"] == {"x": "1"}


async def test_preconditions_of_a_deletion(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a"))
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "another"}}
    refused(await api.request("DELETE", maps(space, "a"), json=options), 409, "Conflict")
    assert (await api.get(maps(space, "a"))).status_code == 200


# -- patches -------------------------------------------------------------------------------------------


async def test_merge_patch(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a", x="1", y="2"))
    patched = await api.patch(maps(space, "a"), json={"data": {"x": None, "z": "3"}}, headers=MERGE)
    assert patched.json()["data"] == {"y": "2", "z": "3"}


async def test_json_patch(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a", x="1"))
    operations: list[Json] = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "2"},
        {"op": "copy", "from": "/data/x", "path": "/data/y"},
        {"op": "add", "path": "/metadata/labels", "value": {"a~b/c": "d"}},
    ]
    refused(await api.patch(maps(space, "a"), json=operations, headers=JSON_PATCH), 422, "Invalid")
    operations[-1]["value"] = {"a": "d"}
    patched = (await api.patch(maps(space, "a"), json=operations, headers=JSON_PATCH)).json()
    assert (patched["data"], patched["metadata"]["labels"]) == ({"x": "2", "y": "2"}, {"a": "d"})
    failing = [{"op": "test", "path": "/data/x", "value": "9"}]
    refused(await api.patch(maps(space, "a"), json=failing, headers=JSON_PATCH), 422, "Invalid")


async def test_strategic_merge_patch_merges_lists_by_their_keys(api: httpx.AsyncClient, space: str) -> None:
    await made(api, deployments(space), deployment("web"))
    containers: list[Json] = [{"name": "web", "env": [{"name": "A", "value": "1"}]}, {"name": "two", "image": "two:1"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    patched = (await api.patch(deployments(space, "web"), json=patch, headers=STRATEGIC)).json()
    found = {each["name"]: each for each in patched["spec"]["template"]["spec"]["containers"]}
    assert set(found) == {"web", "two"}
    assert (found["web"]["image"], found["web"]["env"]) == ("web:1", [{"name": "A", "value": "1"}])
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "two", "$patch": "delete"}]}}}}
    patched = (await api.patch(deployments(space, "web"), json=patch, headers=STRATEGIC)).json()
    assert [each["name"] for each in patched["spec"]["template"]["spec"]["containers"]] == ["web"]


async def test_an_unknown_kind_of_patch(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a"))
    answer = await api.patch(maps(space, "a"), content=b"{}", headers={"content-type": "text/plain"})
    refused(answer, 415, "UnsupportedMediaType")


async def test_every_one_of_concurrent_patches_counts(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a"))
    patches = [api.patch(maps(space, "a"), json={"data": {f"k{n}": "v"}}, headers=MERGE) for n in range(10)]
    assert {answer.status_code for answer in await asyncio.gather(*patches)} == {200}
    assert len((await api.get(maps(space, "a"))).json()["data"]) == 10


# -- server-side apply ---------------------------------------------------------------------------------


async def apply(api: httpx.AsyncClient, path: str, body: Json, manager: str, *, force: bool = False) -> httpx.Response:
    query = {"fieldManager": manager, **({"force": "true"} if force else {})}
    return await api.patch(path, content=json.dumps(body), headers=APPLY, params=query)


def owners(document: Json) -> dict[str, Json]:
    return {each["manager"]: each["fieldsV1"] for each in document["metadata"]["managedFields"]}


async def test_apply_makes_and_merges(api: httpx.AsyncClient, space: str) -> None:
    first = await apply(api, maps(space, "a"), config_map("a", x="1"), "one")
    assert first.status_code == 201
    second = await apply(api, maps(space, "a"), config_map("a", y="2"), "two")
    assert (second.status_code, second.json()["data"]) == (200, {"x": "1", "y": "2"})
    fields = owners(second.json())
    assert (fields["one"], fields["two"]) == ({"f:data": {"f:x": {}}}, {"f:data": {"f:y": {}}})


async def test_what_an_apply_no_longer_says_goes(api: httpx.AsyncClient, space: str) -> None:
    await apply(api, maps(space, "a"), config_map("a", x="1", y="2"), "one")
    await apply(api, maps(space, "a"), config_map("a", y="2"), "two")
    third = (await apply(api, maps(space, "a"), config_map("a", z="3"), "one")).json()
    assert third["data"] == {"y": "2", "z": "3"}


async def test_conflicts_and_force(api: httpx.AsyncClient, space: str) -> None:
    await apply(api, maps(space, "a"), config_map("a", x="1"), "one")
    status = refused(await apply(api, maps(space, "a"), config_map("a", x="2"), "two"), 409, "Conflict")
    cause = status["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.x")
    assert '"one"' in cause["message"]
    same = await apply(api, maps(space, "a"), config_map("a", x="1"), "two")
    assert same.status_code == 200, "the same value is no conflict"
    forced = (await apply(api, maps(space, "a"), config_map("a", x="2"), "two", force=True)).json()
    assert forced["data"] == {"x": "2"}
    assert "one" not in owners(forced)


async def test_an_update_takes_fields_over(api: httpx.AsyncClient, space: str) -> None:
    await apply(api, maps(space, "a"), config_map("a", x="1", y="1"), "one")
    query = {"fieldManager": "editor"}
    await api.patch(maps(space, "a"), json={"data": {"x": "2"}}, headers=MERGE, params=query)
    fields = owners((await api.get(maps(space, "a"))).json())
    assert fields["one"] == {"f:data": {"f:y": {}}}
    assert fields["editor"] == {"f:data": {"f:x": {}}}


async def test_lists_with_keys_have_an_owner_for_each_item(api: httpx.AsyncClient, space: str) -> None:
    await apply(api, deployments(space, "web"), deployment("web"), "one")
    added = deployment("web")
    del added["spec"]["replicas"], added["spec"]["selector"], added["spec"]["template"]["metadata"]
    added["spec"]["template"]["spec"]["containers"] = [{"name": "side", "image": "side:1"}]
    both = (await apply(api, deployments(space, "web"), added, "two")).json()
    assert {each["name"] for each in both["spec"]["template"]["spec"]["containers"]} == {"web", "side"}
    nothing: Json = {key: added[key] for key in ("apiVersion", "kind", "metadata")}
    one = (await apply(api, deployments(space, "web"), nothing, "two")).json()
    assert [each["name"] for each in one["spec"]["template"]["spec"]["containers"]] == ["web"]


async def test_an_apply_needs_a_manager(api: httpx.AsyncClient, space: str) -> None:
    answer = await api.patch(maps(space, "a"), content=json.dumps(config_map("a")), headers=APPLY)
    assert answer.status_code in (400, 422)
    assert "fieldManager" in answer.json()["message"]


# -- lists ---------------------------------------------------------------------------------------------


async def names(api: httpx.AsyncClient, path: str, **query: str) -> list[str]:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [each["metadata"]["name"] for each in answer.json()["items"] if each["metadata"]["name"] != CA]


CA = "kube-root-ca.crt"
"""A ConfigMap that a cluster puts into every namespace."""


async def test_selectors(api: httpx.AsyncClient, space: str) -> None:
    for name, labels in (("a", {"app": "x", "tier": "1"}), ("b", {"app": "y"}), ("c", {})):
        await made(api, maps(space), config_map(name, labels))
    assert await names(api, maps(space)) == ["a", "b", "c"]
    assert await names(api, maps(space), labelSelector="app=x") == ["a"]
    assert await names(api, maps(space), labelSelector="app in (x,y),tier") == ["a"]
    assert await names(api, maps(space), labelSelector="!app") == ["c"]
    assert await names(api, maps(space), labelSelector="app!=x") == ["b", "c"]
    assert await names(api, maps(space), fieldSelector="metadata.name=b") == ["b"]
    refused(await api.get(maps(space), params={"labelSelector": "a==("}), 400, "BadRequest")
    refused(await api.get(maps(space), params={"fieldSelector": "data.x=1"}), 400, "BadRequest")


async def test_pages_are_of_one_revision(api: httpx.AsyncClient, space: str) -> None:
    for name in "abcde":
        await made(api, maps(space), config_map(name, {"paged": "yes"}))
    query = {"limit": "2", "labelSelector": "paged=yes"}
    first = (await api.get(maps(space), params=query)).json()
    assert [each["metadata"]["name"] for each in first["items"]] == ["a", "b"]
    await made(api, maps(space), config_map("cc", {"paged": "yes"}))
    found = first["items"]
    token = first["metadata"]["continue"]
    while token:
        page = (await api.get(maps(space), params={**query, "continue": token})).json()
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        found += page["items"]
        token = page["metadata"].get("continue")
    assert [each["metadata"]["name"] for each in found] == list("abcde")
    refused(await api.get(maps(space), params={"limit": "2", "continue": "nonsense"}), 400, "BadRequest")


async def test_a_collection_is_deleted_by_selector(api: httpx.AsyncClient, space: str) -> None:
    for name, labels in (("a", {"app": "x"}), ("b", {"app": "y"}), ("c", {"app": "x"})):
        await made(api, maps(space), config_map(name, labels))
    assert (await api.delete(maps(space), params={"labelSelector": "app=x"})).status_code == 200
    assert await names(api, maps(space)) == ["b"]


async def test_tables(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a", x="1", y="2"))
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = (await api.get(maps(space, "a"), headers=accept)).json()
    assert (table["kind"], [each["name"] for each in table["columnDefinitions"]]) == ("Table", ["Name", "Data", "Age"])
    cells = table["rows"][0]["cells"]
    assert cells[:2] == ["a", 2]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    metadata = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    assert "data" not in (await api.get(maps(space, "a"), headers=metadata)).json()
    refused(await api.get(maps(space, "a"), headers={"accept": "text/html"}), 406, "NotAcceptable")


# -- watches -------------------------------------------------------------------------------------------


class Watch:
    """The events of one watch, as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next events; those of a cluster's own ConfigMap are left out."""
        found: list[tuple[str, str]] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(found) < count:
                event = json.loads(await anext(self._lines))
                name = event["object"].get("metadata", {}).get("name", "")
                if name != CA:
                    found.append((event["type"], name))
        return found


async def test_a_watch_follows_a_list(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a", {"app": "x"}))
    since = (await api.get(maps(space))).json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": since}
    async with api.stream("GET", maps(space), params=query) as answer:
        watch = Watch(answer)
        await made(api, maps(space), config_map("b"))
        await api.patch(maps(space, "a"), json={"data": {"x": "1"}}, headers=MERGE)
        await api.delete(maps(space, "a"))
        assert await watch.next(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_with_a_selector_sees_objects_come_and_go(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a", {"app": "x"}))
    since = (await api.get(maps(space))).json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": since, "labelSelector": "app=x"}
    async with api.stream("GET", maps(space), params=query) as answer:
        watch = Watch(answer)
        await api.patch(maps(space, "a"), json={"metadata": {"labels": {"app": "y"}}}, headers=MERGE)
        await api.patch(maps(space, "a"), json={"metadata": {"labels": {"app": "x"}}}, headers=MERGE)
        assert await watch.next(2) == [("DELETED", "a"), ("ADDED", "a")]


async def test_initial_events_end_with_a_bookmark(api: httpx.AsyncClient, space: str) -> None:
    await made(api, maps(space), config_map("a"))
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with api.stream("GET", maps(space), params=query) as answer, asyncio.timeout(DEADLINE_S):
        seen: list[str] = []
        async for line in answer.aiter_lines():
            event = json.loads(line)
            seen.append(event["type"])
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
                break
        assert set(seen[:-1]) == {"ADDED"}


# -- parts ---------------------------------------------------------------------------------------------


async def test_status_and_the_rest_are_apart(api: httpx.AsyncClient, space: str) -> None:
    first = await made(api, deployments(space), {**deployment("web"), "status": {"replicas": 7}})
    assert first.get("status", {}).get("replicas") != 7
    body = {**first, "spec": {**first["spec"], "replicas": 9}, "status": {"observedGeneration": 1}}
    query = f"{deployments(space, 'web')}/status"
    second = (await api.put(query, json={**body, "metadata": {"name": "web", "namespace": space}})).json()
    assert second["status"]["observedGeneration"] == 1
    assert second["spec"]["replicas"] == 1
    assert second["metadata"]["generation"] == 1


async def test_scale(api: httpx.AsyncClient, space: str) -> None:
    await made(api, deployments(space), deployment("web"))
    path = f"{deployments(space, 'web')}/scale"
    scale = (await api.get(path)).json()
    assert (scale["kind"], scale["apiVersion"], scale["spec"]["replicas"]) == ("Scale", "autoscaling/v1", 1)
    assert scale["status"]["selector"] == "app=web"
    del scale["metadata"]["resourceVersion"]  # a controller may write the status at this moment
    assert (await api.put(path, json={**scale, "spec": {"replicas": 3}})).json()["spec"]["replicas"] == 3
    assert (await api.patch(path, json={"spec": {"replicas": 2}}, headers=MERGE)).json()["spec"]["replicas"] == 2
    assert (await api.get(deployments(space, "web"))).json()["spec"]["replicas"] == 2


# -- ends ----------------------------------------------------------------------------------------------


async def test_finalizers(api: httpx.AsyncClient, space: str) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await made(api, maps(space), body)
    left = (await api.delete(maps(space, "a"))).json()
    assert left["metadata"]["deletionTimestamp"]
    assert (await api.get(maps(space, "a"))).status_code == 200
    freed = await api.patch(maps(space, "a"), json={"metadata": {"finalizers": None}}, headers=MERGE)
    assert freed.status_code == 200
    refused(await api.get(maps(space, "a")), 404, "NotFound")


def owned(name: str, owner: Json, *, blocks: bool = True) -> Json:
    body = config_map(name)
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks}
    body["metadata"]["ownerReferences"] = [reference]
    return body


async def test_what_an_object_owns_goes_with_it(api: httpx.AsyncClient, space: str) -> None:
    root = await made(api, maps(space), config_map("root"))
    child = await made(api, maps(space), owned("child", root))
    await made(api, maps(space), owned("grandchild", child))
    await api.delete(maps(space, "root"), params={"propagationPolicy": "Background"})

    async def nothing_left() -> bool:
        return not await names(api, maps(space))

    await until(nothing_left)


async def test_in_the_foreground_owners_go_last(api: httpx.AsyncClient, space: str) -> None:
    root = await made(api, maps(space), config_map("root"))
    held = owned("child", root)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await made(api, maps(space), held)
    await api.delete(maps(space, "root"), params={"propagationPolicy": "Foreground"})
    there = (await api.get(maps(space, "root"))).json()
    assert "foregroundDeletion" in there["metadata"]["finalizers"]

    async def child_is_ending() -> bool:
        return "deletionTimestamp" in (await api.get(maps(space, "child"))).json()["metadata"]

    await until(child_is_ending)
    await api.patch(maps(space, "child"), json={"metadata": {"finalizers": None}}, headers=MERGE)

    async def nothing_left() -> bool:
        return not await names(api, maps(space))

    await until(nothing_left)


async def test_orphans_stay(api: httpx.AsyncClient, space: str) -> None:
    root = await made(api, maps(space), config_map("root"))
    await made(api, maps(space), owned("child", root))
    await api.delete(maps(space, "root"), params={"propagationPolicy": "Orphan"})

    async def only_the_child() -> bool:
        return await names(api, maps(space)) == ["child"]

    await until(only_the_child)
    assert "ownerReferences" not in (await api.get(maps(space, "child"))).json()["metadata"]


async def test_a_namespace_takes_along_what_is_in_it(api: httpx.AsyncClient) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "gone-"}}
    name = (await made(api, "/api/v1/namespaces", space))["metadata"]["name"]
    await made(api, maps(name), config_map("a"))
    await api.delete(f"/api/v1/namespaces/{name}")

    async def gone() -> bool:
        return (await api.get(f"/api/v1/namespaces/{name}")).status_code == 404

    await until(gone)
    refused(await api.post(maps(name), json=config_map("a")), 404, "NotFound")


# -- what is wrong -------------------------------------------------------------------------------------


async def test_refusals(api: httpx.AsyncClient, space: str) -> None:
    bad = deployment("web")
    bad["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    status = refused(await api.post(deployments(space), json=bad), 422, "Invalid")
    assert status["details"]["causes"]
    assert status["details"]["kind"] in ("Deployment", "deployments")
    strict = deployment("web")
    strict["spec"]["replicsa"] = 2
    answer = await api.post(deployments(space), json=strict, params={"fieldValidation": "Strict"})
    assert 'unknown field "spec.replicsa"' in refused(answer, 400, "BadRequest")["message"]
    warned = await api.post(deployments(space), json=strict, params={"fieldValidation": "Warn"})
    assert warned.status_code == 201
    assert any('unknown field "spec.replicsa"' in text.replace("\\", "") for text in warned.headers.get_list("warning"))
    assert "replicsa" not in warned.json()["spec"]
    assert (await api.get("/apis/example.com/v1/things")).status_code == 404
    refused(
        await api.post(maps(space), content=b"{half", headers={"content-type": "application/json"}), 400, "BadRequest"
    )
    refused(await api.post(maps(space), json=config_map("Not A Name")), 422, "Invalid")
    assert (await api.post(maps(space), content=b'{"x":"' + b"x" * 5_000_000 + b'"}')).status_code == 413
    wrong = await api.post(maps(space), json={**config_map("a"), "kind": "Secret"})
    assert wrong.status_code == 400


async def test_immutable_fields(api: httpx.AsyncClient, space: str) -> None:
    await made(api, deployments(space), deployment("web"))
    patch = {
        "spec": {"selector": {"matchLabels": {"app": "other"}}, "template": {"metadata": {"labels": {"app": "other"}}}}
    }
    status = refused(await api.patch(deployments(space, "web"), json=patch, headers=MERGE), 422, "Invalid")
    assert "field is immutable" in status["message"]


# -- discovery -----------------------------------------------------------------------------------------


async def test_discovery(api: httpx.AsyncClient) -> None:
    groups = {each["name"] for each in (await api.get("/apis")).json()["groups"]}
    assert {"apps", "batch", "rbac.authorization.k8s.io", "apiextensions.k8s.io"} <= groups
    listed = {each["name"]: each for each in (await api.get("/apis/apps/v1")).json()["resources"]}
    assert listed["deployments"]["shortNames"] == ["deploy"]
    assert {"deployments/status", "deployments/scale"} <= set(listed)
    accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    whole = (await api.get("/apis", headers=accept)).json()
    assert whole["kind"] == "APIGroupDiscoveryList"
    assert "apps" in {each["metadata"]["name"] for each in whole["items"]}
    paths = (await api.get("/openapi/v3")).json()["paths"]
    spec = (await api.get(paths["apis/apps/v1"]["serverRelativeURL"])).json()
    kinds = [each.get("x-kubernetes-group-version-kind") for each in spec["components"]["schemas"].values()]
    assert any({"group": "apps", "version": "v1", "kind": "Deployment"} in (each or ()) for each in kinds)


@pytest.mark.parametrize("verb", ["list", "create"])
async def test_an_administrator_may_do_everything(api: httpx.AsyncClient, verb: str) -> None:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": verb, "resource": "secrets"}},
    }
    answer = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=body)
    assert answer.json()["status"]["allowed"]
