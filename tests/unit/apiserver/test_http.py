from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from lateen.api.check import check
from lateen.apiserver.applying import apply_files, delete_files
from lateen.apiserver.client import Client, Event, Listing
from lateen.apiserver.errors import (
    BadRequestError,
    ConflictError,
    ExistsError,
    GoneError,
    NotFoundError,
    UnreachableError,
)
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.lib.findings import Finding, Level, Position
from lateen.lib.ids import Ref
from tests.unit.apiserver.api import nothing, serving
from tests.unit.apiserver.conftest import config_map, ref

Json = dict[str, Any]

ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
    - route:
        - destination: {host: reviews, subset: v1}
"""


@pytest.fixture
async def client(store: Store) -> Any:
    async with serving(store) as each:
        yield each


async def test_an_object_is_made_read_changed_and_deleted(client: Client) -> None:
    made = await client.create(config_map("a", x="1"))
    assert await client.get("cm", "a") == made
    with pytest.raises(ExistsError):
        await client.create(config_map("a"))
    changed = await client.replace(made | {"data": {"x": "2"}})
    with pytest.raises(ConflictError):
        await client.replace(made | {"data": {"x": "3"}})
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(NotFoundError, match="configmaps have no status"):
        await client.replace_status(changed)
    patched = await client.patch("ConfigMap", "a", "default", {"data": {"x": None, "y": "1"}})
    assert patched["data"] == {"y": "1"}
    with pytest.raises(ConflictError):
        await client.delete("ConfigMap", "a", "default", uid="another")
    assert await client.delete("ConfigMap", "a", "default", uid=made["metadata"]["uid"]) is None
    with pytest.raises(NotFoundError):
        await client.get("ConfigMap", "a")


async def test_concurrent_patches_all_count(client: Client) -> None:
    await client.create(config_map("a"))
    patches = [client.patch("ConfigMap", "a", "default", {"data": {f"k{n}": str(n)}}) for n in range(8)]
    await asyncio.gather(*patches)
    assert len((await client.get("ConfigMap", "a"))["data"]) == 8


async def test_what_is_wrong_has_its_own_answer(client: Client) -> None:
    with pytest.raises(BadRequestError, match="htpp") as refused:
        await client.create(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "a", "namespace": "default"},
                "spec": {"hosts": ["a"], "htpp": []},
            }
        )
    assert refused.value.causes[0].path == "spec.htpp"
    with pytest.raises(NotFoundError):
        await client.create(config_map("a", "missing"))
    with pytest.raises(BadRequestError):
        await client.list("nonsense")
    with pytest.raises(NotFoundError):
        await client.read("/apis/example.com/v1/things")
    with pytest.raises(BadRequestError):
        await client.list("cm", labels="a==(")


async def test_a_request_that_is_too_large_is_refused(store: Store, tmp_path: Path) -> None:
    async with serving(store) as client:
        transport = client._http
        answer = await transport.post("/api/v1/namespaces/default/configmaps", content=b" " * (5 << 20))
        assert answer.status_code == 413
        assert answer.json()["reason"] == "RequestEntityTooLarge"
        answer = await transport.post("/api/v1/namespaces/default/configmaps", content=b"{half")
        assert answer.status_code == 400


async def test_lists_by_label_and_field(client: Client) -> None:
    for name, app in (("a", "x"), ("b", "y"), ("c", "")):
        document = config_map(name)
        if app:
            document["metadata"]["labels"] = {"app": app}
        await client.create(document)

    async def names(**selectors: str) -> list[str]:
        return [each["metadata"]["name"] for each in await client.list("cm", **selectors)]

    assert await names() == ["a", "b", "c"]
    assert await names(labels="app=x") == ["a"]
    assert await names(labels="app!=x") == ["b", "c"]
    assert await names(labels="app in (x, y),app notin (y)") == ["a"]
    assert await names(labels="!app") == ["c"]
    assert await names(labels="app") == ["a", "b"]
    assert await names(fields="metadata.name=b") == ["b"]
    assert await names(fields="metadata.name!=b,metadata.namespace=default") == ["a", "c"]


async def take(events: Any, count: int) -> list[tuple[str, str]]:
    taken: list[tuple[str, str]] = []
    async with asyncio.timeout(10):
        async for event in events:
            taken.append((event.type, event.object["metadata"]["name"]))
            if len(taken) == count:
                return taken
    return taken


async def test_a_watch_tells_what_came_to_match_and_what_no_longer_does(client: Client) -> None:
    start = (await client.listing("cm")).revision
    document = config_map("a")
    await client.create(document)
    document["metadata"]["labels"] = {"app": "x"}
    await client.replace(document)
    await client.replace(config_map("a", changed="1"))
    await client.create(config_map("b"))
    await client.delete("cm", "b")
    async with contextlib.aclosing(client.watch("cm", since=start)) as events:
        assert await take(events, 5) == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("MODIFIED", "a"),
            ("ADDED", "b"),
            ("DELETED", "b"),
        ]
    async with contextlib.aclosing(client.watch("cm", since=start, labels="app=x")) as events:
        assert await take(events, 2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_watch_from_a_revision_that_is_gone_is_refused_before_it_begins(client: Client) -> None:
    with pytest.raises(GoneError):
        await take(client.watch("cm", since="999999"), 1)


async def test_following_survives_the_loss_of_the_control_plane(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.db")
    seen: list[Listing | Event] = []
    enough = asyncio.Event()

    async def follow(client: Client) -> None:
        async for each in client.follow("ConfigMap"):
            seen.append(each)
            if isinstance(each, Event) and each.object["metadata"]["name"] == "last":
                enough.set()

    socket = tmp_path / "a.sock"
    client = Client(socket)
    follower = asyncio.create_task(follow(client))  # nobody serves yet

    def start(store: Store) -> asyncio.Task[None]:
        app = identified(application(store, check=check, analyse=nothing, ready=lambda: True), owner)
        return asyncio.create_task(serve(app, unix_listener(socket)))

    async def stop(server: asyncio.Task[None]) -> None:
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server

    server = start(store)
    async with Client(socket) as writer:
        await writer.create(config_map("a"))
    await stop(server)
    await store.close()
    store = await Store.open(tmp_path / "s.db")
    server = start(store)
    async with Client(socket) as writer, asyncio.timeout(20):
        await writer.create(config_map("b"))
        while sum(isinstance(each, Listing) for each in seen) < 2:
            await asyncio.sleep(0.02)
        await writer.create(config_map("last"))
        await enough.wait()
    known: set[str] = set()
    for each in seen:
        if isinstance(each, Listing):
            known = {item["metadata"]["name"] for item in each.items}
        else:
            known.add(each.object["metadata"]["name"])
    assert known == {"a", "b", "last"}
    follower.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await follower
    await client.close()
    await stop(server)
    await store.close()


async def test_nobody_there_is_said_with_the_socket_and_a_remedy(tmp_path: Path) -> None:
    async with Client(tmp_path / "none.sock") as client:
        assert not await client.ready()
        with pytest.raises(UnreachableError, match=r"none\.sock") as error:
            await client.list("cm")
        assert "lateen up" in error.value.remedy


async def test_the_socket_is_private(store: Store) -> None:
    async with serving(store) as client:
        assert client._socket.stat().st_mode & 0o777 == 0o600
        with pytest.raises(httpx.HTTPStatusError):
            (await client._http.get("/nothing")).raise_for_status()


# -- whole files --------------------------------------------------------------------------------------


async def test_apply_is_idempotent_and_says_what_it_did(client: Client) -> None:
    async with Client(client._socket, "me") as mine:
        first = await apply_files(mine, [("r.yaml", ROUTE)])
    assert [(each.kind, each.namespace, each.name, each.action) for each in first.objects] == [
        ("VirtualService", "default", "reviews", "created")
    ]
    again = await apply_files(client, [("r.yaml", ROUTE)])
    assert [each.action for each in again.objects] == ["unchanged"]
    changed = await apply_files(client, [("r.yaml", ROUTE.replace("v1}", "v2}"))])
    assert [each.action for each in changed.objects] == ["configured"]
    history = await client.read("/lateen/v1/history", ref="VirtualService.networking.istio.io/default/reviews")
    assert [each["action"] for each in history["versions"]] == ["update", "create"]
    assert history["versions"][1]["author"] == "me"
    gone = await delete_files(client, [("r.yaml", ROUTE)])
    assert [each.action for each in gone.objects] == ["deleted"]
    assert await client.list("vs") == []


async def test_apply_keeps_what_others_set_and_takes_back_what_it_set_itself(client: Client) -> None:
    service: Json = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"team": "x"}}}
    service["spec"] = {"ports": [{"port": 80}], "sessionAffinity": "None"}
    assert (await apply_files(client, [("a.json", json.dumps(service))])).applied
    await client.patch("svc", "a", "default", {"spec": {"clusterIP": "10.96.0.1"}})
    del service["spec"]["sessionAffinity"], service["metadata"]["labels"]
    service["spec"]["ports"] = [{"port": 81}]
    assert (await apply_files(client, [("a.json", json.dumps(service))])).applied
    got = await client.get("svc", "a")
    assert got["spec"] == {"ports": [{"port": 81}], "clusterIP": "10.96.0.1"}
    assert "labels" not in got["metadata"]


async def test_what_fails_half_way_is_taken_back(client: Client, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await apply_files(client, [("r.yaml", ROUTE)])
    before = (await client.get("vs", "reviews"))["spec"]
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n"
    hooks = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "no"},
        "webhooks": [
            {
                "name": "no.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["*"]}],
                "sideEffects": "NoneOnDryRun",
                "admissionReviewVersions": ["v1"],
                "matchConditions": [{"name": "real", "expression": "!request.dryRun"}],
            }
        ],
    }
    await client.create(hooks)
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\n"
    result = await apply_files(client, [("all.yaml", secret + service + ROUTE.replace("v1}", "v2}"))])
    assert not result.applied
    assert "no.example.com" in result.findings[0].message
    assert (await client.list("secret"), await client.list("svc")) == ([], [])
    assert (await client.get("vs", "reviews"))["spec"] == before


async def test_a_typo_is_refused_by_name_and_place_and_nothing_is_applied(client: Client, store: Store) -> None:
    revision = store.revision
    bad = ROUTE.replace("route:", "rout:").replace("name: reviews", "name: bad")
    result = await apply_files(client, [("good.yaml", ROUTE), ("dir/bad.yaml", bad)])
    assert not result.applied
    (finding,) = [each for each in result.findings if each.level is Level.ERROR]
    assert finding.position == Position("dir/bad.yaml", 8, 7)
    assert "rout" in finding.message
    assert "route" in finding.remedy
    assert store.revision == revision


async def test_everything_that_is_wrong_is_said_at_once(client: Client) -> None:
    files = [
        ("a.yaml", "kind: [unclosed"),
        ("b.yaml", "apiVersion: v1\nkind: Nonsense\nmetadata: {name: a}\n"),
        ("c.yaml", ROUTE + "---\n" + ROUTE),
        ("d.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nowhere}\n"),
        ("e.yaml", "- just\n- a list\n"),
        ("f.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yes}\n"),
    ]
    result = await apply_files(client, files)
    wrong = {each.position.file for each in result.findings if each.level is Level.ERROR and each.position}
    assert not result.applied
    assert wrong == {"a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "f.yaml"}


async def test_a_namespace_may_come_in_the_same_call_whatever_the_order(client: Client) -> None:
    files = [
        ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n"),
        ("b.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"),
    ]
    assert (await apply_files(client, files, dry_run=True)).applied
    assert await client.list("cm") == []
    assert (await apply_files(client, files)).applied
    assert await client.get("cm", "a", "shop")
    other = await apply_files(
        client, [("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")], namespace="shop"
    )
    assert other.objects[0].namespace == "shop"


async def test_what_the_mesh_says_has_the_place_in_the_file(store: Store) -> None:
    async def analyse(refs: Sequence[Ref]) -> Sequence[Finding]:
        message = "host reviews is not known"
        return [
            Finding(
                code="IST0101",
                level=Level.WARNING,
                message=message,
                ref=refs[0],
                path="spec.http[0].route[0].destination.host",
            )
        ]

    async with serving(store, analyse) as client:
        result = await apply_files(client, [("r.yaml", ROUTE)])
    assert result.applied
    assert result.findings[0].position == Position("r.yaml", 9, 31)


async def test_findings_are_shown_with_the_object_and_never_written_back(client: Client) -> None:
    service = {"spec": {"clusterIP": "None"}, "metadata": {"name": "a", "namespace": "default"}}
    await client.create({"apiVersion": "v1", "kind": "Service", **service})
    found = [Finding(code="X1", level=Level.WARNING, message="hm", ref=ref("a", "Service"))]
    await client.set_findings("svc", "a", "default", "node", found)
    got = await client.get("svc", "a")
    assert [each["code"] for each in got["status"]["findings"]] == ["X1"]
    await client.replace_status(got)
    await client.set_findings("svc", "a", "default", "node", [])
    assert "status" not in await client.get("svc", "a")
