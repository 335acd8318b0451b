"""A server that speaks whatever it is spoken to, and says what it saw.

It looks at the first bytes of a connection: a PROXY header, a TLS handshake, HTTP/1.1, HTTP/2, or lines of text.
An HTTP answer is JSON with what came: which server, on which connection, by which protocol, path and headers, the
server name of the handshake, the client's certificate, the PROXY header. `script` says how a server answers next:
a status, `wait 0.5`, both (`503 0.5`), `hold` (until the next reset), `reset`, or `cut` (half an answer). CONNECT
and POST tunnels are opened to the server itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Json = dict[str, Any]
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HANDSHAKE = 0x16


@dataclass
class Seen:
    """What is known of a connection before its first request."""

    server: str
    port: int
    connection: int
    proxy: str = ""
    tls: bool = False
    sni: str = ""
    alpn: str = ""
    client: str = ""
    """The subject alternative names of the client's certificate."""
    tunnel: str = ""
    peer: str = ""


@dataclass
class Servers:
    """All servers of a lab. `names` maps addresses to server names; `tls` has the context for a server name."""

    names: Mapping[str, str]
    tls: Callable[[str], ssl.SSLContext]
    log: list[Json] = field(default_factory=list[Json])
    settings: dict[int, int] = field(default_factory=dict[int, int])
    """HTTP/2 settings to announce."""
    silent: set[str] = field(default_factory=set[str])
    """Servers that read and never answer HTTP/2 pings."""
    greeting: bytes = b""
    """What is said first on connections to `greeting_port`."""
    greeting_port: int = 0
    _scripts: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    _open: Counter[str] = field(default_factory=Counter[str])
    _most: Counter[str] = field(default_factory=Counter[str])
    _busy: Counter[str] = field(default_factory=Counter[str])
    _busiest: Counter[str] = field(default_factory=Counter[str])
    _counted: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def reset(self) -> None:
        """Forgets scripts and what was seen."""
        self._released.set()
        self._released = threading.Event()
        self.log.clear()
        self._scripts.clear()
        self._open, self._most = Counter(), Counter()  # connections from before count there
        self._busiest.clear()
        self.settings.clear()
        self.silent.clear()

    def script(self, server: str, *steps: str) -> None:
        """How a server answers its next requests; the last step stays in force when it ends with `*`."""
        self._scripts[server] = list(steps)

    def open(self, server: str) -> int:
        """Connections to a server that came since the last reset and are open."""
        return self._open[server]

    def most_open(self, server: str) -> int:
        """The most connections a server had at once since the last reset."""
        return self._most[server]

    def busiest(self, server: str) -> int:
        """The most requests a server worked on at once since the last reset."""
        return self._busiest[server]

    def working(self, server: str) -> int:
        """The requests a server works on now."""
        return self._busy[server]

    def serve(self, listening: socket.socket) -> None:
        """Accepts connections until the socket is closed."""
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, peer = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection, peer), daemon=True).start()

    def _connection(self, connection: socket.socket, peer: tuple[str, int] | str) -> None:
        at = connection.getsockname()  # of a Unix socket its path
        address, port = (at, 0) if isinstance(at, str) else at
        server = self.names.get(address, address)
        with self._counted:
            seen = Seen(server, port, next(iter(self._numbers)), peer=peer and peer[0])
            open_, most = self._open, self._most
            open_[server] += 1
            most[server] = max(most[server], open_[server])
        connection.settimeout(60)
        if port:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._speak(connection, seen)
        except (OSError, ValueError, h2.exceptions.ProtocolError):
            pass  # the client has gone, or speaks something else
        finally:
            with self._counted:
                open_[server] -= 1
            with contextlib.suppress(OSError):
                connection.close()

    def _speak(self, connection: socket.socket, seen: Seen) -> None:
        if seen.port == self.greeting_port and not seen.tls and not seen.tunnel:
            connection.sendall(self.greeting)
        first = _peek(connection, 5)
        if first[:1] == b"\r" or first == b"PROXY":
            seen.proxy = _proxy_header(connection)
            first = _peek(connection, 5)
        if first[:1] and first[0] == _TLS_HANDSHAKE and not seen.tls:
            with self._handshake(connection, seen) as inside:
                self._read(inside, seen, b"")
            return
        self._read(connection, seen, b"")

    def _handshake(self, connection: socket.socket, seen: Seen) -> ssl.SSLSocket:
        context = self.tls(seen.server)
        names: list[str] = []
        context.sni_callback = lambda _one, name, _context: names.append(name or "")
        wrapped = context.wrap_socket(connection, server_side=True)
        seen.tls, seen.sni, seen.alpn = True, (names or [""])[0], wrapped.selected_alpn_protocol() or ""
        certificate = wrapped.getpeercert() or {}
        seen.client = ",".join(str(value) for _, value in certificate.get("subjectAltName", ()))  # type: ignore[misc]
        return wrapped

    def _read(self, connection: socket.socket, seen: Seen, rest: bytes) -> None:
        stream = _Stream(connection, rest)
        line = stream.line()
        if line == b"PRI * HTTP/2.0\r\n":
            self._http2(connection, seen, line + stream.rest)
            return
        if not line.rstrip().endswith((b"HTTP/1.1", b"HTTP/1.0")):
            self._lines(connection, stream, seen, line)
            return
        while line:
            if not self._http1(connection, stream, seen, line):
                return
            line = stream.line()

    def _lines(self, connection: socket.socket, stream: _Stream, seen: Seen, line: bytes) -> None:
        while line:
            said = {**vars(seen), "line": line.decode("latin-1").rstrip("\n")}
            self.log.append(said)
            connection.sendall(json.dumps(said).encode() + b"\n")
            line = stream.line()

    def _http1(self, connection: socket.socket, stream: _Stream, seen: Seen, line: bytes) -> bool:
        """One request; True when another may follow."""
        method, path, _ = line.decode("latin-1").split()
        headers: dict[str, str] = {}
        while (said := stream.line()) not in (b"\r\n", b""):
            name, _, value = said.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if method == "CONNECT" or (method == "POST" and headers.get("transfer-encoding") == "chunked"):
            seen.tunnel = f"{method} {path if method == 'CONNECT' else headers.get('host', '')}"
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                self._read(connection, seen, stream.rest)
                return False
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            size = int(stream.line(), 16)
            body = json.dumps({**vars(seen), "line": stream.exactly(size).decode("latin-1").rstrip("\n")}).encode()
            connection.sendall(b"%x\r\n%s\n\r\n" % (len(body) + 1, body))
            return False
        body = stream.exactly(int(headers.get("content-length") or 0))
        if headers.get("upgrade") == "websocket":
            connection.sendall(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            self._lines(connection, stream, seen, stream.line())
            return False
        status, wait_s, step = self._next(seen.server, headers)
        self._log(seen, "http/1.1", method, path, headers, body)
        with self._working(seen.server):
            self._wait(step, wait_s)
        if step == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if step == "cut":
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            return False
        answer = json.dumps(self.log_entry(seen, "http/1.1", method, path, headers, body)).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in _answer_headers(seen.server).items())
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n{more}\r\n".encode()
        connection.sendall(head if method == "HEAD" else head + answer)
        return headers.get("connection", "").lower() != "close"

    def _http2(self, connection: socket.socket, seen: Seen, data: bytes) -> None:
        spoken = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        lock = threading.Lock()
        if self.settings:
            spoken.local_settings.update(self.settings)  # type: ignore[arg-type]
        spoken.initiate_connection()
        connection.sendall(spoken.data_to_send())
        requests: dict[int, list[tuple[str, str]]] = {}
        bodies: dict[int, bytes] = {}
        while data:
            with lock:
                events = spoken.receive_data(data)
                if seen.server in self.silent:
                    spoken.data_to_send()
                for event in events:
                    if isinstance(event, h2.events.RequestReceived):
                        requests[event.stream_id] = [(str(name), str(value)) for name, value in event.headers]
                        bodies[event.stream_id] = b""
                    elif isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] += event.data
                        spoken.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        one = (spoken, lock, connection, seen, event.stream_id)
                        two = (requests.pop(event.stream_id), bodies.pop(event.stream_id))
                        threading.Thread(target=self._answer2, args=(*one, *two), daemon=True).start()
                connection.sendall(spoken.data_to_send())
            data = connection.recv(65536)

    def _answer2(
        self,
        spoken: h2.connection.H2Connection,
        lock: threading.Lock,
        connection: socket.socket,
        seen: Seen,
        stream_id: int,
        request: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        headers = dict(request)
        method, path = headers.pop(":method"), headers.pop(":path")
        headers["host"] = headers.pop(":authority", "")
        status, wait_s, step = self._next(seen.server, headers)
        self._log(seen, "h2", method, path, headers, body)
        with self._working(seen.server):
            self._wait(step, wait_s)
        answer = json.dumps(self.log_entry(seen, "h2", method, path, headers, body)).encode()
        with lock, contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            if step == "reset":
                spoken.reset_stream(stream_id, 7)  # refused
            elif headers.get("content-type") == "application/grpc":
                said = [(":status", "200"), ("content-type", "application/grpc"), ("x-server", seen.server)]
                spoken.send_headers(stream_id, said)
                spoken.send_headers(stream_id, [("grpc-status", "14" if status == 503 else "0")], end_stream=True)
            else:
                said = [(":status", str(status)), *_answer_headers(seen.server).items()]
                spoken.send_headers(stream_id, said)
                spoken.send_data(stream_id, answer, end_stream=True)
            connection.sendall(spoken.data_to_send())

    def _next(self, server: str, headers: Mapping[str, str]) -> tuple[int, float, str]:
        """Status, seconds to wait first, and the step itself. A request may bring its own step as `x-do`."""
        steps = self._scripts.get(server, [])
        step = headers.get("x-do", "")
        if not step and steps:
            step = steps[0].removesuffix("*") if steps[0].endswith("*") else steps.pop(0)
        status, _, wait = step.removeprefix("wait").partition(" ")
        return (int(status) if status.isdigit() else 200), float(wait or 0), step

    @contextlib.contextmanager
    def _working(self, server: str) -> Any:
        with self._counted:
            self._busy[server] += 1
            self._busiest[server] = max(self._busiest[server], self._busy[server])
        try:
            yield
        finally:
            with self._counted:
                self._busy[server] -= 1

    def _wait(self, step: str, wait_s: float) -> None:
        if step == "hold":
            self._released.wait(60)
        elif wait_s:
            time.sleep(wait_s)

    def _log(self, *entry: Any) -> None:
        self.log.append(self.log_entry(*entry))

    @staticmethod
    def log_entry(seen: Seen, protocol: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Json:
        """A request as it is answered and remembered."""
        said = {"protocol": protocol, "method": method, "path": path, "headers": dict(headers)}
        return {**vars(seen), **said, "body": body.decode("latin-1")}


class _Stream:
    """Lines and blocks of a connection."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self._connection = connection
        self.rest = rest

    def line(self) -> bytes:
        """Up to and with the next line feed; what there is when the other side closes."""
        while b"\n" not in self.rest:
            more = self._connection.recv(65536)
            if not more:
                line, self.rest = self.rest, b""
                return line
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line + b"\n"

    def exactly(self, size: int) -> bytes:
        """So many bytes; ValueError when the other side closes before."""
        while len(self.rest) < size:
            more = self._connection.recv(65536)
            if not more:
                raise ValueError("the connection ended")
            self.rest += more
        block, self.rest = self.rest[:size], self.rest[size:]
        return block


def _answer_headers(server: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-server": server, "x-noise": "1"}


def _peek(connection: socket.socket, size: int) -> bytes:
    """The first bytes without taking them; fewer when the client says less and waits."""
    first = connection.recv(size, socket.MSG_PEEK)
    while first and len(first) < size and first[:1] == b"P":
        time.sleep(0.001)
        first = connection.recv(size, socket.MSG_PEEK)
    return first


def _proxy_header(connection: socket.socket) -> str:
    if _peek(connection, 1) == b"P":
        line = b""
        while not line.endswith(b"\n"):
            line += connection.recv(1)
        return "V1 " + line.decode().split()[2]
    head = connection.recv(16, socket.MSG_WAITALL)
    assert head.startswith(_V2), head
    body = connection.recv(struct.unpack("!H", head[14:16])[0], socket.MSG_WAITALL)
    return "V2 " + socket.inet_ntoa(body[:4])
