"""Requests in a lab: one function per way to ask, each returning plain values that tests compare."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.lab.lab import OUTSIDE, Lab

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a client got; status 0 when no answer came. `seen` is what the server said it saw."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def seen(self) -> Json:
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def server(self) -> str:
        return self.headers.get("x-server", "")


class Caller:
    """A client with one HTTP/1.1 connection."""

    def __init__(self, lab: Lab, host: str, port: int = 9080, **how: Any) -> None:
        self._connection = http.client.HTTPConnection("unused", timeout=20)
        self._connection.sock = lab.connect(host, port, **how)

    @property
    def tls_version(self) -> str:
        """The TLS version that is spoken; empty for a plain connection."""
        spoken = self._connection.sock
        return spoken.version() or "" if isinstance(spoken, ssl.SSLSocket) else ""

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, path: str = "/", authority: str = "", method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. OSError and HTTPException become an answer with status 0."""
        started = time.monotonic()
        try:
            self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"host": authority, **(headers or {})}.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {}, repr(error).encode(), time.monotonic() - started)
        names: dict[str, str] = {}
        for name, value in response.getheaders():
            names[name.lower()] = f"{names[name.lower()]},{value}" if name.lower() in names else value
        return Answer(response.status, names, body, time.monotonic() - started)


def ask(
    lab: Lab,
    host: str = "reviews",
    path: str = "/",
    port: int = 9080,
    method: str = "GET",
    authority: str = "",
    headers: Mapping[str, str] | None = None,
    **how: Any,
) -> Answer:
    """One request on a connection of its own; the authority is the host's name unless said otherwise."""
    try:
        caller = Caller(lab, host, port, **how)
    except (OSError, ssl.SSLError) as error:
        return Answer(0, {}, repr(error).encode(), 0)
    with caller:
        return caller.ask(path, authority or host, method, headers)


def outside(lab: Lab, host: str = "10.88.0.5", **more: Any) -> Answer:
    """One request of a client without a proxy, to the application."""
    return ask(lab, host, mark=OUTSIDE, **more)


class Caller2:
    """A client with one HTTP/2 connection; requests may be under way at the same time."""

    def __init__(self, lab: Lab, host: str, port: int = 9080, **how: Any) -> None:
        self._socket = lab.connect(host, port, **how)
        configuration = h2.config.H2Configuration(header_encoding="utf-8")
        self._spoken = h2.connection.H2Connection(configuration)
        self._spoken.initiate_connection()
        self._flush()

    def __enter__(self) -> Caller2:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, authority: str, times: int = 1, path: str = "/", **headers: str) -> list[Answer]:
        """So many requests at once; their answers in the order in which they were sent."""
        started = time.monotonic()
        said = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path), *headers.items()]
        ids: list[int] = []
        for _ in range(times):
            ids.append(self._spoken.get_next_available_stream_id())
            self._spoken.send_headers(ids[-1], said, end_stream=True)
        self._flush()
        found: dict[int, tuple[dict[str, str], bytes]] = {}
        over: dict[int, Answer] = {}
        while len(over) < times:
            data = self._receive()
            for event in self._spoken.receive_data(data) if data else [h2.events.ConnectionTerminated()]:
                if isinstance(event, h2.events.ResponseReceived):
                    found[event.stream_id] = ({str(name): str(value) for name, value in event.headers}, b"")
                elif isinstance(event, h2.events.DataReceived):
                    names, body = found[event.stream_id]
                    found[event.stream_id] = (names, body + event.data)
                    self._spoken.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    names, body = found[event.stream_id]
                    status = int(names.get(":status", 0))
                    over[event.stream_id] = Answer(status, names, body, time.monotonic() - started)
                elif isinstance(event, h2.events.StreamReset):
                    over[event.stream_id] = Answer(0, {}, b"reset", time.monotonic() - started)
                elif isinstance(event, h2.events.ConnectionTerminated):
                    over |= {each: Answer(0, {}, b"", 0) for each in ids if each not in over}
            self._flush()
        return [over[each] for each in ids]

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(self._spoken.data_to_send())


@dataclass(frozen=True)
class TlsClient:
    """Handshakes with one port; `how` is for the lab's `connect`."""

    host: str
    port: int
    sni: str
    how: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def handshake(self, part: str, client: str = "") -> Callable[[Lab], str | int]:
        """What comes of a request by a client with that certificate: the `names` of the server's, the `cipher`, or who
        answers (`server`); 0 when it fails."""

        def probe(lab: Lab) -> str | int:
            context = lab.certificates.client_context(client)
            if part == "cipher":  # what a client likes best is not the same everywhere
                context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")
            try:
                with lab.connect(self.host, self.port, tls=context, sni=self.sni, **self.how) as one:
                    assert isinstance(one, ssl.SSLSocket)
                    if part == "cipher":
                        return (one.cipher() or ("",))[0]
                    names = [str(value) for _, value in (one.getpeercert() or {}).get("subjectAltName", ())]
                    one.sendall(f"GET / HTTP/1.1\r\nhost: {self.sni}\r\n\r\n".encode())
                    head = one.recv(65536)
                    if not head:
                        return 0
                    found = head.partition(b"x-server: ")[2].partition(b"\r")[0]
                    return ",".join(names) if part == "names" else found.decode()
            except OSError:
                return 0

        return probe

    def versions(self, lab: Lab) -> tuple[str, ...]:
        """The versions of TLS that a client which speaks all of them gets through with."""
        found: list[str] = []
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = lab.certificates.client_context()
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = context.maximum_version = version
            try:
                with lab.connect(self.host, self.port, tls=context, sni=self.sni, **self.how) as one:
                    assert isinstance(one, ssl.SSLSocket)
                    found.append(one.version() or "")
            except OSError:
                continue
        return tuple(found)


def shares(lab: Lab, times: int, host: str = "reviews", **more: Any) -> Counter[str]:
    """Who answered how many of many requests on one connection; failures by status."""
    found: Counter[str] = Counter()
    authority = more.pop("authority", "") or host
    headers = more.pop("headers", None)
    path = more.pop("path", "/")
    with Caller(lab, host, **more) as caller:
        for _ in range(times):
            answer = caller.ask(path, authority, headers=headers)
            found[answer.server if answer.status == 200 else str(answer.status)] += 1
    return found


def at_once(lab: Lab, times: int, **more: Any) -> list[Answer]:
    """Several requests at the same time, each on a connection of its own."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(lab, **more)), daemon=True) for _ in range(times)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return answers


def line(lab: Lab, host: str = "reviews", port: int = 9000, say: str = "hello", **how: Any) -> Json:
    """Says a line and reads the answer of a server of lines: what it saw, or {} when none came."""
    try:
        with lab.connect(host, port, **how) as one:
            return exchange(one, say)
    except OSError:
        return {}


def exchange(one: socket.socket, say: str = "hello") -> Json:
    """Says a line on an open connection and reads what the server saw; {} when the connection ends."""
    try:
        if say:
            one.sendall(say.encode() + b"\n")
        text = b""
        while not text.endswith(b"\n"):
            more = one.recv(65536)
            if not more:
                return {}
            text += more
        return json.loads(text)
    except OSError:
        return {}
