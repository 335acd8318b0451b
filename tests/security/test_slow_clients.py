"""Clients that are slow and clients that are many, on every port of the control plane.

Slow is: to say nothing, to stop within a handshake, a request's head or its body, to speak no HTTP/2 after the
handshake, to send a byte now and then. Each such connection is ended within a stated time, and others are served
meanwhile; ten thousand connections leave neither descriptors nor memory behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from lateen.apiserver import serving
from lateen.apiserver.connections import CONNECTIONS
from lateen.lib.keypair import new_request
from tests.security.plane import CLUSTER, Attacked, attacked
from tests.security.slow import ends

VAULT = "sidecar~10.0.0.2~vault-1.bank~bank.svc.cluster.local"
SLACK_S = 10.0
"""What a busy machine may add to a stated time."""
TLS_S = 10.0
"""What gRPC has for a handshake, with the first frame of HTTP/2 (`SERVER_OPTIONS`)."""
AGE_S = 30.0 + 10.0
"""How old a connection to the port of logins gets (`SHORT_CONNECTIONS`)."""
EACH = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Attacked]:
    async with attacked() as made:
        yield made


@dataclass(frozen=True)
class Slow:
    """A way to be slow: what is said at once, what is said again all the time, and when the connection must be over.
    `tls`: after a handshake, as the client it makes."""

    name: str
    port: Callable[[Attacked], int]
    says: bytes
    ends_within_s: float
    tls: Callable[[Attacked], ssl.SSLContext] | None = None
    again: bytes = b""


def _anybody(plane: Attacked) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _h2(plane: Attacked) -> ssl.SSLContext:
    context = _anybody(plane)
    context.set_alpn_protocols(["h2"])
    return context


def _owner(plane: Attacked) -> ssl.SSLContext:
    context = _anybody(plane)
    context.load_cert_chain(plane.layout.api / "owner.crt", plane.layout.api / "owner.key")
    return context


def _vault(plane: Attacked) -> ssl.SSLContext:
    """With the certificate that `identity` left."""
    context = _h2(plane)
    context.load_cert_chain(plane.layout.state / "vault.pem")
    return context


def _console(plane: Attacked) -> int:
    return plane.settings.console_port


def _debug(plane: Attacked) -> int:
    return plane.settings.debug_port


def _api(plane: Attacked) -> int:
    return plane.settings.api_port


def _xds(plane: Attacked) -> int:
    return plane.settings.xds_port


def _login(plane: Attacked) -> int:
    return plane.settings.vm_login_port


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-"
BODY = (
    b"POST /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
QUICK = (
    Slow("console, nothing", _console, b"", serving.HEAD_S),
    Slow("console, a head byte by byte", _console, HEAD, serving.HEAD_S, again=b"a"),
    Slow("debug port, nothing", _debug, b"", serving.HEAD_S),
    Slow("debug port, a head byte by byte", _debug, HEAD, serving.HEAD_S, again=b"a"),
    Slow("API, nothing", _api, b"", serving.HEAD_S),
    Slow("API, a handshake byte by byte", _api, HELLO, serving.HEAD_S, again=b"\0"),
    Slow("API, nothing after the handshake", _api, b"", serving.HEAD_S, _anybody),
    Slow("API, a head byte by byte", _api, HEAD, serving.HEAD_S, _anybody, again=b"a"),
    Slow("API, a stranger's body", _api, BODY, serving.HEAD_S, _anybody),
    Slow("xDS, nothing", _xds, b"", TLS_S),
    Slow("xDS, a handshake byte by byte", _xds, HELLO, TLS_S, again=b"\0"),
    Slow("xDS, no HTTP/2", _xds, b"", TLS_S, _vault),
    Slow("xDS, no SETTINGS", _xds, PREFACE, TLS_S, _vault),
    Slow("login, nothing", _login, b"", TLS_S),
    Slow("login, a handshake byte by byte", _login, HELLO, TLS_S, again=b"\0"),
    Slow("login, no HTTP/2", _login, b"", TLS_S, _h2),
    Slow("login, no SETTINGS", _login, PREFACE, TLS_S, _h2),
)
LONG = (
    Slow("API, the owner's body", _api, BODY, serving.BODY_S, _owner, again=b" "),
    Slow("login, no call", _login, PREFACE + SETTINGS, AGE_S, _h2),
    Slow("login, a call without its message", _login, PREFACE + SETTINGS, AGE_S, _h2, again=b""),
)


async def test_slow_clients_are_hung_up_on_and_hold_up_nobody(plane: Attacked) -> None:
    await slow_ones(plane, QUICK)


@pytest.mark.long
async def test_so_are_those_that_may_take_longer(plane: Attacked) -> None:
    await slow_ones(plane, LONG)


async def slow_ones(plane: Attacked, ways: tuple[Slow, ...]) -> None:
    """Opens all of them at once, asks every port as others do, and waits for their end."""
    if not plane.settings.vm_host:
        ways = tuple(each for each in ways if each.port is not _login)
    await others(plane)  # makes the certificate
    before = plane.open_files
    opened = await asyncio.to_thread(lambda: [each for way in ways for each in opened_slow(plane, way)])
    limit_s = max(way.ends_within_s for way in ways) + 2 * SLACK_S
    watching = asyncio.create_task(asyncio.to_thread(ends, opened, limit_s))
    await others(plane)
    ended = await watching
    late = {way.name: lasted_s for way, lasted_s in ended if lasted_s > way.ends_within_s + SLACK_S}
    assert not late
    assert len(ended) == len(opened)
    async with asyncio.timeout(30):
        while plane.open_files > before + 5:
            await asyncio.sleep(0.1)


RUBBISH = (
    b"\0" * 64,
    os.urandom(8_192),
    b"\x16\x03\x01\xff\xff" + os.urandom(70_000),
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /lateen/v1/usage HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    PREFACE + b"\xff" * 9 + os.urandom(20_000),
    PREFACE + SETTINGS + b"\x7f\xff\xff\x01\x04\x00\x00\x00\x01" + b"\x80" * 4_096,
)


async def test_rubbish_on_every_port_changes_nothing(plane: Attacked) -> None:
    """As bytes, and within TLS where a port speaks it."""
    await others(plane)
    memory_kb, files = plane.memory_kb(), plane.open_files
    ways: list[tuple[Callable[[Attacked], int], Callable[[Attacked], ssl.SSLContext] | None]] = [
        *((port, None) for port in (_console, _debug, _api, _xds, _login)),
        *((_api, context) for context in (_anybody, _owner)),
        (_xds, _vault),
        (_login, _h2),
    ]
    if not plane.settings.vm_host:
        ways = [each for each in ways if each[0] is not _login]
    for port, tls in ways:
        for sent in RUBBISH:
            await asyncio.to_thread(throw, plane, port, tls, sent)
    await others(plane)
    assert "Traceback" not in plane.log.read_text()
    assert plane.memory_kb() < memory_kb + 50_000
    async with asyncio.timeout(30):
        while plane.open_files > files + 5:
            await asyncio.sleep(0.1)


def throw(
    plane: Attacked, port: Callable[[Attacked], int], tls: Callable[[Attacked], ssl.SSLContext] | None, sent: bytes
) -> None:
    """Says something, and hears out what comes back."""
    host = plane.settings.vm_host if port is _login else "127.0.0.1"
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.create_connection((host, port(plane)), 30))
        if tls is not None:
            one = stack.enter_context(tls(plane).wrap_socket(one, server_hostname="localhost"))
        one.settimeout(1)
        one.sendall(sent)
        while one.recv(65536):
            pass


def opened_slow(plane: Attacked, way: Slow) -> Iterator[tuple[Slow, socket.socket, float]]:
    """Such connections, on which has been said what is said at once, and when each was opened."""
    host = plane.settings.vm_host if way.port is _login else "127.0.0.1"
    context = way.tls(plane) if way.tls is not None else None
    for _ in range(EACH):
        at = time.monotonic()
        one = socket.create_connection((host, way.port(plane)), 30)
        if context is not None:
            one = context.wrap_socket(one, server_hostname="localhost")
        one.sendall(way.says)
        yield way, one, at


async def others(plane: Attacked) -> None:
    """Every port serves who asks as one should."""
    page = await asyncio.to_thread(plane.page, "/healthz")
    assert page.status_code == 200
    key, chain = await plane.identity("bank")
    (plane.layout.state / "vault.pem").write_text(key + chain)
    async with plane.channel(key, chain) as channel:
        assert (await plane.ask(channel, VAULT, CLUSTER)).type_url == CLUSTER
    assert await asyncio.to_thread(namespaces, plane) >= 2
    if plane.settings.vm_host:
        chain_of_login = await plane.login.sign(new_request()[1], token=await plane.token("bank"))
        assert len(chain_of_login) > 1


def namespaces(plane: Attacked) -> int:
    """How many there are, as the owner sees it over TLS."""
    with (
        socket.create_connection(("127.0.0.1", plane.settings.api_port), 30) as plain,
        _owner(plane).wrap_socket(plain, server_hostname="localhost") as one,
    ):
        one.sendall(b"GET /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b"".join(iter(lambda: one.recv(65536), b""))
    return len(json.loads(got.partition(b"\r\n\r\n")[2])["items"])


@pytest.mark.long
async def test_ten_thousand_connections(plane: Attacked, capsys: pytest.CaptureFixture[str]) -> None:
    """To each port, within a handshake or before a request: others are served, and nothing is left behind."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 18_000:
        pytest.skip(f"this machine allows {hard} open files a process: the control plane cannot take 10,000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    await others(plane)
    memory_kb, files = plane.memory_kb(), plane.open_files
    for port in (_xds, _api, _console):
        with many(port(plane), 10_000) as made:
            await others(plane)
            most_kb, most_files = plane.memory_kb(), plane.open_files
        async with asyncio.timeout(120):
            while plane.open_files > files + 20 or plane.memory_kb() > memory_kb + 100_000:
                await asyncio.sleep(0.2)
        with capsys.disabled():
            print(  # noqa: T201
                f"\n  port {port.__name__.strip('_')}: {made} connections, {files} -> {most_files} -> "
                f"{plane.open_files} files, {memory_kb} -> {most_kb} -> {plane.memory_kb()} kB"
            )
        assert made == 10_000
        assert most_files >= 10_000 if port is _xds else most_files <= files + CONNECTIONS + 100
    assert await plane.client.ready()
    assert "Traceback" not in plane.log.read_text()


@contextlib.contextmanager
def many(port: int, count: int) -> Iterator[int]:
    """That many connections to a port of this machine, from many addresses; how many there are."""
    opened: list[socket.socket] = []
    try:
        for number in range(count):
            one = socket.socket()
            opened.append(one)
            one.bind((f"127.0.1.{number % 200 + 1}", 0))
            one.settimeout(30)
            one.connect(("127.0.0.1", port))
        yield len(opened)
    finally:
        for one in opened:
            one.close()
