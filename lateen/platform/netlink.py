"""Links, addresses and routes by rtnetlink: the few requests that a Pod's network needs.

A full netlink library costs 0.3 s and 32 MB at import, in a process that is forked for every Pod; this one
writes the messages itself (rtnetlink(7)). A `Netlink` belongs to the network namespace it was opened in and
keeps speaking to that one after the process has moved on.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from types import TracebackType

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2

RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_NEWROUTE = 24

IFLA_IFNAME = 3
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
IFA_ADDRESS = 1
IFA_LOCAL = 2
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5

IFF_UP = 1
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
RTN_UNREACHABLE = 7
RTNH_F_ONLINK = 4


def _attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + b"\0" * (-len(body) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


class Netlink:
    """A route netlink socket in the network namespace of its making."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            answer = self._socket.recv(65536)
            _, answer_kind, _, sequence, _ = struct.unpack_from("=IHHII", answer)
            if answer_kind == NLMSG_ERROR and sequence == self._sequence:
                number = -struct.unpack_from("=i", answer, 16)[0]
                if number:
                    raise OSError(number, f"{what}: {os.strerror(number)}")
                return

    def index(self, name: str) -> int:
        """The number of a link. OSError when there is none of that name."""
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
        header = struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, NLM_F_REQUEST, 0, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(65536)
        if struct.unpack_from("=IHHII", answer)[1] == NLMSG_ERROR:
            number = -struct.unpack_from("=i", answer, 16)[0]
            raise OSError(number, f"link {name}: {os.strerror(number)}")
        return struct.unpack_from("=BxHi", answer, 16)[2]

    def up(self, index: int) -> None:
        """Bring a link up."""
        self._ask(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP), f"link {index} up")

    def veth(self, name: str, peer: str, peer_namespace: int) -> None:
        """Make a pair of connected links: `name` here, `peer` in the network namespace behind that fd."""
        inside = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _text(IFLA_IFNAME, peer)
        inside += _number(IFLA_NET_NS_FD, peer_namespace)
        data = _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, inside))
        link = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, b"veth") + data)
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + link
        self._ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"veth {name}")

    def address(self, index: int, ip: str) -> None:
        """Give a link an address of its own (/32)."""
        raw = ipaddress.IPv4Address(ip).packed
        body = struct.pack("=BBBBi", socket.AF_INET, 32, 0, 0, index)
        body += _attribute(IFA_LOCAL, raw) + _attribute(IFA_ADDRESS, raw)
        self._ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"address {ip}")

    def route(self, destination: str, index: int, gateway: str | None = None) -> None:
        """Route a range (`0.0.0.0/0` for everything) to a link, by way of `gateway` if given (taken as on-link).

        A route that is there is replaced: it belonged to a Pod that has ended and is still being taken down.
        """
        network = ipaddress.IPv4Network(destination)
        scope, flags = (RT_SCOPE_UNIVERSE, RTNH_F_ONLINK) if gateway else (RT_SCOPE_LINK, 0)
        body = self._route(network, scope, RTN_UNICAST, flags) + _number(RTA_OIF, index)
        if gateway:
            body += _attribute(RTA_GATEWAY, ipaddress.IPv4Address(gateway).packed)
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"route {destination}")

    def unreachable(self, destination: str) -> None:
        """Refuse what goes to a range and has no closer route."""
        body = self._route(ipaddress.IPv4Network(destination), RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0)
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"unreachable {destination}")

    @staticmethod
    def _route(network: ipaddress.IPv4Network, scope: int, kind: int, flags: int) -> bytes:
        header = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, kind, flags
        )
        return header + (_attribute(RTA_DST, network.network_address.packed) if network.prefixlen else b"")
