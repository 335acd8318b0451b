"""The names proxy under load: 10,000 names, 2,000 questions a second, most of them about different names."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import dns.message
import pytest

from lateen.node.dns import NameServer
from lateen.node.names import KINDS, Names
from lateen.node.resolvers import Resolvers
from tests.unit.node.test_names import service

NAMES = 10_000
RATE_PER_S = 2_000
SECONDS = 3
AGAIN_S = 2
"""When what has no answer is asked again."""
CPU_S = 0.9 * SECONDS
"""What the server may take of one processor: it keeps up with the rate. How late answers are says more about what else
runs on a machine, and is printed; alone the 99th percentile is a few milliseconds."""


def _serve(ready: Connection) -> None:
    async def run() -> None:
        names = Names()
        for kind in KINDS:
            names.replace(kind, [])
        for number in range(NAMES):
            names.put("Service", service(f"s{number}", clusterIP=f"10.96.{number >> 8}.{number & 255}"))
        server = NameServer(names, Resolvers(()))
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(tcp.getsockname())
        port = tcp.getsockname()[1]
        await server.listen(udp.detach(), tcp.detach())
        ready.send(port)
        await asyncio.Event().wait()

    asyncio.run(run())


@dataclass(frozen=True)
class Server:
    """Where it is, and how much it has worked."""

    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    assert here.poll(60), "the server did not start"
    yield Server(here.recv(), process.pid or 0)
    process.terminate()
    process.join()


class _Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.sent: dict[int, float] = {}
        self.took_s: list[float] = []
        self.wrong = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number = int.from_bytes(data[:2])
        sent = self.sent.pop(number, None)
        if sent is None:
            return  # the second answer to what was asked twice
        self.took_s.append(asyncio.get_running_loop().time() - sent)
        self.wrong += data[3] & 15 != 0 or data[6:8] != b"\x00\x01"


async def test_load(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(_Client, remote_addr=("127.0.0.1", server.port))
    chosen = random.Random(1)  # the same questions every time
    total = RATE_PER_S * SECONDS
    queries = [
        dns.message.make_query(f"s{chosen.randrange(NAMES)}.default.svc.cluster.local", "A", id=number).to_wire()
        for number in range(total)
    ]
    before_s = server.cpu_s
    started = loop.time()
    sent = 0
    while sent < total:
        due = min(total, int((loop.time() - started) * RATE_PER_S) + 1)
        for number in range(sent, due):
            client.sent[number] = loop.time()
            transport.sendto(queries[number])
        sent = due
        await asyncio.sleep(0.001)
    sending_s = loop.time() - started
    again = 0
    async with asyncio.timeout(60):
        while client.sent:
            if loop.time() - started > sending_s + (again + 1) * AGAIN_S:
                again += 1  # a kernel drops datagrams when a machine is busy, and resolvers ask again
                for number in client.sent:
                    transport.sendto(queries[number])
            await asyncio.sleep(0.01)
    transport.close()
    cpu_s = server.cpu_s - before_s
    took = sorted(client.took_s)
    p50, p99 = (took[int(len(took) * share)] for share in (0.50, 0.99))
    with capsys.disabled():
        print(  # noqa: T201 (the figure is the point)
            f"\n{NAMES} names, {total / sending_s:.0f} questions/s: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms,"
            f" {cpu_s / total * 1e6:.0f} us of CPU a question,"
            f" load average {os.getloadavg()[0]:.1f}, asked again {again} times"
        )
    assert (len(took), client.wrong) == (total, 0)
    assert cpu_s < CPU_S
