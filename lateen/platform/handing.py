"""Descriptors that an init hands over to who asks for them: the ends of a command's streams, a connection inside."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Final

from lateen.platform import process
from lateen.platform.reactor import READ, Reactor

DIAL_S: Final = 0.2
"""How long a connection inside of the Pod may take; it is answered at once, or nobody listens."""


def attended(reactor: Reactor, started: process.Interactive) -> tuple[int, ...]:
    """The descriptors of a process for who asked for it: its own, and one on which its exit code comes. When
    that one is closed at the other end, the process is ended."""
    told, tell = os.pipe2(os.O_CLOEXEC)

    def left(events: int) -> None:
        reactor.forget(tell)
        with contextlib.suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGKILL)

    def ended(status: int) -> None:
        reactor.forget(tell)
        with contextlib.suppress(BrokenPipeError):
            os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(tell)

    reactor.child(started.pid, ended)
    reactor.watch(tell, READ, left)  # nothing can be read here: it is the other end that is closed
    given = (told, *started.ends)

    def let_go() -> None:
        for fd in given:
            os.close(fd)

    reactor.later(0, let_go)
    return given


def dial(reactor: Reactor, port: int) -> int:
    """A connection to a port of this Pod, by its loopback."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(DIAL_S)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(None)
    except OSError:
        connection.close()
        raise
    descriptor = connection.detach()
    reactor.later(0, lambda: os.close(descriptor))
    return descriptor
