"""HTTP for the demo's programs: a threaded server that ends politely, and a client that passes headers on.

The server speaks HTTP/1.1 with keep-alive, never resolves its own name (a resolver that is not there yet would
block the start) and reacts to SIGTERM by taking no new connections, finishing the requests it has and leaving.

The client keeps one connection per thread and upstream. It forwards the headers that belong to the request and
not to the hop (who the user is, and the ids of the trace), which is all an application has to do for tracing
and header routing to work behind it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

FORWARDED = (
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "grpc-trace-bin",
    "sw8",
)
"""Headers an answer's own requests carry on: the user, and the trace formats the proxies know."""

DRAIN_S = 25.0
"""How long a stopping program waits for requests in flight, seconds."""


@dataclass(frozen=True)
class Request:
    """One request: `query` has the last value of each key, header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def forwarded(self) -> dict[str, str]:
        """The headers to pass on to the next service."""
        return {name: self.headers[name] for name in FORWARDED if name in self.headers}

    def form(self) -> dict[str, str]:
        """The fields of a posted HTML form, over those of the query."""
        posted = parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return {**self.query, **{key: values[-1] for key, values in posted.items()}}


@dataclass(frozen=True)
class Response:
    """One answer; `headers` come on top of the content type and length."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handle = Callable[[Request], Response]


def answer(value: object, status: int = 200) -> Response:
    """A JSON response."""
    return Response(status, json.dumps(value).encode())


def not_found(request: Request) -> Response:
    """404, saying which path was asked for."""
    return answer({"error": f"nothing is served at {request.path}"}, 404)


def pod_identity() -> dict[str, str]:
    """Which replica answers: the Pod's name (its host name) and the cluster's, as part of every JSON answer."""
    return {
        "podname": os.environ.get("HOSTNAME") or socket.gethostname(),
        "clustername": os.environ.get("CLUSTER_NAME", "null"),
    }


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection; counts the requests being answered so that it can end after the last one."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handle: Handle) -> None:
        self.handle = handle
        self.draining = False
        self._active = 0
        self._idle = threading.Condition()
        super().__init__(address, _Handler)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Marks one request as being answered."""
        with self._idle:
            self._active += 1
        try:
            yield
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Take no new connections and wait for the requests in flight. False when time ran out."""
        self.draining = True
        self.shutdown()
        self.server_close()
        with self._idle:
            return self._idle.wait_for(lambda: self._active == 0, timeout_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "bookinfo"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one segment
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]  # the only server it is used with

    def _serve(self) -> None:
        with self.server.in_flight():
            started = time.monotonic()
            length = int(self.headers.get("content-length") or 0)
            url = urlsplit(self.path)
            request = Request(
                method=self.command,
                path=url.path,
                query={key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length) if length else b"",
            )
            try:
                response = self.server.handle(request)
            except Exception as error:  # one bad request must not end the connection unanswered
                response = answer({"error": f"{type(error).__name__}: {error}"}, 500)
            self.send_response(response.status)
            self.send_header("content-type", response.content_type)
            self.send_header("content-length", str(len(response.body)))
            for name, value in response.headers:
                self.send_header(name, value)
            if self.server.draining:
                self.send_header("connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)
            self.wfile.flush()
            took_ms = (time.monotonic() - started) * 1000
            sys.stderr.write(f"{self.command} {self.path} {response.status} {took_ms:.0f}ms\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # names given by the base class

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are logged once answered, with their duration."""


def serve(handle: Handle) -> None:
    """Serve on 0.0.0.0, port from the first argument or PORT (9080), until SIGTERM or SIGINT; then drain."""
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", "9080"))
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread: all of them inherit it
    server = Server(("0.0.0.0", port), handle)  # noqa: S104  # a Pod's own address, and loopback for probes
    sys.stderr.write(f"listening on {port}\n")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    signal.sigwait(ends)
    server.drain(DRAIN_S)


class Upstream:
    """A service this program asks: `HOST:PORT` from <NAME>_HOSTNAME, <NAME>_SERVICE_PORT and SERVICES_DOMAIN.

    Connections are kept, the last used first. A kept connection that turns out closed is replaced once; an error
    on a fresh one is the caller's to handle (OSError, http.client.HTTPException).
    """

    def __init__(self, name: str) -> None:
        domain = os.environ.get("SERVICES_DOMAIN", "")
        host = os.environ.get(f"{name.upper()}_HOSTNAME", name)
        self._host = f"{host}.{domain}" if domain else host
        self._port = int(os.environ.get(f"{name.upper()}_SERVICE_PORT", "9080"))
        self._kept: list[http.client.HTTPConnection] = []  # list operations used here are atomic

    def get(self, path: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, Any]:
        """GET a JSON document: its status and value. `timeout_s` bounds connecting and each wait for bytes."""
        try:
            kept = self._kept.pop()
        except IndexError:
            kept = None
        if kept is not None:
            kept.timeout = timeout_s
            kept.sock.settimeout(timeout_s)
            try:
                return self._exchange(kept, path, headers)
            except ConnectionError:  # RemoteDisconnected is one
                pass
        fresh = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return self._exchange(fresh, path, headers)

    def close(self) -> None:
        """Close the kept connections."""
        while self._kept:
            self._kept.pop().close()

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        try:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._kept.append(connection)
        try:
            return response.status, json.loads(body)
        except ValueError:
            return response.status, {"error": body.decode("utf-8", "replace")}
