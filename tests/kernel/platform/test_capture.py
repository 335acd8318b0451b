"""A sidecar captures what enters and leaves its Pod, is first to start, last to stop, and back at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from lateen.platform.pod import PodState, Redirect, ServiceVip
from tests.kernel.platform.harness import Mesh, idle, program, sidecar, web

VIP = "10.96.0.10"


def vip(*states: PodState) -> tuple[ServiceVip, ...]:
    return (ServiceVip(vip=VIP, port=80, endpoints=tuple((state.ip, 8080) for state in states)),)


async def test_both_ways_through_envoy(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    client = await mesh.pod("client", idle(), **sidecar(mesh, "client"))
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == ["200 server 127.0.0.6"]
    assert f"out {client.ip}:" in mesh.log("client", "istio-proxy")
    assert f"{server.ip}:8080" in mesh.log("client", "istio-proxy")
    assert f"in {client.ip}:" in mesh.log("server", "istio-proxy")


async def test_a_service_of_which_the_pod_itself_is_an_endpoint(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    await mesh.platform.services(vip(server))
    assert await mesh.fetch(server.uid, f"http://{VIP}/") == [f"200 server {'127.0.0.6'}"]


async def test_own_loopback_and_excluded_ports_are_left_alone(mesh: Mesh) -> None:
    pod = sidecar(mesh, "server") | {"redirect": Redirect(exclude_inbound_ports=(8080,))}
    server = await mesh.pod("server", web(), **pod)
    out = sidecar(mesh, "client") | {"redirect": Redirect(exclude_outbound_ports=(8080,))}
    client = await mesh.pod("client", idle(), **out)
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == [f"200 server {client.ip}"]
    assert await mesh.fetch(server.uid, "http://127.0.0.1:8080/") == ["200 server 127.0.0.1"]
    own = mesh.log("client", "istio-proxy") + mesh.log("server", "istio-proxy")
    assert not any(line.startswith(("in ", "out ")) for line in own.splitlines())


async def test_envoy_killed_is_back_within_two_seconds(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    client = await mesh.pod("client", idle())
    for _ in range(2):
        assert server.proxy is not None
        os.kill(server.proxy.pid, signal.SIGKILL)
        killed, before = time.monotonic(), server.proxy.restarts
        while (await mesh.fetch(client.uid, f"http://{server.ip}:8080/"))[0] != "200 server 127.0.0.6":
            assert time.monotonic() - killed < 2
        server = await mesh.until(server.uid, lambda s, n=before: s.ready and bool(s.proxy and s.proxy.restarts > n))
    app = server.containers[0]
    assert app.restarts == 0


async def test_proxy_before_the_application_and_after_it(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    assert server.proxy is not None
    assert server.proxy.started_at < server.containers[0].started_at
    ended: list[tuple[float, float]] = []

    async def follow() -> None:
        async for event in mesh.platform.events():  # the latest state only: steps in between may be missed
            state = getattr(event, "state", None)
            if state is not None and state.containers[0].phase == state.proxy.phase == "terminated":
                ended.append((state.containers[0].last.finished_at, state.proxy.last.finished_at))

    task = asyncio.create_task(follow())
    await mesh.platform.delete(server.uid, 5)
    task.cancel()
    assert mesh.log("server").endswith("stopped\n")
    application, proxy = ended[-1]
    assert application < proxy
    assert server.uid not in mesh.platform.pods()
    assert not mesh.layout.pod(server.uid).exists()


async def test_a_locked_pod_has_no_way_past_its_proxy(mesh: Mesh) -> None:
    """Whatever it excludes from capture: nothing but the proxy opens connections that leave the Pod."""
    server = await mesh.pod("server", web())
    url = f"http://{server.ip}:8080/"
    excluding = Redirect(exclude_outbound_ports=(8080,), exclude_outbound_ranges=("0.0.0.0/0",))
    client = await mesh.pod(
        "client", idle(), web(9000, name="own"), **sidecar(mesh, "client") | {"redirect": excluding}
    )
    assert await mesh.fetch(client.uid, url) == [f"200 server {client.ip}"]
    await mesh.platform.lock(client.uid, on=True)
    await mesh.until(client.uid, lambda state: state.locked)
    assert "refused" in (await mesh.fetch(client.uid, url))[0]
    assert "refused" in (await mesh.fetch(client.uid, "http://192.0.2.1/"))[0]
    assert (await mesh.fetch(client.uid, "http://127.0.0.1:9000/"))[0].startswith("200 ")
    assert (await mesh.fetch(client.uid, f"http://{client.ip}:9000/"))[0].startswith("200 ")
    assert (await mesh.fetch(server.uid, f"http://{client.ip}:9000/"))[0].startswith("200 "), "others still get in"
    await mesh.platform.lock(client.uid, on=False)
    assert await mesh.fetch(client.uid, url) == [f"200 server {client.ip}"]


async def test_a_pod_is_locked_from_its_first_packet_on_and_its_proxy_gets_out(mesh: Mesh) -> None:
    server = await mesh.pod("server", web())
    client = await mesh.pod("client", idle(), locked=True, **sidecar(mesh, "client"))
    assert client.locked
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == [f"200 server {client.ip}"]
    assert f"out {client.ip}:" in mesh.log("client", "istio-proxy")


async def test_a_locked_pod_without_a_proxy_reaches_the_mesh_and_nothing_outside(mesh: Mesh) -> None:
    server = await mesh.pod("server", web())
    client = await mesh.pod("client", idle(), locked=True)
    assert await mesh.fetch(client.uid, f"http://{server.ip}:8080/") == [f"200 server {client.ip}"]
    for outside in ("192.0.2.1", "10.88.255.254"):
        assert "refused" in (await mesh.fetch(client.uid, f"http://{outside}/"))[0]
    attempt = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('192.0.2.1', 443)); s.send(b'x')"
    await mesh.run(client.uid, *program(attempt))
    gateway = await mesh.pod("gateway", idle(), locked=True)
    own_mark = "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, 36, 0x539)"
    assert "not permitted" in await mesh.run(gateway.uid, *program(own_mark))
