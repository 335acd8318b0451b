"""Connections across the border of the mesh's network, by a process that stays in the host's.

Host ports: a listener on the host relays to the gateway Pod's Unix socket and tells Envoy the client's address by
a PROXY protocol v2 header. Which sockets stand behind a port is in `<run>/forwarder.json`, written by the node and
read again for every connection; while no gateway answers, new connections are held for a bounded time, so a
gateway's restart is not seen outside.

Egress: connections that leave the Pods' range arrive on a listening socket made inside their network and passed
to this process, which reads where they wanted to go and connects there from the host. A refused one is reset. The
host's own loopback is denied, but for the ports that are listed, under one address of its own, and so are link-local
addresses, where clouds give a machine's credentials to whoever asks.

    python -m lateen.platform.forwarder --run DIR [--listen 127.0.0.1:8080]... [--host-port 5432]...

Nothing here depends on node or spawner being alive; the sockets are fetched again when the spawner is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import ipaddress
import itertools
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from lateen.node.fabric_sockets import FabricSockets, fabric_sockets, same
from lateen.platform.paths import spawner_socket, write_file
from lateen.platform.relay import Relay
from lateen.platform.settings import PlatformSettings

SO_ORIGINAL_DST = 80
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HOLD_S = 10.0
"""How long a new connection waits for a gateway (a gateway's Envoy is back within 2 s of a crash)."""
HOLD_POLL_S = 0.02
CONNECT_S = 10.0
CONNECTIONS = 8192
"""Connections at a time, each way; when there are more, those that have been silent longest make room."""
SILENT_S = 10.0
"""Nobody who has said or heard something within this time makes room; then further ones wait in the kernel's queue."""
AT_ONCE = 64
"""How many make room at a time."""
RETRY_S = 0.2

log = structlog.get_logger("lateen.forwarder")

Address = tuple[str, int]
Dial = Callable[[Relay, socket.socket], Awaitable[None]]


def command(run: Path, listen: Sequence[Address], host_ports: Sequence[int] = ()) -> list[str]:
    """The command that starts a forwarder."""
    arguments = [sys.executable, "-m", "lateen.platform.forwarder", "--run", str(run)]
    arguments += [part for host, port in listen for part in ("--listen", f"{host}:{port}")]
    return arguments + [part for port in host_ports for part in ("--host-port", str(port))]


def write_routes(run: Path, routes: Mapping[int, Sequence[Path]]) -> None:
    """Say which gateway sockets stand behind each host port; connections are spread over them in turn."""
    content = {str(port): [str(path) for path in sockets] for port, sockets in routes.items()}
    write_file(str(run / "forwarder.json"), msgspec.json.encode(content))


def proxy_header(source: Address, destination: Address) -> bytes:
    """A PROXY protocol v2 header for one TCP connection
    (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt)."""
    family, version = (0x21, ipaddress.IPv6Address) if ":" in source[0] else (0x11, ipaddress.IPv4Address)
    addresses = version(source[0]).packed + version(destination[0]).packed
    body = addresses + struct.pack("!HH", source[1], destination[1])
    return PROXY_SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body


class HostPorts:
    """From listeners on the host to gateways."""

    def __init__(self, run: Path) -> None:
        self._file = run / "forwarder.json"
        self._turn = itertools.count()

    async def dial(self, client: Relay, accepted: socket.socket) -> None:
        """Connect an accepted client to a gateway; ConnectionError when none answers in time."""
        source, destination = accepted.getpeername()[:2], accepted.getsockname()[:2]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HOLD_S
        while True:
            sockets = self._sockets(destination[1])
            turn = next(self._turn)
            for i in range(len(sockets)):
                with contextlib.suppress(OSError):
                    path = sockets[(turn + i) % len(sockets)]
                    _, upstream = await loop.create_unix_connection(lambda: Relay(client), path)
                    upstream.write(proxy_header(source, destination))
                    client.join(upstream)
                    return
            if loop.time() > deadline:
                raise ConnectionError(f"no gateway behind port {destination[1]} answered for {HOLD_S:g} s")
            await asyncio.sleep(HOLD_POLL_S)

    def _sockets(self, port: int) -> list[str]:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[str]]).get(str(port), [])
        return []


