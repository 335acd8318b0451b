"""Slow connections until the other side has had enough."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Repeats(Protocol):
    """What is said again and again; nothing when it is empty."""

    @property
    def again(self) -> bytes: ...


W = TypeVar("W", bound=Repeats)


def ends(opened: Sequence[tuple[W, socket.socket, float]], limit_s: float) -> list[tuple[W, float]]:
    """How long each connection lasted from when it was opened, in seconds; says what is to be said again meanwhile.
    Those that last longer than the limit are missing."""
    found: list[tuple[W, float]] = []
    give_up = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for way, one, at in opened:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ, (way, at))
        while selector.get_map() and time.monotonic() < give_up:
            for key, _ in selector.select(0.5):
                one, (way, at) = key.fileobj, key.data
                assert isinstance(one, socket.socket)
                try:
                    over = not one.recv(65536)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError:
                    over = True
                if over:
                    selector.unregister(one)
                    one.close()
                    found.append((way, time.monotonic() - at))
            for key in list(selector.get_map().values()):
                one, (way, _) = key.fileobj, key.data
                assert isinstance(one, socket.socket)
                if way.again:
                    with contextlib.suppress(OSError):
                        one.send(way.again)
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return found
