"""The names proxy over real sockets, with a real upstream resolver of a few lines."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from lateen.node.dns import NameServer
from lateen.node.names import KINDS, Names
from lateen.node.resolvers import SILENT_LIMIT, Resolver, Resolvers
from tests.unit.node.test_names import endpoints, entry, service


class Upstream(asyncio.DatagramProtocol):
    """A resolver that knows `known.example.com` and counts what it is asked; it can be told to stay silent."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False
        self.resolver = Resolver("127.0.0.1", 0)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        self.resolver = Resolver("127.0.0.1", port)

    def close(self) -> None:
        self.server.close()
        self.transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data, 512)
        if not self.silent:
            self.transport.sendto(b"xx" + answer[2:], addr)  # somebody else's answer comes first
            self.transport.sendto(answer, addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self._answer(await reader.readexactly(size), 65535)
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    def _answer(self, data: bytes, limit: int) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}")
        response = dns.message.make_response(query)
        name = question.name.to_text()
        if name == "known.example.com." and question.rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(question.name, 300, "IN", "A", "192.0.2.1"))
        elif name == "large.example.com.":
            texts = [f'"{number:0200}"' for number in range(100)]
            response.answer.append(dns.rrset.from_text(question.name, 300, "IN", "TXT", *texts))
        elif name != "known.example.com.":
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=limit, prefer_truncation=True)