class Egress:
    """From Pods to the world outside."""

    def __init__(self, host_address: str, host_ports: frozenset[int]) -> None:
        self._host_address = host_address
        self._host_ports = host_ports

    async def dial(self, client: Relay, accepted: socket.socket) -> None:
        """Connect an accepted client to where it wanted to go; ConnectionError when that is denied or fails."""
        record = accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, raw = struct.unpack_from("!2xH4s", record)
        target = self.target(socket.inet_ntoa(raw), port)
        if target is None or (socket.inet_ntoa(raw), port) == accepted.getsockname():
            raise ConnectionError(f"{socket.inet_ntoa(raw)}:{port} is denied")
        async with asyncio.timeout(CONNECT_S):
            _, upstream = await asyncio.get_running_loop().create_connection(lambda: Relay(client), *target)
        client.join(upstream)

    def target(self, ip: str, port: int) -> Address | None:
        """Where a connection to that address goes, None when it is denied."""
        if ip == self._host_address:
            return ("127.0.0.1", port) if port in self._host_ports else None
        address = ipaddress.IPv4Address(ip)
        nobodys = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
        return None if nobodys or address.is_link_local or ip.startswith("0.") else (ip, port)


class Forwarder:
    """All relays of one mesh."""

    def __init__(self, run: Path, listen: Sequence[Address], host_ports: Sequence[int], host_address: str) -> None:
        self._run = run
        self._listen = listen
        self._ports = HostPorts(run)
        self._egress = Egress(host_address, frozenset(host_ports))

    async def run(self) -> None:
        """Serve until cancelled. OSError when a host port is taken."""
        listeners = [await self._open(host, port) for host, port in self._listen]
        log.info("serving", listen=[f"{host}:{port}" for host, port in self._listen])
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(accept(listener, self._ports.dial))
            tasks.create_task(self._serve_egress())

    @staticmethod
    async def _open(host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
        return listener

    async def _serve_egress(self) -> None:
        """Serve the egress listener of whatever network the Pods have now."""
        serving: FabricSockets | None = None
        task: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                spawner = await self._spawner()
                try:
                    found = await asyncio.to_thread(fabric_sockets, self._run)
                except ConnectionError:
                    found = None
                if found:
                    if serving and task and not task.done() and same(serving, found):
                        close(found)
                    else:
                        if task:
                            task.cancel()
                        serving = found
                        for one in (found.dns_tcp, found.proxy_dns_udp, found.proxy_dns_tcp):
                            one.close()
                        task = tasks.create_task(accept(found.egress, self._egress.dial))
                        log.info("egress served")
                if spawner:
                    reader, writer = spawner
                    with contextlib.suppress(OSError):
                        await reader.read(1)
                    writer.close()
                else:
                    await asyncio.sleep(RETRY_S)

    async def _spawner(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection whose end says that the spawner has ended; None when there is none now."""
        try:
            return await asyncio.open_unix_connection(spawner_socket(str(self._run)))
        except OSError:
            return None


def close(sockets: FabricSockets) -> None:
    """Close all of them."""
    for one in sockets.all:
        one.close()


async def accept(listener: socket.socket, dial: Dial, most: int = CONNECTIONS) -> None:
    """Relay every connection of a listener to where `dial` connects it; at most that many at a time."""
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(most)
    dialling: set[asyncio.Task[None]] = set()
    clients: set[Relay] = set()

    async def one(accepted: socket.socket) -> None:
        def lost() -> None:
            clients.discard(client)
            slots.release()

        client = Relay(None, lost)
        clients.add(client)
        await loop.connect_accepted_socket(lambda: client, accepted)
        try:
            await dial(client, accepted)
        except (OSError, TimeoutError) as error:
            log.info("not connected", reason=str(error) or type(error).__name__)
            client.reset()

    try:
        while True:
            if slots.locked():
                make_room(clients)
            try:
                async with asyncio.timeout(1):
                    await slots.acquire()
            except TimeoutError:
                continue  # somebody may have been silent for long enough by now
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or a client that left already
                slots.release()
                log.warning("not accepted", reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            task = asyncio.create_task(one(accepted))
            dialling.add(task)
            task.add_done_callback(dialling.discard)
    finally:
        for task in dialling:
            task.cancel()
        listener.close()


def make_room(clients: Collection[Relay]) -> None:
    """Ends the connections that have been silent longest, so that slow and idle ones hold up nobody."""
    silent_since = time.monotonic() - SILENT_S
    for client in heapq.nsmallest(AT_ONCE, clients, key=lambda each: each.heard):
        if client.heard < silent_since:
            client.reset()


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    """The forwarder's process; SIGTERM ends it."""
    parser = argparse.ArgumentParser(prog="lateen.platform.forwarder")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--listen", type=_address, action="append", default=[])
    parser.add_argument("--host-port", type=int, action="append", default=[])
    parser.add_argument("--host-address", default=PlatformSettings().host_address)
    options = parser.parse_args()

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await Forwarder(options.run, options.listen, options.host_port, options.host_address).run()

    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
