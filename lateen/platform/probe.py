"""Probes: one attempt at a time, from inside the Pod's own network, on the init's event loop.

A probe by HTTP or TCP goes straight to the application (the capture rules leave the Pod's own loopback traffic
alone), so mutual TLS and the proxy never stand in its way. HTTPS is tried in a forked child, without checking the
certificate, as Kubernetes does; `exec` runs inside the container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable

from lateen.platform.pod import Exec, HttpGet, TcpSocket
from lateen.platform.process import Started
from lateen.platform.reactor import READ, WRITE, Reactor

Result = Callable[[bool, str], None]
"""Told once: success, and what was seen."""

BODY_BYTES = 16384
OUTPUT_BYTES = 1024


class Attempt:
    """One attempt; `cancel()` ends it without a result."""

    def __init__(self, reactor: Reactor, timeout_s: float, done: Result) -> None:
        self._reactor = reactor
        self._done: Result | None = done
        self._timer = reactor.later(timeout_s, lambda: self.finish(False, f"no answer within {timeout_s:g} s"))
        self._cleanup: list[Callable[[], None]] = []

    def on_end(self, call: Callable[[], None]) -> None:
        """Call when the attempt is over in whatever way."""
        self._cleanup.append(call)

    def cancel(self) -> None:
        """Give up; nothing is told."""
        self._done = None
        self._end()

    def finish(self, ok: bool, what: str) -> None:
        """Tell the result, once."""
        done, self._done = self._done, None
        self._end()
        if done:
            done(ok, what)

    def _end(self) -> None:
        self._timer.cancel()
        for call in self._cleanup:
            call()
        self._cleanup.clear()


def http_get(reactor: Reactor, address: str | tuple[str, int], get: HttpGet, timeout_s: float, done: Result) -> Attempt:
    """GET by plain HTTP from a (host, port) or a Unix socket's path."""
    headers = dict(get.headers)
    names = {name.lower() for name in headers}
    if "host" not in names:
        headers["Host"] = get.host or (address if isinstance(address, tuple) else ("localhost",))[0]
    if "user-agent" not in names:
        headers["User-Agent"] = "lateen-probe"
    path = get.path if get.path.startswith("/") else f"/{get.path}"
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "Connection: close", "", ""]
    return exchange(reactor, address, "\r\n".join(lines).encode(), timeout_s, done)


def judge_status(answer: bytes) -> tuple[bool, str]:
    """Success is a status of 200-399."""
    status, body = read_answer(answer)
    if not status:
        return False, "the answer is not HTTP" if answer else "the connection was closed without an answer"
    text = body[:OUTPUT_BYTES].decode(errors="replace").strip()
    return 200 <= status < 400, f"HTTP status {status}: {text}" if status >= 400 and text else f"HTTP status {status}"


def read_answer(answer: bytes) -> tuple[int, bytes]:
    """Status (0 when it is not HTTP) and body as received."""
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.split(b"\r\n")[0].split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return 0, b""
    return int(parts[1]), body


def exchange(
    reactor: Reactor,
    address: str | tuple[str, int],
    request: bytes | None,
    timeout_s: float,
    done: Result,
    judge: Callable[[bytes], tuple[bool, str]] = judge_status,
) -> Attempt:
    """Connect, send an HTTP request and judge the answer; None as request: connecting is enough."""
    attempt = Attempt(reactor, timeout_s, done)
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    answer = bytearray()

    def close() -> None:
        reactor.forget(connection.fileno())
        connection.close()

    attempt.on_end(close)

    def connected(events: int) -> None:
        problem = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            attempt.finish(False, os.strerror(problem))
        elif request is None:
            attempt.finish(True, "connected")
        else:
            try:
                connection.send(request)
            except OSError as error:
                attempt.finish(False, str(error))
                return
            reactor.watch(connection.fileno(), READ, readable)

    def readable(events: int) -> None:
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            attempt.finish(False, str(error))
            return
        answer.extend(data)
        if not data or len(answer) > BODY_BYTES or _complete(answer):
            attempt.finish(*judge(bytes(answer)))

    try:
        problem = connection.connect_ex(address)
    except OSError as error:
        problem = error.errno or errno.EINVAL
    if problem in (0, errno.EINPROGRESS):
        reactor.watch(connection.fileno(), WRITE, connected)
    else:
        reactor.later(0, lambda: attempt.finish(False, os.strerror(problem)))
    return attempt


