"""Parts of Pods: eviction, and what older clients ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lateen.api.check import check
from lateen.apiserver.errors import ConflictError
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.apiserver.streams import ExecOptions, LogOptions, Running
from tests.unit.apiserver.api import nothing, serving

Json = dict[str, Any]
POD: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
PODS = "/api/v1/namespaces/default/pods"


class NoPods:
    """A machine on which no Pod runs: every question about one is a mistake of the test."""

    async def log(self, namespace: str, name: str, options: LogOptions) -> AsyncGenerator[bytes]:
        raise AssertionError

    async def execute(self, namespace: str, name: str, options: ExecOptions) -> Running:
        raise AssertionError

    async def attach(self, namespace: str, name: str, container: str) -> Running:
        raise AssertionError

    async def dial(self, namespace: str, name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise AssertionError


def pod() -> Json:
    return {**POD, "spec": {"nodeName": "here", "containers": [{"name": "c", "command": ["true"]}]}}


async def test_an_eviction_ends_a_pod_as_a_deletion_does(store: Store) -> None:
    async with serving(store) as client:
        made = await client.create(pod())
        eviction: Json = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        tried = {**eviction, "deleteOptions": {"dryRun": ["All"]}}
        assert (await client.post(f"{PODS}/p/eviction", tried))["status"] == "Success"
        assert "deletionTimestamp" not in (await client.get("Pod", "p"))["metadata"]
        other = {**eviction, "deleteOptions": {"preconditions": {"uid": "another"}}}
        with pytest.raises(ConflictError):
            await client.post(f"{PODS}/p/eviction", other)
        short = {**eviction, "deleteOptions": {"gracePeriodSeconds": 5}}
        assert (await client.post(f"{PODS}/p/eviction", short))["status"] == "Success"
        going = (await client.get("Pod", "p"))["metadata"]
        assert (going["uid"], going["deletionGracePeriodSeconds"]) == (made["metadata"]["uid"], 5)
        listed = (await client.read("/api/v1"))["resources"]
        (part,) = (each for each in listed if each["name"] == "pods/eviction")
        assert (part["group"], part["version"], part["kind"]) == ("policy", "v1", "Eviction")
        assert "policy" in {each["name"] for each in (await client.read("/apis"))["groups"]}


@pytest.mark.parametrize("part", ["exec", "attach", "portforward"])
async def test_spdy_of_older_clients_is_refused_in_words(store: Store, tmp_path: Path, part: str) -> None:
    """What kubectl before 1.30 sends, byte by byte."""
    await _made(store)
    socket = tmp_path / "s"
    app = application(store, check=check, analyse=nothing, ready=lambda: True, pods=NoPods())
    task = asyncio.create_task(serve(identified(app, owner), unix_listener(socket)))
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(
        f"POST {PODS}/p/{part}?command=date&container=c&stdout=true HTTP/1.1\r\nHost: api\r\n"
        "User-Agent: kubectl/v1.29.0\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n".encode()
    )
    async with asyncio.timeout(30):
        answer = (await reader.readuntil(b'"code":400}')).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert "kubectl 1.32 or newer is needed" in answer
    writer.close()
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        status = (await client.post(f"{PODS}/p/{part}")).json()
    assert (status["kind"], status["reason"], status["code"]) == ("Status", "BadRequest", 400)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _made(store: Store) -> None:
    async with serving(store) as client:
        await client.create(pod())
