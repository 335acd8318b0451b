"""Services, names, egress and host ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lateen.node.fabric_sockets import fabric_sockets
from lateen.platform import forwarder, paths
from lateen.platform.forwarder import Egress, proxy_header
from lateen.platform.pod import Redirect, ServiceVip
from tests.kernel.platform.harness import FETCH, SETTINGS, Mesh, envoy, idle, program, tcp_listener, web


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def forwarding(mesh: Mesh, listen: list[int], host_ports: list[int]) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A forwarder in a process of its own, once it listens."""
    command = forwarder.command(mesh.layout.run, [("127.0.0.1", port) for port in listen], host_ports)
    path = mesh.layout.state / "forwarder.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **paths.marker(mesh.layout)})
    try:
        async with asyncio.timeout(5):
            while "serving" not in path.read_text():
                await asyncio.sleep(0.01)
        yield process
    finally:
        process.terminate()
        assert process.wait(5) == 0, path.read_text()


@asynccontextmanager
async def echo(host: str, port: int = 0) -> AsyncIterator[int]:
    """A server outside the mesh that tells who called, then returns what it is sent until the end of the stream."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        if not probe.getsockname()[0].startswith("127."):
            return str(probe.getsockname()[0])
    pytest.skip("this machine has no address but loopback")


def vip(number: int, *endpoints: tuple[str, int], port: int = 80) -> ServiceVip:
    return ServiceVip(vip=f"10.96.0.{number}", port=port, endpoints=endpoints)


async def test_a_service_spreads_and_keeps_the_clients_address(mesh: Mesh) -> None:
    one, two = await mesh.pod("one", web()), await mesh.pod("two", web())
    client = await mesh.pod("client", idle())
    await mesh.platform.services((vip(1, (one.ip, 8080), (two.ip, 8080)),))
    seen = Counter(await mesh.fetch(client.uid, *["http://10.96.0.1/"] * 200))
    assert set(seen) == {f"200 one {client.ip}", f"200 two {client.ip}"}
    assert min(seen.values()) > 60, "5 sigma below 100 is 65"


async def test_a_pod_reaches_itself_by_its_service(mesh: Mesh) -> None:
    one = await mesh.pod("one", web())
    await mesh.platform.services((vip(1, (one.ip, 8080)),))
    assert await mesh.fetch(one.uid, "http://10.96.0.1/") == [f"200 one {SETTINGS.gateway}"]


async def test_services_change_and_end(mesh: Mesh) -> None:
    one, two = await mesh.pod("one", web()), await mesh.pod("two", web())
    client = await mesh.pod("client", idle())
    refused = "URLError [Errno 111] Connection refused"

    async def seen(*numbers: int) -> list[str]:
        lines = await mesh.fetch(client.uid, *[f"http://10.96.0.{number}/" for number in numbers])
        return [line.removesuffix(f" {client.ip}") for line in lines]

    first, second = (one.ip, 8080), (two.ip, 8080)
    await mesh.platform.services((vip(1, first), vip(2, second), vip(3)))
    assert await seen(1, 2, 3, 4) == ["200 one", "200 two", refused, refused]
    await mesh.platform.services((vip(1, second), vip(3, first)))
    assert await seen(1, 2, 3) == ["200 two", refused, "200 one"]
    await mesh.platform.services((vip(1), vip(3, first)))
    assert await seen(1, 3) == [refused, "200 one"]
    many = tuple(vip(n % 250, first, second, port=1000 + n // 250) for n in range(1000))
    await mesh.platform.services((*many, vip(3, second)))
    assert await seen(3) == ["200 two"]
    assert (await mesh.fetch(client.uid, "http://10.96.0.249:1003/"))[0].startswith("200 ")
    await mesh.platform.services(())
    assert await seen(3) == [refused]


@pytest.mark.parametrize("captured", [True, False])
async def test_names_are_served_from_outside_by_passed_sockets(mesh: Mesh, captured: bool) -> None:
    """A Pod without a sidecar is answered where proxies are."""
    pod = await mesh.pod("pod", idle(), redirect=Redirect() if captured else None)
    sockets = fabric_sockets(mesh.layout.run)
    dns_udp, dns_tcp = (
        (sockets.dns_udp, sockets.dns_tcp) if captured else (sockets.proxy_dns_udp, sockets.proxy_dns_tcp)
    )
    loop = asyncio.get_running_loop()
    text = """
        import socket, sys
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(5)
        s.sendto(b"by udp", (sys.argv[1], 53))
        print(s.recv(100))
        with socket.create_connection((sys.argv[1], 53)) as c:
            c.sendall(b"by tcp")
            print(c.recv(100))
        print(open("/etc/resolv.conf").read())
    """
    running = asyncio.create_task(mesh.run(pod.uid, *program(text, SETTINGS.gateway)))
    async with asyncio.timeout(10):
        data, source = await loop.sock_recvfrom(dns_udp, 100)
        assert source[0] == pod.ip
        await loop.sock_sendto(dns_udp, data.upper(), source)
        connection, _ = await loop.sock_accept(dns_tcp)
    await loop.sock_sendall(connection, (await loop.sock_recv(connection, 100)).upper())
    output = await running
    connection.close()
    for one in sockets.all:
        one.close()
    assert output.splitlines()[:2] == ["b'BY UDP'", "b'BY TCP'"]
    assert output.splitlines()[2:] == [
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.88.0.1",
        "options ndots:5",
    ]


CALL = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as s:
            s.sendall(b"hello")
            s.shutdown(1)
            data = b""
            while part := s.recv(65536):
                data += part
            print(data)
    except OSError as error:
        print(error.strerror)
"""


