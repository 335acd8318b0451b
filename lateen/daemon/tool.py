"""The control plane alone on a folder of YAML: `lateen serve`.

No store, no CA, no authentication: xDS in plaintext for tools and tests, which say themselves who they are. The
folder is followed; what is wrong in it is logged, and what proxies refuse stays as it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from pathlib import Path

import structlog

from lateen.api.check import check
from lateen.daemon.controlplane import plaintext_xds
from lateen.daemon.jwt_keys import key_fetcher
from lateen.daemon.learning import LearnedFile, memories
from lateen.daemon.modules import module_fetcher
from lateen.engine import Graph
from lateen.envoy.types import TYPES
from lateen.intent.scope import scope_of
from lateen.sources.directory import DirectorySource
from lateen.xds.auth import Believing
from lateen.xds.learned import Learned
from lateen.xds.server import XdsServer

_log = structlog.stdlib.get_logger("lateen.serve")


async def serve_folder(
    folder: Path, address: str, *, allow_mass_delete: bool = False, learned_file: Path | None = None
) -> None:
    """Serves until SIGTERM or SIGINT. `address` is HOST:PORT or unix:/path; `learned_file` keeps what workloads were
    seen to call. LateenError when it cannot."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    graph = Graph()
    source = DirectorySource(folder, check, graph.commit, allow_mass_delete=allow_mass_delete)
    await source.load()
    learned = Learned(time.time)
    kept = LearnedFile(learned, learned_file) if learned_file is not None else None
    if kept is not None:
        kept.load()
    xds = XdsServer(graph, TYPES, scope_of, Believing(), quarantine=source, memory_of=memories(learned, graph))
    source.submit = xds.pump.submit
    keys = key_fetcher(xds.pump)
    modules = module_fetcher(xds.pump)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(asyncio.CancelledError):
        async with plaintext_xds(xds, address), asyncio.TaskGroup() as parts:
            parts.create_task(xds.run(), name="xds")
            if kept is not None:
                parts.create_task(kept.run(), name="what workloads call")
            parts.create_task(source.run(), name="folder")
            parts.create_task(keys.run(), name="keys of token issuers")
            parts.create_task(modules.run(), name="WebAssembly modules")
            _log.info("serving", folder=str(folder), xds=address, objects=len(source.folder))
