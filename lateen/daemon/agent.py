"""The agent process of a mesh: puts the agent, the CA's client and the names proxy together.

python -m lateen.daemon.agent SETTINGS-FILE SUPERVISOR-PID
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from lateen.daemon.process import enter
from lateen.daemon.settings import Settings
from lateen.node.agent import Agent
from lateen.node.dns import NameServer
from lateen.node.name_sockets import follow_sockets
from lateen.node.names import Names
from lateen.node.resolvers import Resolvers
from lateen.security.client import CertificateClient, ControlPlane, unix_target


async def serve(settings: Settings) -> None:
    """Runs the agent until cancelled."""
    layout = settings.layout()
    control_plane = ControlPlane(
        token_target=unix_target(layout.run / "ca.sock"),
        renewal_target=unix_target(layout.xds_socket),
        roots=layout.ca / "root-cert.pem",
    )
    names = Names()
    server = NameServer(names, Resolvers())
    agent = Agent(CertificateClient(control_plane), control=layout.agent_socket, state=layout.run / "agent.json")
    async with asyncio.TaskGroup() as parts:
        parts.create_task(agent.run(), name="agent")
        parts.create_task(follow_sockets(server, layout.run), name="sockets of the names proxy")


async def run(settings: Settings) -> None:
    """`serve` until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve(settings)


if __name__ == "__main__":
    asyncio.run(run(enter()))
