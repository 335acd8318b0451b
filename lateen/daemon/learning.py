"""The file that keeps what workloads were seen to call (`lateen.xds.learned`).

Several control planes may share one: what another has written is taken over before it is written again, under a lock.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from lateen.engine import Graph
from lateen.envoy.types import TYPES
from lateen.intent.scope import Proxy, workload_of
from lateen.xds.learned import Identity, Learned, Memory

SAVE_S: Final = 2.0

_log = structlog.stdlib.get_logger("lateen.learning")


def memories(learned: Learned, graph: Graph) -> Callable[[Proxy], Memory]:
    """What the workload of a proxy was seen to call, for the xDS server."""
    types = tuple(each.short for each in TYPES)
    return lambda proxy: Memory(learned, Identity(*graph.pull(workload_of, proxy)), types)


class LearnedFile:
    """Keeps a file and a Learned the same."""

    def __init__(self, learned: Learned, path: Path) -> None:
        self._learned = learned
        self._path = path
        self._seen = 0

    def load(self) -> None:
        """Takes over what is in the file; one that cannot be read is reported, and replaced when there is news."""
        try:
            self._seen = self._path.stat().st_mtime_ns
            self._learned.merge(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            _log.error("what workloads call is not known", file=str(self._path), reason=str(error))

    async def run(self) -> None:
        """Writes what is new and reads what others wrote, every two seconds, until cancelled; then once more."""
        try:
            while True:
                await asyncio.sleep(SAVE_S)
                self.save()
        finally:
            self.save()

    def save(self) -> None:
        """Writes what is new and reads what others wrote."""
        if not self._learned.changed and self._modified() == self._seen:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._modified() != self._seen:
                    self.load()
                if self._learned.changed:
                    draft = self._path.with_suffix(".new")
                    draft.touch(mode=0o600)
                    draft.write_bytes(self._learned.encoded())
                    draft.replace(self._path)
                    self._seen = self._modified()
        except OSError as error:
            _log.error("what workloads call is not kept", file=str(self._path), reason=str(error))

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
