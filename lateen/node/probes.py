"""The probe of a machine's application: asked again and again, and heard when its answer is another one.

The four ways are those of WorkloadGroup: an HTTP request (2xx and 3xx are good), a TCP connection, a command that
ends with 0, and gRPC's health service. Times and thresholds count as for Kubernetes' readiness probes; a probe that
does not answer in time has failed, whatever it is doing. HTTP and TCP go to the machine's own address unless a host
is named, and never through the proxy.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/ and
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

import grpc
import grpc.aio
import msgspec

from lateen.lib.protobuf import text_field

MAX_HEAD_BYTES = 64 << 10
MAX_OUTPUT_BYTES = 500


class _Header(msgspec.Struct, frozen=True):
    name: str = ""
    value: str = ""


class HttpGet(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    host: str | None = None
    path: str | None = None
    scheme: str | None = None
    http_headers: tuple[_Header, ...] = ()


class TcpSocket(msgspec.Struct, frozen=True):
    port: int
    host: str | None = None


class Exec(msgspec.Struct, frozen=True):
    command: tuple[str, ...] = ()


class Grpc(msgspec.Struct, frozen=True):
    port: int | None = None
    service: str | None = None


class Probe(msgspec.Struct, frozen=True, rename="camel"):
    """A probe as WorkloadGroup writes it; a time or threshold of 0 means its default."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    grpc: Grpc | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 0
    timeout_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0

    @property
    def period_s(self) -> float:
        return self.period_seconds or 10

    @property
    def timeout_s(self) -> float:
        return self.timeout_seconds or 1

    @property
    def successes(self) -> int:
        return self.success_threshold or 1

    @property
    def failures(self) -> int:
        return self.failure_threshold or 3


class Failed(Exception):
    """One attempt did not succeed; the message says how."""


async def watch(
    probe: Probe,
    address: str,
    changed: Callable[[bool, str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probes until cancelled. `changed(healthy, why)` is called with the first verdict and with every other one."""
    loop = asyncio.get_running_loop()
    verdict: bool | None = None
    streak = 0
    await sleep(probe.initial_delay_seconds)
    while True:
        began = loop.time()
        why = await attempt(probe, address)
        streak = max(streak, 0) + 1 if not why else min(streak, 0) - 1
        if streak >= probe.successes and verdict is not True:
            verdict = True
            changed(True, "")
        elif -streak >= probe.failures and verdict is not False:
            verdict = False
            changed(False, why)
        await sleep(max(0.0, began + probe.period_s - loop.time()))


async def attempt(probe: Probe, address: str) -> str:
    """One attempt: empty when it succeeded, else why not."""
    try:
        async with asyncio.timeout(probe.timeout_s):
            if probe.http_get is not None:
                await _http(probe.http_get, address)
            elif probe.tcp_socket is not None:
                await _tcp(probe.tcp_socket, address)
            elif probe.exec is not None:
                await _command(probe.exec)
            elif probe.grpc is not None:
                await _grpc(probe.grpc, address)
    except TimeoutError:
        return f"no answer in {probe.timeout_s:g} s"
    except ssl.SSLError as error:
        return f"TLS failed: {error.reason}"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except (EOFError, Failed) as error:
        return str(error) or type(error).__name__
    return ""


async def _http(get: HttpGet, address: str) -> None:
    host = get.host or address
    tls = (get.scheme or "HTTP").upper() == "HTTPS"
    context = _any_certificate() if tls else None
    reader, writer = await asyncio.open_connection(host, get.port, ssl=context)
    try:
        path = get.path or "/"
        headers = {"host": f"{host}:{get.port}", "user-agent": "lateen-probe", "connection": "close", "accept": "*/*"}
        headers |= {each.name.lower(): each.value for each in get.http_headers}
        lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        line = await reader.readline()
    finally:
        writer.close()
    words = line.split()
    status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
    if not status:
        raise Failed("no HTTP answer")
    if not 200 <= status < 400:
        raise Failed(f"HTTP status {status}")


def _any_certificate() -> ssl.SSLContext:
    """A probe asks whether an application answers, not who it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _tcp(tcp: TcpSocket, address: str) -> None:
    _, writer = await asyncio.open_connection(tcp.host or address, tcp.port)
    writer.close()


async def _command(run: Exec) -> None:
    process = await asyncio.create_subprocess_exec(
        *run.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        output = await process.stdout.read(MAX_OUTPUT_BYTES)
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started goes too
        await process.wait()
    if code:
        said = output.decode(errors="replace").strip()
        raise Failed(f"exit code {code}{': ' + said if said else ''}")


async def _grpc(health: Grpc, address: str) -> None:
    async with grpc.aio.insecure_channel(f"{address}:{health.port}") as channel:
        check = cast(
            "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary("/grpc.health.v1.Health/Check")
        )
        try:
            # HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1, SERVING = 1}
            answer = await check(text_field(1, health.service) if health.service else b"")
        except grpc.aio.AioRpcError as error:
            raise Failed(f"gRPC {error.code().name}") from None
    if b"\x08\x01" not in answer[:2]:
        raise Failed("not SERVING")
