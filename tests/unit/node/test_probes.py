"""Probes of a machine's application, against real servers, commands and clocks."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lateen.node.probes import Exec, Grpc, HttpGet, Probe, TcpSocket, attempt, watch

HERE = "127.0.0.1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    made = await asyncio.start_server(handler, HERE, 0, ssl=tls)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def answering(status: int, seen: list[str]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    return handle


@pytest.mark.parametrize(("status", "good"), [(200, True), (302, True), (399, True), (400, False), (503, False)])
async def test_http_is_good_up_to_399(status: int, good: bool) -> None:
    async with server(answering(status, [])) as port:
        why = await attempt(Probe(http_get=HttpGet(port)), HERE)
    assert why == ("" if good else f"HTTP status {status}")


async def test_http_says_what_it_is_told() -> None:
    seen: list[str] = []
    async with server(answering(200, seen)) as port:
        get = HttpGet(port, host="localhost", path="health?x=1", http_headers=())
        assert await attempt(Probe(http_get=get), "192.0.2.1") == ""
    assert seen[0].startswith("GET /health?x=1 HTTP/1.1\r\n")
    assert f"host: localhost:{port}\r\n" in seen[0]


async def test_https_asks_whether_and_not_who(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    async with server(answering(200, []), context) as port:
        assert await attempt(Probe(http_get=HttpGet(port, scheme="HTTPS")), HERE) == ""
        assert await attempt(Probe(http_get=HttpGet(port, scheme="HTTP")), HERE) == "no HTTP answer"


async def test_what_does_not_answer_has_failed_in_time() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with server(hang) as port:
        assert await attempt(Probe(http_get=HttpGet(port), timeout_seconds=1), HERE) == "no answer in 1 s"
        assert await attempt(Probe(tcp_socket=TcpSocket(port)), HERE) == ""
    assert await attempt(Probe(tcp_socket=TcpSocket(port)), HERE) == "Connection refused"


async def test_a_command_counts_by_its_exit_code(tmp_path: Path) -> None:
    assert await attempt(Probe(exec=Exec(("true",))), HERE) == ""
    said = await attempt(Probe(exec=Exec(("sh", "-c", "echo no disk; exit 3"))), HERE)
    assert said == "exit code 3: no disk"
    assert "No such file" in await attempt(Probe(exec=Exec(("/no/such/program",))), HERE)


async def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    hanging = Exec(("sh", "-c", f"sleep 1000 & echo $! > {note}; wait"))
    assert await attempt(Probe(exec=hanging, timeout_seconds=1), HERE) == "no answer in 1 s"
    async with asyncio.timeout(10):
        while Path(f"/proc/{note.read_text().strip()}").exists() and not _zombie(note.read_text().strip()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("status", "why"), [(1, ""), (2, "not SERVING"), (0, "not SERVING")])
async def test_grpc_health(status: int, why: str) -> None:
    asked: list[bytes] = []

    async def check(request: bytes, context: object) -> bytes:
        asked.append(request)
        return bytes((8, status)) if status else b""

    made = grpc.aio.server()
    handlers: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = made.add_insecure_port(f"{HERE}:0")
    await made.start()
    try:
        assert await attempt(Probe(grpc=Grpc(port, "orders")), HERE) == why
        assert await attempt(Probe(grpc=Grpc(port)), HERE) == why
    finally:
        await made.stop(None)
    assert asked == [b"\x0a\x06orders", b""]


async def test_thresholds_decide_when_the_verdict_changes(tmp_path: Path) -> None:
    results = iter([False, True, True, False, False, True, False, False, False])
    verdicts: list[tuple[int, bool]] = []
    count = 0
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        good = next(results, None)
        if good is None:
            done.set()
            good = False
        count += 1
        await answering(200 if good else 500, [])(reader, writer)

    async with server(handle) as port:
        probe = _Fast(http_get=HttpGet(port), success_threshold=2, failure_threshold=3, timeout_seconds=5)
        task = asyncio.create_task(watch(probe, HERE, lambda healthy, _: verdicts.append((count, healthy))))
        async with asyncio.timeout(30):
            await done.wait()
        task.cancel()
    assert verdicts == [(3, True), (9, False)]


class _Fast(Probe, frozen=True):
    @property
    def period_s(self) -> float:
        return 0.01


def test_what_is_not_said_is_as_in_kubernetes() -> None:
    probe = Probe()
    assert (probe.period_s, probe.timeout_s, probe.successes, probe.failures) == (10, 1, 1, 3)


def _zombie(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def _certificate(directory: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = directory / "both.pem"
    file.touch(mode=0o600)
    file.write_bytes(secret + pem)
    return str(file)