def _complete(answer: bytearray) -> bool:
    head, end, body = bytes(answer).partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
        if name == b"transfer-encoding" and b"chunked" in value:
            return body.endswith(b"0\r\n\r\n")
    return False


def tcp_connect(reactor: Reactor, ip: str, probe: TcpSocket, timeout_s: float, done: Result) -> Attempt:
    """Open a connection and close it."""
    return exchange(reactor, (probe.host or ip, probe.port), None, timeout_s, done)


def command(reactor: Reactor, started: Started, timeout_s: float, done: Result) -> Attempt:
    """Judge a program by its exit code; it is killed when the attempt ends first."""
    attempt = Attempt(reactor, timeout_s, done)

    def ended(code: int, output: bytes) -> None:
        text = output.decode(errors="replace").strip()
        attempt.finish(code == 0, f"exit code {code}: {text}" if text else f"exit code {code}")

    attempt.on_end(collect(reactor, started, OUTPUT_BYTES, ended))
    return attempt


def collect(
    reactor: Reactor, started: Started, limit_bytes: int, done: Callable[[int, bytes], None]
) -> Callable[[], None]:
    """Gather a program's output (the first bytes of it) until it ends; the answer kills it if it still runs."""
    output = bytearray()
    alive = True
    ours = {started.output, started.error}

    def readable(fd: int) -> None:
        data = os.read(fd, 65536)
        output.extend(data[: limit_bytes - len(output)])
        if not data:
            shut(fd)

    def shut(fd: int) -> None:
        ours.discard(fd)
        reactor.forget(fd)
        os.close(fd)

    def ended(status: int) -> None:
        nonlocal alive
        alive = False
        for fd in tuple(ours):
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while fd in ours:
                    readable(fd)
            if fd in ours:
                shut(fd)
        done(os.waitstatus_to_exitcode(status), bytes(output))

    def kill() -> None:
        if alive:
            os.kill(started.pid, signal.SIGKILL)

    for fd in tuple(ours):
        reactor.watch(fd, READ, lambda events, fd=fd: readable(fd))
    reactor.child(started.pid, ended)
    return kill


def https_get(get: HttpGet, ip: str, timeout_s: float) -> Started:
    """GET by HTTPS in a forked child, whose exit code is the result."""
    output_read, output = os.pipe2(os.O_CLOEXEC)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            import http.client
            import ssl

            context = ssl._create_unverified_context()  # noqa: S323 - the kubelet's rule for HTTPS probes
            client = http.client.HTTPSConnection(get.host or ip, get.port, timeout=timeout_s, context=context)
            client.request("GET", get.path, headers=dict(get.headers))
            status = client.getresponse().status
            os.write(output, f"HTTP status {status}".encode())
            code = 0 if 200 <= status < 400 else 1
        except Exception as problem:
            os.write(output, str(problem).encode()[:OUTPUT_BYTES])
        finally:
            os._exit(code)
    os.close(output)
    os.close(error)
    return Started(pid, output_read, error_read)


def attempt(
    reactor: Reactor,
    handler: Exec | HttpGet | TcpSocket,
    ip: str,
    timeout_s: float,
    execute: Callable[[tuple[str, ...]], Started],
    done: Result,
) -> Attempt:
    """Try a handler once against the Pod at `ip`; `execute` starts a command inside the container."""
    if isinstance(handler, TcpSocket):
        return tcp_connect(reactor, ip, handler, timeout_s, done)
    if isinstance(handler, Exec):
        return command(reactor, execute(handler.command), timeout_s, done)
    if handler.scheme == "HTTPS":
        return command(reactor, https_get(handler, ip, timeout_s), timeout_s, done)
    return http_get(reactor, handler.socket or (handler.host or ip, handler.port), handler, timeout_s, done)