async def test_egress(mesh: Mesh) -> None:
    address = own_address()
    pod = await mesh.pod("pod", idle())
    async with echo(address) as outside, echo("127.0.0.1") as listed, echo("127.0.0.1") as hidden:
        closed = free_port()
        targets = [f"{address}:{outside}", f"{address}:{closed}"]
        targets += [f"{SETTINGS.host_address}:{port}" for port in (listed, hidden, closed)]
        async with forwarding(mesh, [], [listed, closed]) as process:
            output = await mesh.run(pod.uid, *program(CALL, *targets))
            reset = "Connection reset by peer"
            assert output.splitlines() == [f"b'{address}\\nhello'", reset, "b'127.0.0.1\\nhello'", reset, reset], (
                mesh.layout.state / "forwarder.log"
            ).read_text()
            os.kill(process.pid, signal.SIGSTOP)
            waiting = asyncio.create_task(mesh.run(pod.uid, *program(CALL, targets[0])))
            await asyncio.sleep(0.2)
            os.kill(process.pid, signal.SIGCONT)
            assert await waiting == f"b'{address}\\nhello'"
        waiting = asyncio.create_task(mesh.run(pod.uid, *program(CALL, targets[0])))
        await asyncio.sleep(0.3)
        assert not waiting.done(), "without a forwarder connections wait for the next one"
        async with forwarding(mesh, [], []):
            assert await waiting == f"b'{address}\\nhello'"


async def test_egress_follows_a_new_network(mesh: Mesh) -> None:
    """Spawner and all Pods killed: the next spawner makes another network, whose egress is served too."""
    address = own_address()
    async with echo(address) as outside, forwarding(mesh, [], []):
        pod = await mesh.pod("pod", idle())
        target = program(CALL, f"{address}:{outside}")
        assert await mesh.run(pod.uid, *target) == f"b'{address}\\nhello'"
        os.kill(mesh.spawner(), signal.SIGKILL)
        os.kill(pod.pid, signal.SIGKILL)
        again = await mesh.pod("again", idle())
        assert await mesh.run(again.uid, *target) == f"b'{address}\\nhello'"


