"""The names proxy of a node: answers for the mesh's names, relays every other question to the machine's resolvers.

A name of the mesh that has no address of the asked family gets an empty answer, not "no such name" (which would
end the lookup of the other family too). What is in the cluster's domain but unknown does not exist, and neither do
reverse names of private addresses: no question about the mesh leaves the machine, and programs that look up their
own address at start do not wait. It listens on sockets it is given, since they live in the mesh's network.

Answers without a record carry the zone's SOA, so that they are kept no longer than others (RFC 2308). Answers from
the table are kept as bytes until it changes: a program in a loop costs next to nothing.

Sources: RFC 1035, RFC 2308 (negative answers), RFC 2782 (SRV), RFC 6303 (locally served zones), RFC 6891 (EDNS),
RFC 7766 (TCP).
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import struct
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
import structlog

from lateen.node.names import Found, Names
from lateen.node.resolvers import Resolvers

TTL_S = 5
"""Addresses of headless Services change with their Pods."""
MAX_UDP_BYTES = 1232
MAX_ALIASES = 8
TCP_IDLE_S = 10.0
MAX_TASKS = 1024
MAX_CONNECTIONS = 256
"""TCP connections at a time; one more ends the one that has been silent longest."""
RECEIVE_BYTES = 1 << 20
"""Questions that wait in the kernel: all Pods of a node may start at once."""
MAX_KEPT = 20_000
"""Answers kept as bytes."""

_log = structlog.stdlib.get_logger("lateen.node.dns")

_FAMILIES = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


class NameServer:
    """Answers from a table that others keep up to date.

    Without `external` the hosts of ServiceEntries are asked elsewhere: a proxy that looks up where to connect to must
    not get the virtual address that leads its application to it. With `private` reverse names of private addresses
    are this table's alone; a machine outside of the Pods has a network of its own that knows them.
    """

    def __init__(
        self,
        names: Names,
        resolvers: Resolvers,
        shuffle: Callable[[list[str]], None] = random.shuffle,
        *,
        external: bool = True,
        private: bool = True,
    ) -> None:
        self._external = external
        self._private = private
        self._names = names
        self._resolvers = resolvers
        self._shuffle = shuffle
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.Task[None], None] = {}
        self._kept: dict[tuple[bool, bytes], bytes] = {}
        self._kept_of = -1

    async def listen(self, udp: int, tcp: int) -> None:
        """Serves on two descriptors, a bound UDP socket and a listening TCP socket, in place of earlier ones. It
        owns them from now on."""
        datagrams = socket.socket(fileno=udp)
        listener = socket.socket(fileno=tcp)
        await self.close()
        datagrams.setblocking(False)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)  # the kernel gives what it allows
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        self._tcp = await asyncio.start_server(self._connection, sock=listener)
        _log.info("names served", udp=str(datagrams.getsockname()), tcp=str(listener.getsockname()))

    @property
    def connections(self) -> int:
        """How many there are over TCP."""
        return len(self._connections)

    async def close(self) -> None:
        """Stops listening; questions under way are dropped."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in (*self._tasks, *self._connections):
            task.cancel()

    def datagram(self, query: bytes, reply: Callable[[bytes], None]) -> None:
        """Takes one question that came over UDP. More than the limit at once are dropped; callers ask again."""
        known = self._known(query, tcp=False)
        if known is not None:
            reply(known)
            return
        if len(self._tasks) >= MAX_TASKS:
            return

        async def serve() -> None:
            answer = await self.answer(query, tcp=False)
            if answer is not None:
                reply(answer)

        self._spawn(asyncio.create_task(serve(), name="dns question"))

    async def answer(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer to one message in wire form; None for what is no question at all."""
        try:
            message = dns.message.from_wire(query)
        except (dns.exception.DNSException, ValueError):
            return _header_only(query, dns.rcode.FORMERR)
        if message.flags & dns.flags.QR:
            return None
        if message.opcode() != dns.opcode.QUERY:
            return _header_only(query, dns.rcode.NOTIMP)
        if len(message.question) != 1:
            return _header_only(query, dns.rcode.FORMERR)
        question = message.question[0]
        if message.edns > 0:
            refused = dns.message.make_response(message, our_payload=MAX_UDP_BYTES)
            refused.use_edns(0, payload=MAX_UDP_BYTES)
            refused.set_rcode(dns.rcode.BADVERS)
            return refused.to_wire()
        changes = self._names.changes
        response = dns.message.make_response(message, recursion_available=True, our_payload=MAX_UDP_BYTES)
        response.flags |= dns.flags.AA
        if question.rdclass != dns.rdataclass.IN or not await self._local(response, question.name, question.rdtype):
            relayed = await self._resolvers.ask(query, tcp=tcp)
            if relayed is not None:
                return relayed
            response.flags &= ~dns.flags.AA
            response.set_rcode(dns.rcode.SERVFAIL)
        limit = 65535 if tcp else max(512, min(message.payload, MAX_UDP_BYTES))
        wire = response.to_wire(max_size=limit, prefer_truncation=True)
        if response.flags & dns.flags.AA and self._fixed(response):
            self._keep(query, wire, changes, tcp=tcp)
        return wire

    def _known(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The kept answer to the same question, with this one's id."""
        if self._kept_of != self._names.changes:
            self._kept.clear()
            self._kept_of = self._names.changes
        wire = self._kept.get((tcp, query[2:]))
        return query[:2] + wire if wire is not None else None

    def _keep(self, query: bytes, wire: bytes, changes: int, *, tcp: bool) -> None:
        if changes == self._names.changes == self._kept_of and len(self._kept) < MAX_KEPT:
            self._kept[tcp, query[2:]] = wire[2:]

    @staticmethod
    def _fixed(response: dns.message.Message) -> bool:
        """Whether the answer is the same every time: no order to shuffle, nothing from elsewhere, no failure."""
        return response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and sum(map(len, response.answer)) < 2

    async def _local(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> bool:
        """Fills the response in when the table may answer; False when the question goes elsewhere."""
        text = name.to_text(omit_final_dot=True)
        found = self._find(text)
        if found is not None:
            await self._fill(response, name, kind, found)
            if not response.answer and response.rcode() == dns.rcode.NOERROR:
                self._deny(response, self._zone if self._names.owns(text) else name)
            return True
        if name.is_subdomain(dns.reversename.ipv4_reverse_domain) or name.is_subdomain(
            dns.reversename.ipv6_reverse_domain
        ):
            return self._reverse(response, name, kind)
        if self._names.owns(text):
            if kind == dns.rdatatype.SOA and name == self._zone:
                response.answer.append(_soa(name))
                return True
            if not self._names.above(text):
                response.set_rcode(self._unknown)
            self._deny(response, self._zone)
            return True
        return False

    def _find(self, name: str) -> Found | None:
        return self._names.find(name) if self._external or self._names.owns(name) else None

    @property
    def _zone(self) -> dns.name.Name:
        return dns.name.from_text(self._names.domain)

    @staticmethod
    def _deny(response: dns.message.Message, zone: dns.name.Name) -> None:
        """Says how long the absence of a record may be believed."""
        if response.rcode() != dns.rcode.SERVFAIL:
            response.authority.append(_soa(zone))

    @property
    def _unknown(self) -> dns.rcode.Rcode:
        """What to say of a name that only the table could know: before it is complete, to ask again."""
        return dns.rcode.NXDOMAIN if self._names.complete else dns.rcode.SERVFAIL

    async def _fill(
        self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType, found: Found
    ) -> None:
        for _ in range(MAX_ALIASES):
            if not found.alias:
                if kind == dns.rdatatype.SRV:
                    self._servers(response, name, found)
                    return
                family = _FAMILIES.get(kind)
                addresses = [each for each in found.addresses if ipaddress.ip_address(each).version == family]
                self._shuffle(addresses)
                if addresses:
                    response.answer.append(dns.rrset.from_text(name, TTL_S, dns.rdataclass.IN, kind, *addresses))
                return
            target = dns.name.from_text(found.alias)
            response.answer.append(
                dns.rrset.from_text(name, TTL_S, dns.rdataclass.IN, dns.rdatatype.CNAME, target.to_text())
            )
            name = target
            known = self._find(found.alias)
            if known is None:
                await self._follow(response, target, kind)
                return
            found = known
        response.answer.clear()
        response.set_rcode(dns.rcode.SERVFAIL)

    def _servers(self, response: dns.message.Message, name: dns.name.Name, found: Found) -> None:
        """SRV records, all alike, with the addresses of their targets beside them."""
        if not found.targets:
            return
        texts = [f"0 {100 // len(found.targets)} {each.port} {each.host}." for each in found.targets]
        response.answer.append(dns.rrset.from_text(name, TTL_S, dns.rdataclass.IN, dns.rdatatype.SRV, *texts))
        for host in dict.fromkeys(each.host for each in found.targets):
            known = self._names.find(host) or Found()
            for kind, family in _FAMILIES.items():
                mine = [each for each in known.addresses if ipaddress.ip_address(each).version == family]
                if mine:
                    target = dns.name.from_text(host)
                    response.additional.append(dns.rrset.from_text(target, TTL_S, dns.rdataclass.IN, kind, *mine))

    async def _follow(
        self, response: dns.message.Message, target: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> None:
        """Adds what the machine's resolvers say of an alias's target."""
        if kind == dns.rdatatype.CNAME:
            return
        if self._names.owns(target.to_text()):
            response.set_rcode(self._unknown)
            return
        relayed = await self._resolvers.ask(dns.message.make_query(target, kind).to_wire(), tcp=False)
        try:
            answer = dns.message.from_wire(relayed) if relayed is not None else None
        except (dns.exception.DNSException, ValueError):
            answer = None
        if answer is None:
            response.answer.clear()
            response.set_rcode(dns.rcode.SERVFAIL)
            return
        response.set_rcode(answer.rcode())
        response.answer += answer.answer

    def _reverse(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> bool:
        try:
            address = dns.reversename.to_address(name)
        except (dns.exception.DNSException, ValueError):
            return False
        known = self._names.reverse(address)
        if known is not None:
            if kind == dns.rdatatype.PTR:
                response.answer.append(dns.rrset.from_text(name, TTL_S, dns.rdataclass.IN, kind, f"{known}."))
            else:
                self._deny(response, name.parent())
            return True
        if self._private and ipaddress.ip_address(address).is_private:
            response.set_rcode(dns.rcode.NXDOMAIN)
            self._deny(response, name.parent())
            return True
        return False

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                self._connections.pop(task, None)
                self._connections[task] = None
                if len(self._connections) > MAX_CONNECTIONS:
                    next(iter(self._connections)).cancel()
                async with asyncio.timeout(TCP_IDLE_S):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(size)
                answer = self._known(query, tcp=True) or await self.answer(query, tcp=True)
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                async with asyncio.timeout(TCP_IDLE_S):
                    await writer.drain()
        except (TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # nobody waits for this task
        except (OSError, EOFError):
            return
        finally:
            del self._connections[task]
            writer.close()

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("question failed", exc_info=error)


def _soa(zone: dns.name.Name) -> dns.rrset.RRset:
    """A zone's start of authority; its last number, and its own life, are the life of an absence."""
    text = f"ns.dns.{zone} hostmaster.{zone} 1 7200 1800 86400 {TTL_S}"
    return dns.rrset.from_text(zone, TTL_S, dns.rdataclass.IN, dns.rdatatype.SOA, text)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (the stubs' base says BaseTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        assert transport is not None
        self._server.datagram(data, lambda answer: transport.sendto(answer, addr))


def _header_only(query: bytes, code: dns.rcode.Rcode) -> bytes | None:
    """An answer to what could not be read: the query's id and a code; None when there is no header, or it is an
    answer itself."""
    if len(query) < 12 or query[2] & 0x80:
        return None
    return query[:2] + bytes((query[2] & 0x79 | 0x80, 0x80 | int(code))) + bytes(8)
