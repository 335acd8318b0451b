"""Two connections joined: bytes, ends of stream, resets and back-pressure pass from one to the other."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay(asyncio.Protocol):
    """One side. The accepted side is made without a peer: what it reads before `join` is one read's worth, kept."""

    def __init__(self, peer: Relay | None, lost: Callable[[], None] = lambda: None) -> None:
        self._peer = peer
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self._ended = False
        self._gone = False
        self._heard = time.monotonic()

    @property
    def heard(self) -> float:
        """When something came from either side last (`time.monotonic`)."""
        return self._heard if self._peer is None else max(self._heard, self._peer._heard)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def join(self, upstream: Relay) -> None:
        """Begin to relay from the accepted side to `upstream`, which has this side as its peer."""
        self._peer = upstream
        upstream.write(self._early)
        self._early = b""
        if self._gone:
            upstream.close()
        elif self._ended:
            upstream.end()
        elif self._transport:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send to this side."""
        if self._transport and not self._gone and data:
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

    def end(self) -> None:
        """Send this side the end of the stream; it is closed once both ends have been seen."""
        if self._transport and not self._gone:
            self._transport.write_eof()
            if self._ended:
                self.close()

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        if self._peer:
            self._peer.write(data)
        else:
            self._early += data
            if self._transport:
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        peer = self._peer
        if peer:
            peer.end()
        return peer is None or not peer._ended

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
