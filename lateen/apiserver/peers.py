"""Whose program is at the other end of a TCP connection on this machine: the kernel knows, and is asked by netlink.

Source: https://man7.org/linux/man-pages/man7/sock_diag.7.html
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any, Final

from starlette.requests import HTTPConnection

_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_ANY_COOKIE: Final = b"\xff" * 8
_HEADER: Final = struct.Struct("=LHHLL")
_ASKED: Final = struct.Struct("=BBBBL")
_UID_AT: Final = _HEADER.size + 4 + 48 + 12
"""Behind the header: family, state, timer and retransmissions, the socket's id, its expiry and queues."""


def uid_of(connection: HTTPConnection) -> int | None:
    """The user id of the client's program; None when it is not on this machine, or has gone."""
    return _owner(connection.scope.get("client"), connection.scope.get("server"))


def _owner(near: Any, far: Any) -> int | None:
    """Who owns the connection from `near` to `far`, each an address and a port."""
    if not near or not far or not far[1]:
        return None
    addresses = [ipaddress.ip_address(each[0]) for each in (near, far)]
    if addresses[0].version != addresses[1].version or not addresses[0].is_loopback:
        return None
    family = socket.AF_INET if addresses[0].version == 4 else socket.AF_INET6
    ports = struct.pack("!HH", near[1], far[1])
    places = b"".join(each.packed.ljust(16, b"\0") for each in addresses)
    body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ports + places + b"\0" * 4 + _ANY_COOKIE
    message = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.send(message)
        answer = netlink.recv(4096)
    if len(answer) < _UID_AT + 4 or struct.unpack_from("=H", answer, 4)[0] != _BY_FAMILY:
        return None  # an error: there is no such connection
    return struct.unpack_from("=L", answer, _UID_AT)[0]
