"""What stands in the way of a mesh on this machine, found before anything of it is started.

Every obstacle is named with what to do about it; none is worked around. The checks try the real thing where that
is harmless (a Pod that ends at once, a listener that is closed again) and read otherwise.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from lateen.lib.layout import Layout
from lateen.node.envoy import envoy_binary
from lateen.platform.trial import trial

SOCKET_PATH_BYTES = 100
_LONGEST_SOCKET = "pods/" + 36 * "x" + "/gw-65535.sock"
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
)


class Obstacle(msgspec.Struct, frozen=True):
    """One thing that is in the way, and how to remove it."""

    what: str
    remedy: str


def obstacles(
    layout: Layout, listen: Sequence[tuple[str, int, str]], ranges: Sequence[tuple[str, str]]
) -> list[Obstacle]:
    """All obstacles at once; empty when a mesh can start.

    `listen` are (host, port, setting) and `ranges` are (CIDR, setting): the setting is how the remedy says to choose
    another one.
    """
    return [
        *_data_plane(),
        *(list(_library()) or _namespaces()),
        *_directories(layout),
        *_ports(listen),
        *_routes(ranges, Path("/proc/net/route").read_text()),
    ]


def _data_plane() -> Iterator[Obstacle]:
    try:
        envoy_binary()
    except FileNotFoundError as error:
        yield Obstacle(f"there is no Envoy: {error}", "use Linux with glibc 2.31 or newer on x86-64 or arm64")


def _library() -> Iterator[Obstacle]:
    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError:
        yield Obstacle("libnftables is missing", "apt-get install -y nftables")


def _namespaces() -> Iterator[Obstacle]:
    """Whether a Pod can run: one is tried, when nothing known is in the way."""
    if os.geteuid() != 0:
        for file, off, setting in _SWITCHES:
            path = Path(file)
            if path.exists() and path.read_text().strip() == off:
                yield Obstacle("user namespaces are off for ordinary users", f"as root: sysctl -w {setting}")
                return
    failed = trial()
    if failed and os.geteuid() == 0:
        remedy = "run outside the container, or give it CAP_SYS_ADMIN and CAP_NET_ADMIN"
        yield Obstacle(f"root cannot run Pods here: {failed}", remedy)
    elif failed:
        yield Obstacle(f"Pods cannot run here: {failed}", "run as root, or allow user namespaces")


def _directories(layout: Layout) -> Iterator[Obstacle]:
    length = len(str(layout.run / _LONGEST_SOCKET).encode())
    if length > SOCKET_PATH_BYTES:
        over = length - SOCKET_PATH_BYTES
        yield Obstacle(
            f"the directory for sockets, {layout.run}, is {over} bytes too long for the kernel",
            "choose a shorter one with --run-dir",
        )
    for directory, option in ((layout.state, "--state-dir"), (layout.run, "--run-dir")):
        there = next(each for each in (directory, *directory.parents) if each.exists())
        if there == directory and there.stat().st_uid != os.geteuid():
            yield Obstacle(f"{directory} belongs to another user", f"choose another one with {option}")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Obstacle(f"{there} cannot be written", f"choose another directory with {option}")


def _ports(listen: Iterable[tuple[str, int, str]]) -> Iterator[Obstacle]:
    for host, port, setting in listen:
        if not port:
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # Without SO_REUSEPORT: an Envoy that was left over has set it, and would silently take a part.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen(1)
            except OSError as error:
                yield Obstacle(f"port {port} on {host}: {error.strerror}", f"free it, or choose another with {setting}")


def _routes(ranges: Iterable[tuple[str, str]], table: str) -> Iterator[Obstacle]:
    """Ranges that the machine routes already: what the mesh uses there could not be reached from Pods."""
    routed: list[tuple[ipaddress.IPv4Network, str]] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        destination, mask = (socket.inet_ntoa(struct.pack("<L", int(fields[index], 16))) for index in (1, 7))
        network = ipaddress.IPv4Network(f"{destination}/{mask}")
        if network.prefixlen:
            routed.append((network, fields[0]))
    for text, setting in ranges:
        wanted = ipaddress.IPv4Network(text)
        for network, interface in routed:
            if wanted.overlaps(network):
                yield Obstacle(
                    f"the address range {text} is routed on this machine already ({network} by {interface})",
                    f"choose another one with {setting}",
                )
