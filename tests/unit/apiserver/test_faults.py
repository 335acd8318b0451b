"""Hostile and slow clients, a full disk: everybody else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.requests import Request

from lateen.api.check import check
from lateen.apiserver.database import Database
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.operations import Create
from lateen.apiserver.reading import Reader
from lateen.apiserver.resources import Resources
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store, utc_now
from lateen.apiserver.targets import parse
from tests.unit.apiserver.api import nothing
from tests.unit.apiserver.conftest import config_map

MAPS = "/api/v1/namespaces/default/configmaps"
IDLE = 1_000


@contextlib.asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Path]:
    """The API of a store on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:
        socket = Path(directory) / "api.sock"
        app = application(store, check=check, analyse=nothing, ready=lambda: True)
        task = asyncio.create_task(serve(identified(app, owner), unix_listener(socket)))
        try:
            yield socket
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def client_of(socket: Path) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None))
    return httpx.AsyncClient(transport=transport, base_url="http://lateen", timeout=60)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400),
        (
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":' + b"[" * 200 + b"]" * 200 + b"}",
            400,
        ),
        (b'{"x":"' + b"\xff" * 100 + b'"}', 400),
        (b'{"data":[' + b"{}," * 1_000_000 + b"{}]}", 422),
        (b'{"x":"' + b"x" * 5_000_000 + b'"}', 413),
        (b"null", 400),
        (b'{"metadata":[]}', 400),
        (b'{"metadata":{"name":["a"]}}', 422),
    ],
)
async def test_bodies_that_do_harm_elsewhere(store: Store, content: bytes, code: int) -> None:
    async with listening(store) as socket, client_of(socket) as client:
        answer = await client.post(MAPS, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == code, answer.text[:300]
        assert answer.json()["kind"] == "Status"
        assert (await client.post(MAPS, json=config_map("fine"))).status_code == 201


async def test_malformed_http(store: Store) -> None:
    async with listening(store) as socket:
        for sent in (b"\x16\x03\x01nonsense\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(sent)
            async with asyncio.timeout(60):
                assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()
        async with client_of(socket) as client:
            assert (await client.get("/healthz")).status_code == 200


async def test_a_thousand_idle_watches_are_not_woken_by_what_is_not_theirs(store: Store) -> None:
    watches = [store.changes(("", "Secret"), store.revision) for _ in range(IDLE)]
    tasks = [asyncio.create_task(anext(each)) for each in watches]
    async with listening(store) as socket, client_of(socket) as client:
        await asyncio.sleep(0)
        woken = 0
        deliver = store._deliver

        def counted(*arguments: object) -> None:
            nonlocal woken
            waiting = sum(map(len, store._waiting.values()))
            deliver(*arguments)  # pyright: ignore[reportArgumentType]
            woken += waiting - sum(map(len, store._waiting.values()))

        store._deliver = counted  # pyright: ignore[reportAttributeAccessIssue]
        for number in range(20):
            assert (await client.post(MAPS, json=config_map(f"m{number}"))).status_code == 201
        assert woken == 0
        assert not any(each.done() for each in tasks)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not store._waiting


async def test_a_slow_watcher_is_dropped_and_holds_nobody_up(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "few.db", changes_kept=50)
    async with listening(store) as socket, client_of(socket) as client:
        since = (await client.get(MAPS)).json()["metadata"]["resourceVersion"]
        query = {"watch": "1", "resourceVersion": since}
        async with client.stream("GET", MAPS, params=query) as slow, client.stream("GET", MAPS, params=query) as fast:
            events = fast.aiter_lines()
            big = "x" * 100_000
            for number in range(200):
                assert (await client.post(MAPS, json=config_map(f"m{number}", x=big))).status_code == 201
                async with asyncio.timeout(60):
                    assert msgspec.json.decode(await anext(events))["type"] == "ADDED"
            async with asyncio.timeout(60):
                last = {}
                async for line in slow.aiter_lines():
                    last = msgspec.json.decode(line)
            assert (last["type"], last["object"]["code"], last["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert len((await client.get(MAPS)).json()["items"]) == 200
    await store.close()


async def test_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(store) as socket, client_of(socket) as client:
        assert (await client.post(MAPS, json=config_map("before"))).status_code == 201
        write = Database.write

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(Database, "write", full)
        refused = await client.post(MAPS, json=config_map("during"))
        assert (refused.status_code, refused.json()["reason"]) == (507, "InsufficientStorage")
        assert [each["metadata"]["name"] for each in (await client.get(MAPS)).json()["items"]] == ["before"]
        monkeypatch.setattr(Database, "write", write)
        assert (await client.post(MAPS, json=config_map("after"))).status_code == 201


async def test_a_long_list_leaves_the_loop_to_others(store: Store) -> None:
    """Whatever the form: others have their turn at least after every hundred objects."""
    for start in range(0, 1_000, 500):
        await store.write([Create(config_map(f"m{number}")) for number in range(start, start + 500)])
    target = parse(Resources(), "GET", "", "v1", "namespaces/default/configmaps", watch=False)
    for accept in (b"application/json", b"application/json;as=Table;v=v1;g=meta.k8s.io"):
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"accept", accept)]}
        answer = await Reader(store, utc_now).list(Request(scope), target)
        counting.cancel()
        document = msgspec.json.decode(answer.body)
        assert len(document.get("items") or document["rows"]) == 1_000
        assert turns >= 10
