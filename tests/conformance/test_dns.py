"""The names proxy as a client that knows the rules sees it: record types, absence, case, EDNS, TCP, search lists.

dnspython stands for the client; the server is the agent's, over real sockets, with a real upstream resolver.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import dns.asyncresolver
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.reversename
import pytest

from lateen.node.dns import MAX_CONNECTIONS, TCP_IDLE_S, NameServer
from lateen.node.names import KINDS, Names
from lateen.node.resolvers import Resolver, Resolvers
from tests.unit.node.test_dns import Mesh, Upstream, _found, mesh, upstream
from tests.unit.node.test_names import endpoints, entry, service

__all__ = ["mesh", "upstream"]  # fixtures

REVIEWS = "reviews.default.svc.cluster.local"


@pytest.fixture
def bookinfo(mesh: Mesh) -> Mesh:
    """A Service with ports, a headless one with two Pods, external hosts with given and with written addresses."""
    names = mesh.names
    names.put(
        "Service",
        service(
            "reviews",
            clusterIP="10.96.0.5",
            ports=[{"name": "http", "port": 9080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 1}],
        ),
    )
    names.put("Service", service("db", clusterIP="None", ports=[{"name": "mysql", "port": 3306}]))
    pods = ({"addresses": ["10.88.1.2"], "hostname": "db-0"}, {"addresses": ["10.88.1.3"]})
    names.put("EndpointSlice", {**endpoints("db-1", "db", *pods), "ports": [{"name": "mysql", "port": 13306}]})
    names.put("ServiceEntry", entry("wild", ["*.wild.example"], "240.0.0.9"))
    allocated = entry("auto", ["api.example.com", "www.example.com"])
    allocated["status"] = {
        "addresses": [
            {"value": "240.240.0.1", "host": "api.example.com"},
            {"value": "2001:2::1", "host": "api.example.com"},
            {"value": "240.240.0.2", "host": "www.example.com"},
        ]
    }
    names.put("ServiceEntry", allocated)
    return mesh


def soa(message: dns.message.Message) -> tuple[str, int, int]:
    """Zone, TTL and minimum of the one SOA record of an answer without records."""
    assert message.answer == []
    (authority,) = message.authority
    return str(authority.name), authority.ttl, int(authority.to_text().split()[-1])


async def test_addresses_that_were_written_to_the_status_belong_to_their_hosts(bookinfo: Mesh) -> None:
    assert _found(await bookinfo.ask("api.example.com")) == ["api.example.com. A 240.240.0.1"]
    assert _found(await bookinfo.ask("api.example.com", "AAAA")) == ["api.example.com. AAAA 2001:2::1"]
    assert _found(await bookinfo.ask("www.example.com")) == ["www.example.com. A 240.240.0.2"]


async def test_an_absent_record_is_no_absent_name_and_says_for_how_long(bookinfo: Mesh) -> None:
    for kind in ("AAAA", "TXT", "MX", "SRV", "HTTPS", "NS"):
        answer = await bookinfo.ask(REVIEWS, kind)
        assert answer.rcode() == dns.rcode.NOERROR
        assert soa(answer) == ("cluster.local.", 5, 5)
    empty = await bookinfo.ask("www.example.com", "AAAA")
    assert empty.rcode() == dns.rcode.NOERROR
    assert soa(empty) == ("www.example.com.", 5, 5)


@pytest.mark.parametrize("name", ["no.default.svc.cluster.local", "_no._tcp.reviews.default.svc.cluster.local"])
async def test_an_absent_name_says_for_how_long(bookinfo: Mesh, name: str) -> None:
    answer = await bookinfo.ask(name)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert soa(answer) == ("cluster.local.", 5, 5)


@pytest.mark.parametrize("name", ["cluster.local", "svc.cluster.local", "default.svc.cluster.local"])
async def test_names_above_others_exist(bookinfo: Mesh, name: str) -> None:
    answer = await bookinfo.ask(name)
    assert answer.rcode() == dns.rcode.NOERROR  # else a cache may take all below for absent (RFC 8020)
    assert soa(answer)[0] == "cluster.local."
    assert _found(await bookinfo.ask("cluster.local", "SOA"))[0].startswith("cluster.local. SOA ns.dns.cluster.local.")


async def test_proxies_get_real_addresses_of_external_hosts(bookinfo: Mesh, upstream: Upstream) -> None:
    proxies = NameServer(bookinfo.names, Resolvers((upstream.resolver,)), external=False)
    for name, address in ((REVIEWS, "10.96.0.5"), ("known.example.com", "192.0.2.1")):
        bookinfo.names.put("ServiceEntry", entry("shadow", ["known.example.com"], "240.0.0.8"))
        answer = await proxies.answer(dns.message.make_query(name, "A").to_wire(), tcp=False)
        assert answer is not None
        assert _found(dns.message.from_wire(answer)) == [f"{name}. A {address}"]


async def test_the_last_name_takes_those_above_it_along(bookinfo: Mesh) -> None:
    bookinfo.names.put("Service", service("only", "lonely", clusterIP="10.96.0.8"))
    assert (await bookinfo.ask("lonely.svc.cluster.local")).rcode() == dns.rcode.NOERROR
    bookinfo.names.delete("Service", service("only", "lonely"))
    assert (await bookinfo.ask("lonely.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN


async def test_servers_of_a_named_port(bookinfo: Mesh) -> None:
    answer = await bookinfo.ask(f"_http._tcp.{REVIEWS}", "SRV")
    assert _found(answer) == [f"_http._tcp.{REVIEWS}. SRV 0 100 9080 {REVIEWS}."]
    assert [each.to_text() for each in answer.additional] == [f"{REVIEWS}. 5 IN A 10.96.0.5"]
    assert _found(await bookinfo.ask(f"_dns._udp.{REVIEWS}", "SRV"))
    assert (await bookinfo.ask(f"_dns._tcp.{REVIEWS}", "SRV")).rcode() == dns.rcode.NXDOMAIN
    assert (await bookinfo.ask(f"_http._tcp.{REVIEWS}", "A")).rcode() == dns.rcode.NOERROR


async def test_servers_of_a_headless_service_are_its_pods(bookinfo: Mesh) -> None:
    db = "db.default.svc.cluster.local"
    answer = await bookinfo.ask(f"_mysql._tcp.{db}", "SRV")
    assert sorted(_found(answer)) == [
        f"_mysql._tcp.{db}. SRV 0 50 13306 10-88-1-3.{db}.",
        f"_mysql._tcp.{db}. SRV 0 50 13306 db-0.{db}.",
    ]
    assert _found(await bookinfo.ask(f"db-0.{db}")) == [f"db-0.{db}. A 10.88.1.2"]
    assert _found(await bookinfo.ask("10-88-1-3.db.default")) == ["10-88-1-3.db.default. A 10.88.1.3"]


async def test_reverse_names_of_services_and_of_headless_endpoints(bookinfo: Mesh, upstream: Upstream) -> None:
    for address, name in (("10.96.0.5", REVIEWS), ("10.88.1.2", "db-0.db.default.svc.cluster.local")):
        reverse = dns.reversename.from_address(address)
        assert _found(await bookinfo.ask(str(reverse), "PTR")) == [f"{reverse} PTR {name}."]
        empty = await bookinfo.ask(str(reverse), "TXT")
        assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    unknown = str(dns.reversename.from_address("10.77.1.9"))
    assert (await bookinfo.ask(unknown, "PTR")).rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked == []
    machine = NameServer(bookinfo.names, Resolvers((upstream.resolver,)), private=False)
    await machine.answer(dns.message.make_query(unknown, "PTR").to_wire(), tcp=False)
    assert upstream.asked == [f"{unknown} PTR"]  # the network of a machine knows its own


async def test_on_a_machine_services_of_its_namespace_have_short_names(upstream: Upstream) -> None:
    here = Mesh(Resolvers((upstream.resolver,)))
    here.names = Names(home="default")
    here.server = NameServer(here.names, Resolvers((upstream.resolver,)))
    for kind in KINDS:
        here.names.replace(kind, [])
    here.names.put("Service", service("reviews", clusterIP="10.96.0.5"))
    here.names.put("Service", service("billing", "other", clusterIP="10.96.0.6"))
    await here.start()
    try:
        assert _found(await here.ask("reviews")) == ["reviews. A 10.96.0.5"]
        assert _found(await here.ask("reviews", "AAAA")) == []
        assert (await here.ask("billing")).rcode() == dns.rcode.NXDOMAIN
        assert _found(await here.ask("billing.other")) == ["billing.other. A 10.96.0.6"]
    finally:
        await here.server.close()
    assert upstream.asked == ["billing. A"]


async def test_the_question_comes_back_in_its_own_case(bookinfo: Mesh) -> None:
    for name in ("ReViEwS.Default.SVC.cluster.LOCAL.", "NoBody.default.svc.cluster.local.", "A.Wild.Example."):
        assert str((await bookinfo.ask(name)).question[0].name) == name
    assert _found(await bookinfo.ask("API.Example.Com")) == ["API.Example.Com. A 240.240.0.1"]


async def test_edns(bookinfo: Mesh) -> None:
    plain = await bookinfo.ask(REVIEWS)
    assert plain.edns == -1
    extended = await bookinfo.ask(REVIEWS, use_edns=0, payload=4096)
    assert (extended.edns, extended.payload) == (0, 1232)
    future = await bookinfo.ask(REVIEWS, use_edns=1)
    assert (future.rcode(), future.edns, future.answer) == (dns.rcode.BADVERS, 0, [])
    query = dns.message.make_query(REVIEWS, "A")
    query.use_edns(0, options=[dns.edns.NSIDOption(b"unknown")])
    assert dns.message.from_wire(await bookinfo.raw(query.to_wire())).rcode() == dns.rcode.NOERROR


async def test_truncation_and_tcp(bookinfo: Mesh) -> None:
    pods = [{"addresses": [f"10.88.2.{number}"]} for number in range(1, 201)]
    bookinfo.names.put("EndpointSlice", endpoints("db-2", "db", *pods))
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({}, 512),
        ({"use_edns": 0, "payload": 100}, 512),
        ({"use_edns": 0, "payload": 9000}, 1232),
    )
    for options, limit in cases:
        cut = await bookinfo.ask("db.default", **options)
        assert cut.flags & dns.flags.TC
        assert len(cut.to_wire()) <= limit
    assert len(_found(await bookinfo.ask("db.default", tcp=True))) == 202


async def test_a_search_list_finds_short_names_first(bookinfo: Mesh, upstream: Upstream) -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = bookinfo.port
    resolver.ndots = 5
    resolver.search = [
        dns.name.from_text(each) for each in ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
    ]
    for name in ("reviews", "reviews.default", "reviews.default.svc", REVIEWS):
        answer = await resolver.resolve(name, "A", search=True)
        assert [str(each) for each in answer] == ["10.96.0.5"], name
    external = await resolver.resolve("api.example.com", "A", search=True)
    assert [str(each) for each in external] == ["240.240.0.1"]
    with pytest.raises(dns.resolver.NoAnswer):
        await resolver.resolve("reviews", "AAAA", search=True)
    assert upstream.asked == []
    assert [str(each) for each in await resolver.resolve("known.example.com", "A", search=True)] == ["192.0.2.1"]
    assert upstream.asked == ["known.example.com. A"]


async def test_what_the_mesh_does_not_know_goes_on_whatever_it_is(bookinfo: Mesh, upstream: Upstream) -> None:
    for kind in ("A", "AAAA", "TXT", "MX", "SRV", "CAA", "TYPE65280"):
        await bookinfo.ask("other.example.org", kind)
    assert len(upstream.asked) == 7


async def test_a_change_counts_at_once(bookinfo: Mesh) -> None:
    for last in range(10, 30):
        bookinfo.names.put("Service", service("moving", clusterIP=f"10.96.1.{last}"))
        for _ in range(2):
            assert _found(await bookinfo.ask("moving.default")) == [f"moving.default. A 10.96.1.{last}"]
    bookinfo.names.delete("Service", service("moving"))
    assert (await bookinfo.ask("moving.default.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN


async def test_a_resolver_that_hangs_stalls_nobody(upstream: Upstream) -> None:
    upstream.silent = True
    hanging = Mesh(Resolvers((upstream.resolver, Resolver("127.0.0.1", upstream.resolver.port)), timeout_s=0.5))
    for kind in KINDS:
        hanging.names.replace(kind, [])
    hanging.names.put("Service", service("reviews", clusterIP="10.96.0.5"))
    await hanging.start()
    try:
        waiting = [asyncio.create_task(hanging.ask(f"name-{number}.example.com")) for number in range(100)]
        slowest = 0.0
        for number in range(100):
            started = time.perf_counter()
            assert _found(await hanging.ask("reviews.default"))
            hanging.names.put("Service", service("other", clusterIP=f"10.96.2.{number}"))  # nothing is kept
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 0.5
        codes = {each.rcode() for each in await asyncio.gather(*waiting)}
        assert codes == {dns.rcode.SERVFAIL}
    finally:
        await hanging.server.close()


async def test_a_resolver_that_answers_something_else_is_not_believed() -> None:
    class Liar(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (the stubs' base says BaseTransport)
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            other = dns.message.make_query("bank.example.com", "A")
            other.id = int.from_bytes(data[:2])
            response = dns.message.make_response(other)
            self.transport.sendto(response.to_wire(), addr)
            self.transport.sendto(data, addr)  # not even an answer
            right = dns.message.make_response(dns.message.from_wire(data))
            right.set_rcode(dns.rcode.NXDOMAIN)
            self.transport.sendto(right.to_wire(), addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Liar, local_addr=("127.0.0.1", 0))
    resolvers = Resolvers((Resolver("127.0.0.1", transport.get_extra_info("sockname")[1]),))
    answer = await resolvers.ask(dns.message.make_query("shop.example.com", "A").to_wire(), tcp=False)
    transport.close()
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (str(message.question[0].name), message.rcode()) == ("shop.example.com.", dns.rcode.NXDOMAIN)


@pytest.mark.parametrize(
    "lie", ["another question", "nothing at all", "half an answer", "the question itself", "hangs"]
)
async def test_a_resolver_that_lies_over_tcp_is_passed_over(upstream: Upstream, lie: str) -> None:
    """The next resolver is asked, and within a bounded time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        query = dns.message.from_wire(await reader.readexactly(size))
        other = dns.message.make_response(dns.message.make_query("bank.example.com", "A"))
        other.id = query.id
        said = {
            "another question": other.to_wire(),
            "nothing at all": b"",
            "half an answer": dns.message.make_response(query).to_wire()[:9],
            "the question itself": query.to_wire(),
        }
        if lie == "hangs":
            await reader.read()
        else:
            writer.write(len(said[lie]).to_bytes(2) + said[lie])
        writer.close()

    liar = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = liar.sockets[0].getsockname()[1]
    resolvers = Resolvers((Resolver("127.0.0.1", port), upstream.resolver), timeout_s=1)
    found = await resolvers.ask(dns.message.make_query("known.example.com", "A").to_wire(), tcp=True)
    liar.close()
    assert found is not None
    assert _found(dns.message.from_wire(found)) == ["known.example.com. A 192.0.2.1"]


