"""The server against the real Envoy: first configuration, changes, reconnects, and refusals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from lateen.engine import Graph, Transaction
from lateen.lib.ids import Ref
from lateen.xds.auth import Believing
from lateen.xds.nack import Refusal
from lateen.xds.server import XdsServer
from tests.envoy.harness import Envoy, ads_bootstrap, eventually, free_port, serving
from tests.envoy.toys import TOYS, Toy, scope_of, toy_ref


@dataclass
class Store:
    """A quarantine over the pump: what the object store does, without the store."""

    accepted: dict[Ref, Toy] = field(default_factory=dict[Ref, Toy])
    held: dict[Ref, str] = field(default_factory=dict[Ref, str])
    server: XdsServer | None = None

    def put(self, *toys: Toy) -> None:
        assert self.server is not None
        for toy in toys:
            self.held.pop(toy.ref, None)
        self.server.pump.submit(Transaction(put=[(toy.ref, toy) for toy in toys]))

    def keep(self, *toys: Toy) -> None:
        """The same, and it is what `hold` goes back to."""
        self.accepted.update({toy.ref: toy for toy in toys})
        self.put(*toys)

    def delete(self, *refs: Ref) -> None:
        assert self.server is not None
        self.server.pump.submit(Transaction(delete=refs))

    async def leave_out(self, ref: Ref, reasons: Mapping[str, str]) -> None:
        raise AssertionError("toys have no parts")

    async def hold(self, ref: Ref, reason: str) -> None:
        assert self.server is not None
        self.held[ref] = reason
        before = self.accepted.get(ref)
        self.server.pump.submit(Transaction(put=[(ref, before)]) if before else Transaction(delete=[ref]))


@dataclass
class World:
    """One server, one Envoy, one listener on `port`."""

    server: XdsServer
    store: Store
    envoy: Envoy
    port: int
    refusals: list[Refusal]

    async def get(self, host: str, path: str = "/") -> tuple[int, str]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}{path}", headers={"host": host})
            return answer.status_code, answer.text

    async def synced(self) -> None:
        revision = self.server.pump.graph.revision + 1
        await eventually(
            lambda: (
                all(each.acked_revision >= revision - 1 for each in self.server.proxies())
                and self.server.pump.graph.idle
            ),
            "every proxy has everything",
        )


def bootstrap(socket: Path, protocol: str) -> dict[str, object]:
    made = ads_bootstrap(socket)
    made["dynamic_resources"]["ads_config"]["api_type"] = {"delta": "DELTA_GRPC", "sotw": "GRPC"}[protocol]
    return made


@pytest.fixture(params=["delta", "sotw"])
async def world(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[World]:
    store, refusals = Store(), list[Refusal]()
    server = XdsServer(Graph(), TOYS, scope_of, Believing(), store, refusals.append)
    store.server = server
    async with serving(server, f"unix:{directory}/xds.sock"):
        port = free_port()
        store.keep(Toy("Port", "web", port=port), Toy("Host", "first"))
        envoy = Envoy(bootstrap(directory / "xds.sock", request.param), directory)
        try:
            await asyncio.to_thread(envoy.wait_live)
            yield World(server, store, envoy, port, refusals)
        finally:
            await asyncio.to_thread(envoy.stop)


@pytest.fixture
async def backend() -> AsyncIterator[int]:
    """The port of an HTTP server that answers `backend`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nbackend")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def reaches(world: World, host: str, expected: tuple[int, str], path: str = "/") -> None:
    end = asyncio.get_running_loop().time() + 10
    while (got := await world.get(host, path)) != expected:
        assert asyncio.get_running_loop().time() < end, f"{host}: {got}, not {expected}"
        await asyncio.sleep(0.01)


async def test_first_configuration_and_changes(world: World) -> None:
    assert await world.get("first") == (200, "first")
    world.store.put(Toy("Host", "second"))
    await reaches(world, "second", (200, "second"))
    world.store.delete(toy_ref("Host", "second"))
    await reaches(world, "second", (404, ""))
    (proxy,) = world.server.proxies()
    assert {each.short: each.last_error for each in proxy.types} == {"CDS": "", "LDS": "", "RDS": ""}
    assert world.refusals == []


