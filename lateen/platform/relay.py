"""Two connections joined: bytes, ends of stream, resets and back-pressure pass from one to the other."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay(asyncio.Protocol):
    """One side. It reads nothing until it has been joined with the other, so at most a write buffer is held."""

    def __init__(self, peer: Relay | None, lost: Callable[[], None] = lambda: None) -> None:
        self._peer = peer
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()

    def join(self, upstream: Relay) -> None:
        """Begin to relay, both ways."""
        self._peer = upstream
        if self._gone:
            upstream.close()
            return
        for side in (self, upstream):
            if side._transport and not side._gone:
                side._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send to this side."""
        if self._transport and not self._gone:
            self._transport.write(data)

    def close(self) -> None:
        """End this side in order, after what is still to be sent."""
        if self._transport:
            self._transport.close()

    def reset(self) -> None:
        """End this side with a reset."""
        if self._transport and not self._gone:
            connection = self._transport.get_extra_info("socket")
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._peer:
            self._peer.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        peer = self._peer
        if peer is None or peer._gone or peer._transport is None:
            return False
        peer._transport.write_eof()
        if peer._ended:
            peer.close()
            return False
        return True

    def pause_writing(self) -> None:
        if self._peer and self._peer._transport:
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer and self._peer._transport and not self._peer._gone:
            self._peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._lost()
        if self._peer and not self._peer._gone:
            if exc:
                self._peer.reset()
            else:
                self._peer.close()