def gateway(mesh: Mesh, name: str, port: int) -> dict[str, Any]:
    """A gateway Pod: Envoy on a Unix socket, told the client by the PROXY protocol, in front of port 8080."""
    path = str(mesh.layout.pod(f"u-{name}") / f"gw-{port}.sock")
    kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
    filters = [{"name": "proxy_protocol", "typed_config": {"@type": kind}}]
    listener = tcp_listener("gw", 0, "app", address={"pipe": {"path": path}}, listener_filters=filters)
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}}}
    app = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return envoy(mesh, name, [listener], [app])


async def fetch(port: int) -> str:
    """The body of a GET from the host."""
    process = await asyncio.create_subprocess_exec(
        *program(FETCH, f"http://127.0.0.1:{port}/"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().strip()


async def test_host_port_to_a_gateway_that_is_killed(mesh: Mesh) -> None:
    port = free_port()
    pod = await mesh.pod("gw", web(), **gateway(mesh, "gw", port))
    async with forwarding(mesh, [port], []):
        early = asyncio.create_task(fetch(port))
        await asyncio.sleep(0.3)
        assert not early.done(), "held until a gateway is there"
        forwarder.write_routes(mesh.layout.run, {port: [mesh.layout.pod(pod.uid) / f"gw-{port}.sock"]})
        assert await early == "200 gw 127.0.0.1"
        assert "gw 127.0.0.1:" in mesh.log("gw", "istio-proxy")
        assert f" 127.0.0.1:{port}" in mesh.log("gw", "istio-proxy"), "destination by the PROXY header"
        assert pod.proxy is not None
        os.kill(pod.proxy.pid, signal.SIGKILL)
        assert await fetch(port) == "200 gw 127.0.0.1"
        os.kill(mesh.spawner(), signal.SIGKILL)
        await mesh.platform.close()
        assert await fetch(port) == "200 gw 127.0.0.1"


async def test_relay_passes_ends_and_bulk_both_ways(mesh: Mesh) -> None:
    """Through the egress relay: 32 MB with a slow reader on either side arrive whole, ends of stream apart."""
    address = own_address()
    pod = await mesh.pod("pod", idle())
    text = """
        import hashlib, socket, sys, threading, time
        host, port = sys.argv[1].split(":")
        size = 32 << 20
        s = socket.create_connection((host, int(port)), timeout=20)
        sent, got = hashlib.sha256(), hashlib.sha256()
        def send():
            block = bytes(range(256)) * 256
            for _ in range(size // len(block)):
                s.sendall(block)
                sent.update(block)
            s.shutdown(1)
        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.5)
        data = bytearray()
        while part := s.recv(1 << 20):
            data += part
        thread.join()
        got.update(bytes(data).partition(b"\\n")[2])
        print(len(data.partition(b"\\n")[2]) == size, got.digest() == sent.digest())
    """
    async with echo(address) as outside, forwarding(mesh, [], []) as process:
        assert await mesh.run(pod.uid, *program(text, f"{address}:{outside}")) == "True True"
        memory = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(memory) < 80_000, "KiB at the most: nothing piles up"


def test_what_egress_denies() -> None:
    egress = Egress("10.88.255.254", frozenset({5432}))
    assert egress.target("192.0.2.7", 443) == ("192.0.2.7", 443)
    assert egress.target("10.88.255.254", 5432) == ("127.0.0.1", 5432)
    for denied in ("127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "169.254.169.254"):
        assert egress.target(denied, 5432) is None
    assert egress.target("10.88.255.254", 22) is None


def test_proxy_header_is_version_2() -> None:
    header = proxy_header(("127.0.0.1", 0x1234), ("10.0.0.9", 80))
    assert header == bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c 7f000001 0a000009 1234 0050")
    assert proxy_header(("::1", 1), ("::1", 2))[12:16] == bytes.fromhex("21210024")
