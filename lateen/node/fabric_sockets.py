"""The sockets of a mesh's network that processes outside of it serve: name service and egress.

They are opened inside the Pods' network and passed as file descriptors over the spawner's Unix socket, so agent and
forwarder need no right to enter it. They stay the same sockets while any Pod runs: what arrives while their server
is away waits in the kernel. Ask again after a restart, and when the spawner has been replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

import msgspec


class FabricSockets(msgspec.Struct, frozen=True):
    """Bound and, for TCP, listening; not blocking. Close what you don't serve."""

    dns_udp: socket.socket
    dns_tcp: socket.socket
    egress: socket.socket
    proxy_dns_udp: socket.socket
    proxy_dns_tcp: socket.socket

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """Each of them."""
        return msgspec.structs.astuple(self)


def fabric_sockets(run: Path, *, timeout_s: float = 2) -> FabricSockets:
    """The sockets of the mesh with that run directory, from its spawner or, without one, from any Pod's init.

    Blocks up to `timeout_s` for each. ConnectionError when neither answers.
    """
    problem: OSError = ConnectionError("nothing of the mesh runs")
    for path in (run / "platform.sock", *sorted(run.glob("inits/*/init.sock"))):
        try:
            return _ask(path, timeout_s)
        except OSError as error:
            problem = error
    raise ConnectionError(f"no sockets of the Pods' network under {run}: {problem}") from problem


def _ask(path: Path, timeout_s: float) -> FabricSockets:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(b'{"id": 1, "do": "sockets"}\n')
        data, fds = b"", list[int]()
        try:
            while True:
                part, passed, _, _ = socket.recv_fds(connection, 65536, 8)
                fds += passed
                if not part:
                    raise ConnectionError(f"{path} closed the connection")
                *lines, data = (data + part).split(b"\n")
                if any(json.loads(line).get("id") == 1 for line in lines) and len(fds) == len(
                    FabricSockets.__struct_fields__
                ):
                    break
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for one in sockets:
        one.setblocking(False)
    return FabricSockets(*sockets)


def same(before: FabricSockets, after: FabricSockets) -> bool:
    """Whether two answers are the same sockets of the kernel."""
    with contextlib.suppress(OSError):
        return os.fstat(before.dns_udp.fileno()).st_ino == os.fstat(after.dns_udp.fileno()).st_ino
    return False