async def test_a_new_cluster_is_warm_before_its_route(world: World, backend: int) -> None:
    """50 times a cluster of a new name takes over a route: no request sees a cluster that is not there."""
    other = backend
    world.store.put(Toy("Cluster", "c0", port=other), Toy("Host", "moving", cluster="c0"))
    await reaches(world, "moving", (200, "backend"))
    statuses: set[int] = set()
    done = False

    async def traffic() -> None:
        async with httpx.AsyncClient() as client:
            while not done:
                answer = await client.get(f"http://127.0.0.1:{world.port}/", headers={"host": "moving"})
                statuses.add(answer.status_code)

    load = asyncio.create_task(traffic())
    try:
        for i in range(1, 51):
            world.store.put(Toy("Cluster", f"c{i}", port=other), Toy("Host", "moving", cluster=f"c{i}"))
            world.store.delete(toy_ref("Cluster", f"c{i - 1}"))
            await asyncio.sleep(0.01)
            await eventually(lambda: world.server.proxies()[0].acked_revision >= world.server.pump.drained, "acked")
    finally:
        done = True
        await load
    assert statuses == {200}, "503 is a cluster that was not ready"
    await eventually(lambda: world.envoy.stat("cluster_manager.active_clusters") == 3, "old clusters are gone")


async def test_a_changed_cluster_warms_with_its_endpoints(world: World) -> None:
    world.store.put(Toy("Cluster", "c", port=world.port))
    await eventually(lambda: world.envoy.stat("cluster_manager.active_clusters") == 3, "cluster active")
    await eventually(lambda: world.envoy.stat("cluster_manager.warming_clusters") == 0, "warm")
    world.store.put(Toy("Cluster", "c", port=world.port, timeout_s=7))
    await eventually(
        lambda: any('"connect_timeout": "7s"' in text for text in [world.envoy.admin("/config_dump")]), "changed"
    )
    await eventually(lambda: world.envoy.stat("cluster_manager.warming_clusters") == 0, "warm", deadline_s=5)


async def test_one_bad_route_among_fifty_is_named_and_the_others_live(world: World) -> None:
    hosts = [Toy("Host", f"host-{i}") for i in range(49)]
    world.store.put(*hosts, Toy("Host", "bad", regex="("))
    await reaches(world, "host-0", (200, "host-0"))
    for toy in hosts:
        assert await world.get(toy.name) == (200, toy.name)
    assert await world.get("first") == (200, "first")
    await eventually(lambda: list(world.store.held) == [toy_ref("Host", "bad")], "the bad one is named")
    assert "missing )" in world.store.held[toy_ref("Host", "bad")]
    assert world.refusals[-1].guilty == (toy_ref("Host", "bad"),)
    world.store.put(Toy("Host", "bad"))
    await reaches(world, "bad", (200, "bad"))


async def test_two_bad_changes_go_back_to_what_was_accepted(world: World) -> None:
    world.store.keep(*[Toy("Host", f"host-{i}") for i in range(10)])
    await reaches(world, "host-9", (200, "host-9"))
    world.store.put(
        Toy("Host", "host-3", regex="["), Toy("Host", "host-8", regex="("), Toy("Host", "host-5", regex="/new")
    )
    await eventually(lambda: set(world.store.held) == {toy_ref("Host", "host-3"), toy_ref("Host", "host-8")}, "named")
    await reaches(world, "host-5", (200, "host-5"), "/new")
    assert await world.get("host-5", "/") == (404, "")
    assert await world.get("host-3") == (200, "host-3")
    assert await world.get("host-8") == (200, "host-8")


async def test_one_bad_cluster_among_fifty_without_a_name_in_envoys_words(world: World) -> None:
    """A negative timeout fails Envoy's validation of the whole message, in words that name no cluster."""
    clusters = [Toy("Cluster", f"c{i}", port=world.port) for i in range(49)]
    world.store.put(*clusters, Toy("Cluster", "spoiled", port=world.port, timeout_s=-1))
    await eventually(lambda: list(world.store.held) == [toy_ref("Cluster", "spoiled")], "the bad one is named")
    assert "spoiled" not in world.store.held[toy_ref("Cluster", "spoiled")]
    await eventually(lambda: world.envoy.stat("cluster_manager.active_clusters") == 51, "the others are live")
    world.store.put(Toy("Cluster", "spoiled", port=world.port))
    await eventually(lambda: world.envoy.stat("cluster_manager.active_clusters") == 52, "the fix is live")
