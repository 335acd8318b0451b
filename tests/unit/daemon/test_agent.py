"""The agent process with a real API: names follow the objects and outlive control plane, agent and network."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import pytest

from lateen.api.check import check
from lateen.apiserver.client import Client
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.lib.layout import Layout
from tests.envoy.harness import short_directory
from tests.envoy.identities import agent_process
from tests.unit.apiserver.api import nothing

Json = dict[str, Any]


class Network:
    """The DNS sockets of a Pods' network, handed out as the spawner hands them out; they can be replaced."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.port = 0

    def renew(self) -> None:
        """Another network: other sockets."""
        self.close()
        tcp, egress = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        for_proxies = socket.create_server(("127.0.0.1", 0))
        also = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        also.bind(for_proxies.getsockname())
        self.sockets = [udp, tcp, egress, also, for_proxies]

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.sockets = []

    async def serve(self, path: Path) -> None:
        """Answers each request with the descriptors; until cancelled."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            while True:
                connection, _ = await loop.sock_accept(listener)
                with connection:
                    await loop.sock_recv(connection, 4096)
                    if self.sockets:
                        socket.send_fds(
                            connection, [b'{"id": 1, "ok": null}\n'], [each.fileno() for each in self.sockets]
                        )

    async def ask(self, name: str) -> str:
        """The address of a name, or the answer's code; nothing when nobody answers."""
        query = dns.message.make_query(name, "A")
        try:
            answer = await dns.asyncquery.udp(query, "127.0.0.1", timeout=0.5, port=self.port)
        except dns.exception.Timeout:
            return ""
        found = [item.to_text() for each in answer.answer for item in each.processing_order()]
        return found[0] if found else dns.rcode.to_text(answer.rcode())

    async def becomes(self, name: str, expected: str) -> None:
        """Returns when a name's answer is that."""
        answer = ""
        try:
            async with asyncio.timeout(30):
                while (answer := await self.ask(name)) != expected:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{name} is {answer!r}, not {expected!r}")


def service(name: str, address: str) -> Json:
    metadata = {"name": name, "namespace": "default"}
    ports = [{"port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": address, "ports": ports}}


@contextlib.asynccontextmanager
async def running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def api(layout: Layout) -> AsyncIterator[Client]:
    """A control plane that only has objects."""
    store = await Store.open(layout.store)
    app = identified(application(store, check=check, analyse=nothing, ready=lambda: True), owner)
    async with running(lambda: serve(app, unix_listener(layout.api_socket))), Client(layout.api_socket) as client:
        yield client
    await store.close()


@pytest.fixture
def layout() -> Iterator[Layout]:
    directory = short_directory()
    made = Layout("test", directory / "state", directory / "run")
    for each in (made.state, made.run):
        each.mkdir(mode=0o700)
    yield made
    shutil.rmtree(directory)


async def test_names_follow_the_objects_and_outlive_everybody(layout: Layout) -> None:
    network = Network()
    name = "reviews.default.svc.cluster.local"
    async with running(lambda: network.serve(layout.run / "platform.sock")), agent_process(layout) as agent:
        network.renew()
        await network.becomes(name, "SERVFAIL")  # nobody knows yet: ask again
        async with api(layout) as client:
            await network.becomes(name, "NXDOMAIN")
            await client.create(service("reviews", "10.96.0.5"))
            await network.becomes(name, "10.96.0.5")
            await client.delete("Service", "reviews", "default")
            await network.becomes(name, "NXDOMAIN")
            await client.create(service("reviews", "10.96.0.6"))
            await network.becomes(name, "10.96.0.6")
            kept = layout.run / "names.json"
            async with asyncio.timeout(30):
                while not kept.exists() or b"10.96.0.6" not in kept.read_bytes():
                    await asyncio.sleep(0.05)
        # The control plane is gone, then the agent too: a new agent knows what the last one knew.
        assert await network.ask(name) == "10.96.0.6"
        await agent.end()
        assert await network.ask(name) == ""
        await agent.start()
        await network.becomes(name, "10.96.0.6")
        assert await network.ask("nobody.default.svc.cluster.local") == "SERVFAIL"
        # Another network of the same mesh: the names move to its sockets.
        network.renew()
        await network.becomes(name, "10.96.0.6")
        async with api(layout):
            await network.becomes("nobody.default.svc.cluster.local", "NXDOMAIN")
            assert await network.ask(name) == "10.96.0.6"
    network.close()
