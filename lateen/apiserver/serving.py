"""HTTP inside a process that does more than that: uvicorn in the process's own event loop.

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
from collections.abc import Generator
from pathlib import Path
from typing import cast

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from lateen.lib.errors import LateenError

HEAD_S = 10.0
"""How long a client may take to send the head of a request."""
_HEAD_BYTES = 32 << 10
_BACKLOG = 512


class ListenError(LateenError):
    """A socket that cannot be listened on."""


class _Protocol(H11Protocol):
    """HTTP/1.1 that tells the application whose certificate the other side has (`state["peer"]`), and closes
    connections whose request does not begin within HEAD_S: slow clients hold nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, "peer": tls.getpeercert() if tls is not None else None}
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_S, self._close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        waits = cycle is None or cycle.response_complete
        if waits and self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._close)
        elif not waits and self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _close(self) -> None:
        if self.transport.get_protocol() is self:  # else it has become a WebSocket, which may be silent
            self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Tls(msgspec.Struct, frozen=True):
    """Files (PEM) with which a listener speaks TLS; clients may show certificates of `client_ca`."""

    certificate: Path
    key: Path
    client_ca: Path


async def serve(application: ASGIApp, listener: socket.socket, tls: Tls | None = None) -> None:
    """Serves until cancelled; then ends open answers and closes the listener."""
    config = uvicorn.Config(
        application,
        http=_Protocol,
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
