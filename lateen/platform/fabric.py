"""The network between the Pods of one mesh, in a namespace of its own.

Routed, without a bridge: the gateway address sits on the fabric's lo, each Pod is a /32 behind its own link, so
all traffic passes the fabric's connection tracking and Service addresses keep the client's address. The spawner
makes the fabric; every init keeps it alive by holding its file descriptors, and gives them to the next spawner.
Nothing is put into the host's network, so meshes with equal ranges live side by side.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from lateen.platform import nft, syscalls
from lateen.platform.netlink import Netlink
from lateen.platform.settings import PlatformSettings

LOOPBACK_INDEX = 1


def write(path: str, value: str) -> None:
    """Write a kernel setting; for /proc/sys/net it is that of the caller's network namespace."""
    with open(path, "w") as file:
        file.write(value)


class Fabric:
    """The namespaces this process is in and the sockets opened there: name service (UDP and TCP at the gateway's
    port 53, and at that for proxies) and the egress listener. `user` is None for root."""

    SOCKETS = 5

    def __init__(self, user: int | None, network: int, *sockets: socket.socket) -> None:
        self.user = user
        self.network = network
        self._sockets = sockets

    @property
    def sockets(self) -> tuple[int, ...]:
        """What agent and forwarder get: DNS over UDP, DNS over TCP, egress listener, DNS for proxies over UDP and
        over TCP."""
        return tuple(each.fileno() for each in self._sockets)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the next spawner gets: `sockets`, the network namespace and, rootless, the user namespace."""
        return (*self.sockets, self.network, *(() if self.user is None else (self.user,)))


def rootful() -> bool:
    """Whether this process may make namespaces and change users without a user namespace of its own."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    with open("/proc/self/uid_map") as file:
        users = sum(int(line.split()[2]) for line in file)
    needed = (syscalls.CAP_SYS_ADMIN, syscalls.CAP_NET_ADMIN, syscalls.CAP_SETUID, syscalls.CAP_SETGID)
    return os.getuid() == 0 and users > 1 and all(bits >> capability & 1 for capability in needed)


def make(settings: PlatformSettings) -> Fabric:
    """Enter new namespaces and set the fabric up in them. The process must have one thread."""
    user = None
    if not rootful():
        uid, gid = os.getuid(), os.getgid()
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
        user = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    for name, value in (("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")):
        write(f"/proc/sys/net/ipv4/{name}", value)
    disable_ipv6()
    with Netlink() as netlink:
        netlink.up(LOOPBACK_INDEX)
        netlink.address(LOOPBACK_INDEX, settings.gateway)
        netlink.unreachable(settings.pod_range)
    nft.Nft().run(nft.fabric(settings))
    egress = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    egress.bind((settings.gateway, settings.egress_port))
    egress.listen(1024)
    applications, proxies = (
        _name_service(settings.gateway, 53),
        _name_service(settings.gateway, settings.proxy_dns_port),
    )
    network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return Fabric(user, network, *applications, egress, *proxies)


def _name_service(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind((address, port))
    tcp.bind((address, port))
    tcp.listen(128)
    return udp, tcp


def join(descriptors: tuple[int, ...]) -> Fabric:
    """Enter a fabric that some Pod kept alive, by the descriptors its init gave."""
    sockets, (network, *rest) = descriptors[: Fabric.SOCKETS], descriptors[Fabric.SOCKETS :]
    user = rest[0] if rest else None
    if user is not None:
        syscalls.setns(user, syscalls.CLONE_NEWUSER)
    syscalls.setns(network, syscalls.CLONE_NEWNET)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    return Fabric(user, network, *(socket.socket(fileno=each) for each in sockets))


def disable_ipv6() -> None:
    """No IPv6 on links made from now on (a kernel without IPv6 has nothing to switch off)."""
    try:
        write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def addresses(settings: PlatformSettings) -> Iterator[str]:
    """The addresses that Pods can have, in order."""
    base, _, prefix = settings.pod_range.partition("/")
    first = int.from_bytes(socket.inet_aton(base))
    reserved = {settings.gateway, settings.host_address}
    for number in range(first + 1, first + (1 << (32 - int(prefix))) - 1):
        ip = socket.inet_ntoa(number.to_bytes(4))
        if ip not in reserved:
            yield ip


def attach(netlink: Netlink, ip: str, settings: PlatformSettings) -> None:
    """Give this new network namespace its link: `netlink` speaks to the fabric, the process is in the Pod's."""
    disable_ipv6()
    for name in ("all", "default"):
        write(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "0")
    write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    name = "p" + os.urandom(5).hex()
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netlink.veth(name, "eth0", own)
    finally:
        os.close(own)
    outside = netlink.index(name)
    netlink.up(outside)
    netlink.route(f"{ip}/32", outside)
    with Netlink() as inside:
        link = socket.if_nametoindex("eth0")
        inside.up(LOOPBACK_INDEX)
        inside.up(link)
        inside.address(link, ip)
        inside.route("0.0.0.0/0", link, settings.gateway)
