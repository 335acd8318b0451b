"""The machine's own resolvers: where names go that the mesh does not know, without ever stalling a caller.

Each question goes to one resolver after another, over UDP or TCP as it came, each with a time limit. A resolver
that is unreachable is passed over at once, one that twice in a row stayed silent is left out for a while; when
none is left the answer is a failure at once, not after a timeout. Messages are relayed as bytes.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from pathlib import Path

import msgspec

RESOLV_CONF = Path("/etc/resolv.conf")
SILENT_LIMIT = 2
REST_S = 5.0
TIMEOUT_S = 2.0
MAX_PENDING = 512


class Resolver(msgspec.Struct, frozen=True):
    """A name server's address."""

    host: str
    port: int = 53


class _Health(msgspec.Struct):
    silent: int = 0
    rests_until: float = 0.0


class Resolvers:
    """Asks the resolvers of a resolv.conf, read anew when it changes, or those that are given."""

    def __init__(
        self, given: tuple[Resolver, ...] | None = None, *, conf: Path = RESOLV_CONF, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._given = given
        self._conf = conf
        self._timeout_s = timeout_s
        self._read_at = (0, 0)
        self._from_conf: tuple[Resolver, ...] = ()
        self._health: dict[Resolver, _Health] = {}
        self._pending = 0

    def current(self) -> tuple[Resolver, ...]:
        """The resolvers that would be asked, in order."""
        if self._given is not None:
            return self._given
        try:
            stat = self._conf.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._read_at:
                self._from_conf = _servers(self._conf.read_text())
                self._read_at = (stat.st_mtime_ns, stat.st_ino)
        except OSError:
            self._from_conf = ()
        return self._from_conf

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a DNS message, with the query's id; None when no resolver gave one. Takes at most the time
        limit for each resolver, and no time when all are known to be silent."""
        if self._pending >= MAX_PENDING or len(query) < 12:
            return None
        loop = asyncio.get_running_loop()
        self._pending += 1
        try:
            for resolver in self.current():
                health = self._health.setdefault(resolver, _Health())
                if health.rests_until > loop.time():
                    continue
                try:
                    async with asyncio.timeout(self._timeout_s):
                        answer = await (_over_tcp if tcp else _over_udp)(resolver, query)
                except TimeoutError:
                    health.silent += 1
                    if health.silent >= SILENT_LIMIT:
                        health.rests_until = loop.time() + REST_S
                except (OSError, EOFError):
                    continue
                else:
                    health.silent = 0
                    return answer
            return None
        finally:
            self._pending -= 1


def _servers(text: str) -> tuple[Resolver, ...]:
    """The name servers of a resolv.conf; glibc reads three at most."""
    lines = (line.split() for line in text.splitlines())
    return tuple(Resolver(words[1]) for words in lines if len(words) > 1 and words[0] == "nameserver")[:3]


async def _over_udp(resolver: Resolver, query: bytes) -> bytes:
    # A port and an id of our own for each question: forged answers have to guess both.
    number = secrets.token_bytes(2)
    loop = asyncio.get_running_loop()
    family, kind, _, _, address = (
        await loop.getaddrinfo(resolver.host, resolver.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    )[0]
    with socket.socket(family, kind) as connection:
        connection.setblocking(False)
        connection.connect(address)
        await loop.sock_sendall(connection, number + query[2:])
        while True:
            answer = await loop.sock_recv(connection, 65535)
            if answer[:2] == number and len(answer) >= 12 and _answers(query, answer):
                return query[:2] + answer[2:]


async def _over_tcp(resolver: Resolver, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver.host, resolver.port)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(size)
    finally:
        writer.close()
    if len(answer) < 12 or answer[:2] != query[:2] or not _answers(query, answer):
        raise OSError("an answer to another question")
    return answer


def _answers(query: bytes, answer: bytes) -> bool:
    """Whether an answer repeats the question, in whatever case; one that refuses to read it need not."""
    if not answer[2] & 0x80:
        return False
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    question = query[12 : end + 5].lower()
    empty = answer[4:6] == b"\x00\x00" and answer[3] & 15 != 0
    return empty or answer[12 : 12 + len(question)].lower() == question
