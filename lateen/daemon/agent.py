"""The agent process of a mesh: puts the agent, the CA's client and the names proxy together.

python -m lateen.daemon.agent SETTINGS-FILE SUPERVISOR-PID
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from lateen.lib.lean import structlog

# isort: split
from lateen.apiserver.client import Client, Listing
from lateen.daemon.process import main, return_memory
from lateen.daemon.settings import Settings
from lateen.node.agent import Agent
from lateen.node.dns import NameServer
from lateen.node.name_sockets import follow_sockets
from lateen.node.names import KINDS, Names
from lateen.node.resolvers import Resolvers
from lateen.security.client import CertificateClient, ControlPlane, unix_target

SNAPSHOT_S = 1.0
"""The table of names is written at most this often."""

_log = structlog.stdlib.get_logger("lateen.daemon.agent")


async def serve(settings: Settings) -> None:
    """Runs the agent until cancelled."""
    layout = settings.layout()
    control_plane = ControlPlane(
        token_target=unix_target(layout.run / "ca.sock"),
        renewal_target=unix_target(layout.xds_socket),
        roots=layout.ca / "root-cert.pem",
    )
    names = Names()
    resolvers = Resolvers()
    server, for_proxies = NameServer(names, resolvers), NameServer(names, resolvers, external=False)
    agent = Agent(
        CertificateClient(control_plane),
        control=layout.agent_socket,
        state=layout.run / "agent.json",
        trust=layout.run / "trust.json",
    )
    kept = layout.run / "names.json"
    _restore(names, kept)
    changed = asyncio.Event()
    async with Client(layout.api_socket) as client, asyncio.TaskGroup() as parts:
        parts.create_task(agent.run(), name="agent")
        parts.create_task(return_memory(), name="memory")
        parts.create_task(follow_sockets(server, for_proxies, layout.run), name="sockets of the names proxy")
        for kind in KINDS:
            parts.create_task(_follow(client, names, kind, changed), name=f"names of {kind}s")
        parts.create_task(_keep(names, kept, changed), name="copy of the names")


async def _follow(client: Client, names: Names, kind: str, changed: asyncio.Event) -> None:
    """Keeps the table as the API's objects of a kind are; for ever."""
    async for news in client.follow(kind):
        try:
            if isinstance(news, Listing):
                for problem in names.replace(kind, news.items):
                    _log.error("object has no names", reason=problem)
            elif news.type == "DELETED":
                names.delete(kind, news.object)
            elif news.type in ("ADDED", "MODIFIED"):
                names.put(kind, news.object)
        except msgspec.ValidationError as error:
            _log.error("object has no names", reason=f"{kind}: {error}")
        changed.set()


async def _keep(names: Names, path: Path, changed: asyncio.Event) -> None:
    """Writes the table to a file after changes, once it is complete; for ever."""
    while True:
        await changed.wait()
        changed.clear()
        if names.complete:
            draft = path.with_suffix(".new")
            await asyncio.to_thread(draft.write_bytes, names.snapshot())
            draft.replace(path)
        await asyncio.sleep(SNAPSHOT_S)


def _restore(names: Names, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        names.restore(path.read_bytes())


if __name__ == "__main__":
    main(serve)
