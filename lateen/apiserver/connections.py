"""The connections of one listener: a bounded number, in which those that wait for their client make room.

A slow client costs an attacker nothing and us a descriptor. So when there are too many, the connection that has waited
longest for its client (for the handshake, a request's head or the rest of its body) is ended, never one whose answer
is under way: who sends a request at once is served whatever others hold open.
"""

from __future__ import annotations

import asyncio
from typing import Final

CONNECTIONS: Final = 512
"""How many connections one listener has at most; each may take 256 KB for TLS."""


class Connections:
    """Knows which connections wait for their client; `limit` is how many there may be."""

    def __init__(self, limit: int = CONNECTIONS) -> None:
        self._limit = limit
        self._waiting: dict[asyncio.BaseTransport, None] = {}
        self._busy: set[asyncio.BaseTransport] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def waits(self, transport: asyncio.Transport) -> None:
        """The connection waits for its client from now on, if it did not before. Ends the one that has waited longest
        when there are too many."""
        self._busy.discard(transport)
        self._waiting.setdefault(transport)
        if len(self) > self._limit:  # a connection that became a WebSocket's does not say when it ends
            self._busy = {each for each in self._busy if not each.is_closing()}
        if len(self) > self._limit:
            oldest = next(iter(self._waiting))
            self.gone(oldest)
            assert isinstance(oldest, asyncio.Transport)
            oldest.abort()

    def works(self, transport: asyncio.BaseTransport) -> None:
        """The connection's client has said all it has to say."""
        self._waiting.pop(transport, None)
        self._busy.add(transport)

    def gone(self, transport: asyncio.BaseTransport) -> None:
        """The connection has ended."""
        self._waiting.pop(transport, None)
        self._busy.discard(transport)
