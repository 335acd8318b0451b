"""Envoy on a machine: started as a user of its own, with no rights, and started again when it ends.

It ends with the agent, so that there is never a proxy whose certificate nobody renews. Its log lines go where the
agent's go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from lateen.lib.errors import LateenError
from lateen.node.redirect import PROXY_ID

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 10.0
STEADY_S = 60.0
"""After a run of this length the next restart is at once again."""
STOP_S = 5.0
READY_POLL_S = 0.05

_log = structlog.stdlib.get_logger("lateen.node.proxy")


class ProxyError(LateenError):
    """Envoy cannot be run on this machine."""


def check(binary: Path) -> None:
    """ProxyError when Envoy's user could not start it."""
    for part in (binary, *binary.parents):
        mode = part.stat()
        reachable = mode.st_mode & 0o001 or (mode.st_uid == PROXY_ID and mode.st_mode & 0o100)
        if not reachable:
            raise ProxyError(
                f"Envoy runs as user {PROXY_ID}, who may not enter {part}",
                remedy="install lateen where every user may read it, /opt/lateen for example",
            )


class EnvoyProcess:
    """Runs one command for as long as `run` runs."""

    def __init__(self, argv: list[str], admin: Path, ready: Callable[[], None], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = {**os.environ, **environment}
        self._admin = admin
        self._ready = ready
        self.pid = 0
        self.starts = 0

    async def run(self) -> None:
        """Starts Envoy again whenever it ends; until cancelled, which ends it."""
        wait_s = 0.0
        while True:
            await asyncio.sleep(wait_s)
            began = time.monotonic()
            self._admin.unlink(missing_ok=True)
            process = await asyncio.create_subprocess_exec(
                *_command(self._argv), stdin=asyncio.subprocess.DEVNULL, env=self._environment
            )
            self.pid, self.starts = process.pid, self.starts + 1
            waiting = asyncio.create_task(self._until_ready(), name="Envoy ready")
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            finally:
                self.pid = 0
                waiting.cancel()
            steady = time.monotonic() - began >= STEADY_S
            wait_s = FIRST_BACKOFF_S if steady or not wait_s else min(wait_s * 2, LAST_BACKOFF_S)
            _log.error("Envoy ended", exit_code=code, again_in_s=wait_s)

    async def _until_ready(self) -> None:
        while not await self._is_ready():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(READY_POLL_S)
        _log.info("Envoy ready", pid=self.pid)
        self._ready()

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._admin))
        except OSError:
            return False
        try:
            writer.write(b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()


def _command(argv: list[str]) -> list[str]:
    identity = ["--reuid", str(PROXY_ID), "--regid", str(PROXY_ID), "--clear-groups"]
    return ["setpriv", *identity, "--bounding-set", "-all", "--no-new-privs", "--pdeathsig", "KILL", "--", *argv]


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def own_group() -> None:
    """Gives this process the group whose traffic is not redirected. ProxyError for an ordinary user."""
    try:
        os.setegid(PROXY_ID)
    except PermissionError:
        raise ProxyError("the agent of a machine runs as root", remedy="start it as root") from None
