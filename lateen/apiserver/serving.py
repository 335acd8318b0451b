"""HTTP inside a process that does more than that: uvicorn in the process's own event loop.

A listener has a bounded number of connections, and none of them may be slow (`connections`).
uvicorn takes over signals when it runs alone; here the process has its own say over its end. The Unix socket is made
here, since only its owner may ever open it, and by then nobody else serves there: the store's lock on its file has
settled that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import cast

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from lateen.apiserver.connections import Connections
from lateen.lib.errors import LateenError

HEAD_S = 10.0
"""How long a client may take for a handshake, and to send the head of a request."""
BODY_S = 60.0
"""How long a client may take to send the rest of a request."""
READ_S = 60.0
"""How long a client may read nothing of an answer."""
_HEAD_BYTES = 32 << 10
_BACKLOG = 512


class ListenError(LateenError):
    """A socket that cannot be listened on."""


class _Protocol(H11Protocol):
    """HTTP/1.1 that tells the application whose certificate the other side has (`state["peer"]`), and closes
    connections whose client is slow: with the head of a request (HEAD_S), the rest of it (BODY_S) or with reading
    (READ_S)."""

    def __init__(self, open_: Connections, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._open = open_
        self._early = b""
        self._waits_for = ""
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, "peer": tls.getpeercert() if tls is not None else None}
        self._attend()
        if self._early and not transport.is_closing():
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # pyright: ignore[reportUnnecessaryComparison] (before `connection_made`)
            self._early += data  # came in one piece with the end of the handshake
            return
        super().data_received(data)
        self._attend()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._attend()

    def send_400_response(self, msg: str) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:
            super().send_400_response(msg)
        else:  # a body that is none: its request may be answered just now
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        if self.transport is not None:  # pyright: ignore[reportUnnecessaryComparison]
            self._open.gone(self.transport)
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def _watch(self, unread_bytes: int) -> None:
        """Looks again in READ_S whether the client has read some of it."""
        self._unread = self.loop.call_later(READ_S, self._look, unread_bytes)

    def _look(self, unread_bytes: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < unread_bytes:
            self._watch(left)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _attend(self) -> None:
        """Begins to wait for the client, or ends it; each part of a request has its time from its beginning."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        waits_for = "head" if cycle is None or cycle.response_complete else "body" if cycle.more_body else ""
        if waits_for != self._waits_for:
            if self._late is not None:
                self._late.cancel()
            self._late = None
            self._waits_for = waits_for
            if waits_for:
                self._late = self.loop.call_later(HEAD_S if waits_for == "head" else BODY_S, self._close)
        if waits_for:
            self._open.waits(self.transport)
        else:
            self._open.works(self.transport)

    def _close(self) -> None:
        if self.transport.get_protocol() is self:  # else it has become a WebSocket, which may be silent
            self.transport.abort()


class _Handshake(asyncio.Protocol):
    """A connection until it speaks TLS: it is one of those that wait, and has HEAD_S for it."""

    def __init__(self, open_: Connections, context: ssl.SSLContext, after: _Protocol) -> None:
        self._open = open_
        self._context = context
        self._after = after

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._task = asyncio.create_task(self._shake_hands(transport), name="TLS handshake")

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._open.waits(plain)
        try:
            secure = await loop.start_tls(
                plain, self._after, self._context, server_side=True, ssl_handshake_timeout=HEAD_S
            )
        except (OSError, RuntimeError) as error:  # what is no TLS, what took too long, what was ended meanwhile
            traceback.clear_frames(error.__traceback__)  # a cycle, with buffers of 256 KB, that no collection may find
            plain.abort()
            return
        finally:
            self._open.gone(plain)
        if secure is not None:
            self._after.connection_made(secure)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        open_ = Connections()

        def accepted() -> asyncio.Protocol:
            protocol = _Protocol(open_, self.config, self.server_state)
            return protocol if self.config.ssl is None else _Handshake(open_, self.config.ssl, protocol)

        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(accepted, sock=each, backlog=_BACKLOG) for each in sockets or ()]
        self.started = True


class Tls(msgspec.Struct, frozen=True):
    """Files (PEM) with which a listener speaks TLS; clients may show certificates of `client_ca`."""

    certificate: Path
    key: Path
    client_ca: Path


async def serve(application: ASGIApp, listener: socket.socket, tls: Tls | None = None) -> None:
    """Serves until cancelled; then ends open answers and closes the listener."""
    config = uvicorn.Config(
        application,
        ssl_certfile=tls.certificate if tls is not None else None,
        ssl_keyfile=tls.key if tls is not None else None,
        ssl_ca_certs=str(tls.client_ca) if tls is not None else None,
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
        lifespan="off",
        log_config=None,
        log_level="critical",  # bugs are logged where they are answered
        access_log=False,
        ws="wsproto",
        h11_max_incomplete_event_size=_HEAD_BYTES,
        backlog=_BACKLOG,
        proxy_headers=False,  # who calls is what the kernel says
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = server.force_exit = True
        await task
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for answer in list(server.server_state.tasks):
            answer.cancel()  # watches never end by themselves
        listener.close()


def unix_listener(path: Path) -> socket.socket:
    """A Unix socket that only this user can open. ListenError when it cannot be made."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{path}: {error}", remedy="choose a shorter or another --run-dir") from None
    listener.setblocking(False)
    return listener


def tcp_listener(host: str, port: int) -> socket.socket:
    """A TCP socket. ListenError when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{host}:{port}: {error.strerror}", remedy="choose another port") from None
    listener.setblocking(False)
    return listener