async def test_a_program_that_asks_the_system_does_not_hang_with_the_resolvers(upstream: Upstream) -> None:
    """All resolvers of the machine hang: a program gets its failure in time, and from then on at once."""
    upstream.silent = True
    made = Mesh(Resolvers((upstream.resolver,), timeout_s=0.2))
    for kind in KINDS:
        made.names.replace(kind, [])
    await made.start()
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], made.port, 30
    try:
        for _ in range(3):
            with pytest.raises(dns.resolver.NoNameservers):  # a failure, not the end of the caller's patience
                await resolver.resolve("www.example.com", "A")
        asked = len(upstream.asked)
        for _ in range(20):
            with pytest.raises(dns.resolver.NoNameservers):
                await resolver.resolve("www.example.com", "A")
        assert len(upstream.asked) == asked, "who stays silent is not waited for again"
    finally:
        await made.server.close()


async def test_slow_clients_of_names_make_room(mesh: Mesh) -> None:
    """Over TCP: they are hung up on in time, there are only so many, and others get their answers."""
    slow = [await asyncio.open_connection("127.0.0.1", mesh.port) for _ in range(MAX_CONNECTIONS + 50)]
    for _, writer in slow:
        writer.write(b"\0")
    assert (await mesh.ask("known.example.com", tcp=True)).answer
    assert (await mesh.ask("known.example.com")).answer
    assert mesh.server.connections <= MAX_CONNECTIONS
    async with asyncio.timeout(TCP_IDLE_S + 20):
        for reader, writer in slow:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(1) == b""
            writer.close()
    assert mesh.server.connections == 0
