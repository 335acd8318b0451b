"""JSON lines over a Unix stream socket, both ends of the platform's control sockets.

A request is `{"id": N, "do": NAME, ...}`, its answer `{"id": N, "ok": ...}` or `{"id": N, "error": TEXT}`; lines
without an id are news. File descriptors travel with the answer that names them (SCM_RIGHTS). A peer that stops
reading is held to one pending answer and the latest news; one that misbehaves is cut off, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from lateen.platform.reactor import READ, WRITE, Reactor

LINE_BYTES = 1 << 20
PENDING_BYTES = 4 << 20

Message = dict[str, Any]
Reply = Callable[..., None]


def listen(path: str) -> socket.socket:
    """A Unix listener at `path` for this user only, in place of whatever was there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(128)
    return listener


class Peer:
    """One connected client of a server."""

    def __init__(self, reactor: Reactor, connection: socket.socket, serve: Serve, gone: Callable[[Peer], None]) -> None:
        self._reactor = reactor
        self._connection = connection
        self._serve = serve
        self._gone = gone
        self._input = b""
        self._output = bytearray()
        connection.setblocking(False)
        reactor.watch(connection.fileno(), READ, self._ready)

    @property
    def busy(self) -> bool:
        """Whether something is still waiting to be read by the client."""
        return bool(self._output)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one line; `fds` go along, which needs a client that has read everything before."""
        if self._connection.fileno() < 0:
            return
        line = msgspec.json.encode(message) + b"\n"
        try:
            if fds and not self._output:
                sent = socket.send_fds(self._connection, [line], list(fds))
                line = line[sent:]
        except OSError:
            self.close()
            return
        self._output += line
        if len(self._output) > PENDING_BYTES:
            self.close()
            return
        self._flush()

    def close(self) -> None:
        """Cut the client off."""
        if self._connection.fileno() >= 0:
            self._reactor.forget(self._connection.fileno())
            self._connection.close()
            self._gone(self)

    def detach(self) -> None:
        """Close this process's end only, without a word to the loop: for a forked child."""
        self._connection.close()

    def _flush(self) -> None:
        try:
            while self._output:
                del self._output[: self._connection.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._reactor.watch(self._connection.fileno(), READ | WRITE if self._output else READ, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and self._connection.fileno() >= 0:
            try:
                data = self._connection.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data or len(self._input) > LINE_BYTES:
                self.close()
                return
            *lines, self._input = (self._input + data).split(b"\n")
            for line in lines:
                self._request(line)

    def _request(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Message)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self.close()
            return
        number = request.get("id")

        def reply(ok: object = None, *, error: str = "", fds: tuple[int, ...] = ()) -> None:
            self.send({"id": number, "error": error} if error else {"id": number, "ok": ok}, fds)

        try:
            self._serve(self, request, reply)
        except Exception as error:
            reply(error=f"{type(error).__name__}: {error}")
            if not isinstance(error, OSError | ValueError | KeyError | msgspec.MsgspecError):
                raise


Serve = Callable[[Peer, Message, Reply], None]


class Server:
    """Accepts clients on a listener. `serve(peer, request, reply)` answers, now or later; `joined(peer)` greets."""

    def __init__(
        self,
        reactor: Reactor,
        listener: socket.socket,
        serve: Serve,
        joined: Callable[[Peer], None] = lambda peer: None,
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._serve = serve
        self._joined = joined
        self.peers: set[Peer] = set()
        reactor.watch(listener.fileno(), READ, self._accept)

    def close(self) -> None:
        """Stop serving."""
        self._reactor.forget(self._listener.fileno())
        self._listener.close()
        for peer in tuple(self.peers):
            peer.close()

    def detach(self) -> None:
        """Let go of everything without a word to the loop or to clients: for a forked child."""
        self._listener.close()
        for peer in self.peers:
            peer.detach()

    def _accept(self, events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        peer = Peer(self._reactor, connection, self._serve, self.peers.discard)
        self.peers.add(peer)
        self._joined(peer)


def ask(path: str, request: Message, *, timeout_s: float = 5) -> tuple[Any, tuple[int, ...]]:
    """Ask one question and wait: the answer's `ok` and the file descriptors that came with it.

    OSError when nobody answers in time or the answer is an error. News that comes before the answer is skipped.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        connection.sendall(msgspec.json.encode({**request, "id": 1}) + b"\n")
        data, fds = b"", list[int]()
        while True:
            part, passed, _, _ = socket.recv_fds(connection, 65536, 16)
            fds += passed
            if not part:
                raise ConnectionError(f"{path} closed the connection")
            *lines, data = (data + part).split(b"\n")
            for line in lines:
                answer = msgspec.json.decode(line, type=Message)
                if answer.get("id") == 1:
                    if "error" in answer:
                        raise OSError(answer["error"])
                    return answer.get("ok"), tuple(fds)