class Mesh:
    """A names proxy on sockets of its own, and how to ask it."""

    def __init__(self, resolvers: Resolvers) -> None:
        self.names = Names()
        self.server = NameServer(self.names, resolvers, shuffle=lambda _: None)
        self.port = 0

    async def start(self) -> None:
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        await self.server.listen(udp.detach(), tcp.detach())

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await how(query, "127.0.0.1", timeout=10, port=self.port)

    async def raw(self, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.connect(("127.0.0.1", self.port))
            await loop.sock_sendall(connection, query)
            async with asyncio.timeout(10):
                return await loop.sock_recv(connection, 65535)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    await made.start()
    yield made
    made.close()


@pytest.fixture
async def mesh(upstream: Upstream) -> AsyncIterator[Mesh]:
    made = Mesh(Resolvers((upstream.resolver,), timeout_s=0.3))
    for kind in KINDS:
        made.names.replace(kind, [])
    made.names.put("Service", service("reviews", clusterIP="10.96.0.5"))
    await made.start()
    yield made
    await made.server.close()


def _found(message: dns.message.Message) -> list[str]:
    """The answer's records as `NAME TYPE VALUE`."""
    lines = (line.split() for each in message.answer for line in each.to_text().splitlines())
    return [" ".join((words[0], *words[3:])) for words in lines]


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("name", ["reviews.default.svc.cluster.local", "REVIEWS.default.svc.Cluster.local"])
async def test_a_service_has_its_address(mesh: Mesh, name: str, tcp: bool) -> None:
    answer = await mesh.ask(name, tcp=tcp)
    assert _found(answer) == [f"{name}. A 10.96.0.5"]
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "SRV", "MX", "HTTPS"])
async def test_other_records_of_a_known_name_are_empty_and_not_missing(
    mesh: Mesh, upstream: Upstream, kind: str
) -> None:
    answer = await mesh.ask("reviews.default.svc.cluster.local", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert upstream.asked == []


async def test_both_families_apart(mesh: Mesh) -> None:
    mesh.names.put("Service", service("both", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7", "fd00::7"]))
    assert _found(await mesh.ask("both.default.svc", "A")) == ["both.default.svc. A 10.96.0.7"]
    assert _found(await mesh.ask("both.default.svc", "AAAA")) == ["both.default.svc. AAAA fd00::7"]


async def test_unknown_names_of_the_cluster_do_not_exist_and_are_asked_nobody(mesh: Mesh, upstream: Upstream) -> None:
    for name in (
        "nobody.default.svc.cluster.local",
        "nowhere.cluster.local",
        "known.example.com.default.svc.cluster.local",
    ):
        assert (await mesh.ask(name)).rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked == []


async def test_before_the_table_is_complete_unknown_names_are_to_be_asked_again(upstream: Upstream) -> None:
    mesh = Mesh(Resolvers((upstream.resolver,)))
    await mesh.start()
    try:
        assert (await mesh.ask("reviews.default.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL
        assert _found(await mesh.ask("known.example.com")) == ["known.example.com. A 192.0.2.1"]
    finally:
        await mesh.server.close()


async def test_a_headless_service_has_its_pods(mesh: Mesh) -> None:
    mesh.names.put("Service", service("db", clusterIP="None"))
    many = [{"addresses": [f"10.88.1.{number}"]} for number in range(1, 101)]
    mesh.names.put("EndpointSlice", endpoints("db-1", "db", *many))
    cut = await mesh.ask("db.default.svc.cluster.local")
    assert cut.flags & dns.flags.TC
    whole = await mesh.ask("db.default.svc.cluster.local", tcp=True)
    assert len(_found(whole)) == 100
    assert not whole.flags & dns.flags.TC
    assert len(_found(await mesh.ask("db.default.svc.cluster.local", use_edns=0, payload=1232))) < 100


async def test_service_entries_have_their_addresses(mesh: Mesh, upstream: Upstream) -> None:
    mesh.names.put("ServiceEntry", entry("se", ["*.wild.io"], "240.0.0.1"))
    assert _found(await mesh.ask("a.b.wild.io")) == ["a.b.wild.io. A 240.0.0.1"]
    assert upstream.asked == []


@pytest.mark.parametrize("tcp", [False, True])
async def test_other_names_are_relayed_as_they_are(mesh: Mesh, upstream: Upstream, tcp: bool) -> None:
    answer = await mesh.ask("known.example.com", tcp=tcp)
    assert _found(answer) == ["known.example.com. A 192.0.2.1"]
    assert answer.answer[0].ttl == 300
    assert (await mesh.ask("unknown.example.com", tcp=tcp)).rcode() == dns.rcode.NXDOMAIN
    assert (await mesh.ask("known.example.com", "AAAA", tcp=tcp)).rcode() == dns.rcode.NOERROR
    assert upstream.asked == ["known.example.com. A", "unknown.example.com. A", "known.example.com. AAAA"]


async def test_large_answers_come_over_tcp(mesh: Mesh) -> None:
    assert (await mesh.ask("large.example.com", "TXT")).flags & dns.flags.TC
    assert len(_found(await mesh.ask("large.example.com", "TXT", tcp=True))) == 100


async def test_an_alias_is_followed_inside_and_outside(mesh: Mesh) -> None:
    mesh.names.put("Service", service("out", type="ExternalName", externalName="known.example.com"))
    mesh.names.put("Service", service("in", type="ExternalName", externalName="reviews.default.svc.cluster.local"))
    mesh.names.put("Service", service("gone", type="ExternalName", externalName="nobody.default.svc.cluster.local"))
    mesh.names.put("Service", service("loop", type="ExternalName", externalName="loop.default.svc.cluster.local"))
    assert _found(await mesh.ask("out.default")) == [
        "out.default. CNAME known.example.com.",
        "known.example.com. A 192.0.2.1",
    ]
    assert _found(await mesh.ask("in.default")) == [
        "in.default. CNAME reviews.default.svc.cluster.local.",
        "reviews.default.svc.cluster.local. A 10.96.0.5",
    ]
    assert (await mesh.ask("gone.default")).rcode() == dns.rcode.NXDOMAIN
    assert (await mesh.ask("loop.default")).rcode() == dns.rcode.SERVFAIL


async def test_reverse_names(mesh: Mesh, upstream: Upstream) -> None:
    assert _found(await mesh.ask("5.0.96.10.in-addr.arpa", "PTR")) == [
        "5.0.96.10.in-addr.arpa. PTR reviews.default.svc.cluster.local."
    ]
    for private in ("9.1.88.10.in-addr.arpa", "1.0.168.192.in-addr.arpa", "1.0.0.127.in-addr.arpa"):
        assert (await mesh.ask(private, "PTR")).rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked == []
    assert (await mesh.ask("8.8.8.8.in-addr.arpa", "PTR")).rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked == ["8.8.8.8.in-addr.arpa. PTR"]


async def test_a_silent_resolver_costs_a_bounded_time_and_then_none(mesh: Mesh, upstream: Upstream) -> None:
    upstream.silent = True
    started = time.monotonic()
    for _ in range(SILENT_LIMIT):
        assert (await mesh.ask("known.example.com")).rcode() == dns.rcode.SERVFAIL
    assert time.monotonic() - started < 10 * SILENT_LIMIT * 0.3
    for _ in range(50):
        assert (await mesh.ask("known.example.com")).rcode() == dns.rcode.SERVFAIL
    assert len(upstream.asked) == SILENT_LIMIT
    assert _found(await mesh.ask("reviews.default"))


async def test_the_next_resolver_is_asked_when_one_is_not_there(upstream: Upstream) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Resolver("127.0.0.1", unused.getsockname()[1])
    for resolvers in ((nobody, upstream.resolver), (Resolver("not an address"), upstream.resolver)):
        answer = await Resolvers(resolvers).ask(dns.message.make_query("known.example.com", "A").to_wire(), tcp=False)
        assert answer is not None
        assert _found(dns.message.from_wire(answer))
    query = dns.message.make_query("known.example.com", "A").to_wire()
    assert await Resolvers((nobody,)).ask(query, tcp=False) is None
    assert await Resolvers((nobody,)).ask(query, tcp=True) is None
    assert await Resolvers(()).ask(query, tcp=False) is None


def test_resolvers_follow_resolv_conf(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    resolvers = Resolvers(conf=conf)
    assert resolvers.current() == ()
    conf.write_text("# made by hand\nsearch a b\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver\n")
    assert resolvers.current() == (Resolver("192.0.2.1"), Resolver("192.0.2.2"))
    new = tmp_path / "new"
    new.write_text("nameserver 192.0.2.3\n")
    new.replace(conf)
    assert resolvers.current() == (Resolver("192.0.2.3"),)


async def test_what_is_no_question(mesh: Mesh) -> None:
    update = dns.message.make_query("reviews.default", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    refused = await mesh.raw(update.to_wire())
    assert refused[:2] == update.to_wire()[:2]
    assert dns.message.from_wire(refused).rcode() == dns.rcode.NOTIMP
    garbage = await mesh.raw(b"\x12\x34\x01\x00\x00\x01" + b"\xff" * 20)
    assert (garbage[:2], garbage[3] & 15) == (b"\x12\x34", dns.rcode.FORMERR)
    two = dns.message.make_query("reviews.default", "A")
    two.question.append(two.question[0])
    assert dns.message.from_wire(await mesh.raw(two.to_wire())).rcode() == dns.rcode.FORMERR
    assert await mesh.server.answer(b"short", tcp=False) is None
    assert await mesh.server.answer(refused, tcp=False) is None


async def test_new_sockets_take_the_place_of_old_ones(mesh: Mesh) -> None:
    before = mesh.port
    await mesh.start()
    assert mesh.port != before
    assert _found(await mesh.ask("reviews.default"))
    assert _found(await mesh.ask("reviews.default", tcp=True))
