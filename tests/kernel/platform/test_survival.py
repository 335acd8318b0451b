"""Pods outlive spawner and node; whatever is killed, the rest goes on or everything can be ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lateen.node.fabric_sockets import fabric_sockets, same
from lateen.platform import census
from lateen.platform.down import down
from lateen.platform.pod import ServiceVip
from lateen.platform.sandbox import Platform, PodGone
from tests.kernel.platform.harness import ROOT, SETTINGS, Mesh, idle, layout, running, sidecar, web


async def test_spawner_killed(mesh: Mesh) -> None:
    server = await mesh.pod("server", web())
    service = ServiceVip(vip="10.96.0.1", port=80, endpoints=((server.ip, 8080),))
    await mesh.platform.services((service,))
    sockets = fabric_sockets(mesh.layout.run)
    os.kill(mesh.spawner(), signal.SIGKILL)
    orphaned = fabric_sockets(mesh.layout.run)
    client = await mesh.pod("client", idle())
    renewed = fabric_sockets(mesh.layout.run)
    assert same(sockets, orphaned)
    assert same(sockets, renewed)
    for found in (sockets, orphaned, renewed):
        for one in found.all:
            one.close()
    assert await mesh.fetch(client.uid, "http://10.96.0.1/") == [f"200 server {client.ip}"]
    second = ServiceVip(vip="10.96.0.2", port=80, endpoints=((server.ip, 8080),))
    await mesh.platform.services((second,))
    assert await mesh.fetch(client.uid, "http://10.96.0.2/") == [f"200 server {client.ip}"]
    assert (await mesh.fetch(client.uid, "http://10.96.0.1/"))[0].endswith("Connection refused")
    assert mesh.platform.pods()[server.uid].pid == server.pid
    assert mesh.platform.pods()[server.uid].containers[0].restarts == 0


async def test_a_new_node_adopts_running_pods_untouched(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    await mesh.platform.close()
    os.kill(mesh.spawner(), signal.SIGKILL)
    assert server.proxy is not None
    os.kill(server.proxy.pid, signal.SIGKILL)  # while nobody looks
    second = Platform(mesh.layout, SETTINGS)
    await second.start()
    adopted = Mesh(mesh.layout, second)
    try:
        state = await adopted.until(server.uid, lambda s: s.ready and bool(s.proxy and s.proxy.restarts == 1))
        assert (state.pid, state.ip, state.containers[0].pid) == (server.pid, server.ip, server.containers[0].pid)
        assert state.containers[0].restarts == 0
        assert second.spec(server.uid).name == "server"
        client = await adopted.pod("client", idle())
        assert await adopted.fetch(client.uid, f"http://{server.ip}:8080/") == ["200 server 127.0.0.6"]
    finally:
        await second.close()


async def test_application_killed_is_started_again_and_only_it(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    client = await mesh.pod("client", idle())
    os.kill(server.containers[0].pid, signal.SIGKILL)
    again = await mesh.until(server.uid, lambda s: s.ready and s.containers[0].restarts == 1)
    last = again.containers[0].last
    assert last is not None
    assert (last.exit_code, last.reason) == (137, "Error")
    assert again.proxy is not None
    assert server.proxy is not None
    assert (again.pid, again.proxy.pid) == (server.pid, server.proxy.pid)
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == ["200 server 127.0.0.6"]


async def test_init_killed_takes_its_pod_and_nothing_else(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    client = await mesh.pod("client", idle())
    assert server.proxy is not None
    os.kill(server.pid, signal.SIGKILL)

    async def gone() -> None:
        async for event in mesh.platform.events():
            if event == PodGone(server.uid):
                return

    await asyncio.wait_for(gone(), 5)
    for pid in (server.proxy.pid, server.containers[0].pid):
        assert not Path(f"/proc/{pid}").exists()
    began = time.monotonic()
    assert (await mesh.fetch(client.uid, f"http://{server.ip}:8080/"))[0].endswith("Connection refused")
    assert time.monotonic() - began < 2
    again = await mesh.pod("server", web(), **sidecar(mesh, "server"), ip=server.ip)
    assert again.ip == server.ip
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == ["200 server 127.0.0.6"]


@pytest.mark.parametrize("lose_files", [False, True])
async def test_down_after_everything_was_killed(lose_files: bool) -> None:
    where = layout()
    async with running(where) as mesh:
        server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
        await mesh.platform.close()
        os.kill(mesh.spawner(), signal.SIGKILL)
        if lose_files:
            shutil.rmtree(where.run)
        ended = await down(where, grace_s=1)
        assert ended.pods == (0 if lose_files else 1)
        assert census.processes(str(where.state)) == []
        assert server.proxy is not None
        assert not Path(f"/proc/{server.proxy.pid}").exists()
        assert (await down(where)).killed == ()


async def test_nothing_is_put_into_the_hosts_network(mesh: Mesh) -> None:
    def links() -> str:
        return Path("/proc/net/dev").read_text().count("\n").__repr__() + Path("/proc/net/route").read_text()

    def rules() -> str:
        if not ROOT or not (nft := shutil.which("nft", path="/usr/sbin:/usr/bin")):
            return ""
        return subprocess.run((nft, "list", "ruleset"), capture_output=True, text=True, check=True).stdout

    before = links(), rules(), Path("/proc/self/mountinfo").read_text()
    await mesh.pod("server", web(), **sidecar(mesh, "server"))
    assert (links(), rules(), Path("/proc/self/mountinfo").read_text()) == before
