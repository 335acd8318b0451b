"""Keeps the names proxy on the DNS sockets of the mesh's network.

They belong to the Pods' network, which exists while a Pod runs; the agent may start before the first one and
outlive the last, and the next network has new sockets.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from lateen.node.dns import NameServer
from lateen.node.fabric_sockets import FabricSockets, fabric_sockets

ABSENT_S = 0.2
PRESENT_S = 2.0


async def follow_sockets(applications: NameServer, proxies: NameServer, run: Path) -> None:
    """Serves both on the sockets of the mesh with that run directory, whichever they are now; until cancelled."""
    served: int | None = None
    while True:
        try:
            found = await asyncio.to_thread(fabric_sockets, run)
        except OSError:
            await asyncio.sleep(ABSENT_S if served is None else PRESENT_S)
            continue
        try:
            inode = os.fstat(found.dns_udp.fileno()).st_ino
            if inode != served:
                await applications.listen(found.dns_udp.detach(), found.dns_tcp.detach())
                await proxies.listen(found.proxy_dns_udp.detach(), found.proxy_dns_tcp.detach())
                served = inode
        finally:
            _close(found)
        await asyncio.sleep(PRESENT_S)


def _close(found: FabricSockets) -> None:
    for each in found.all:
        each.close()
