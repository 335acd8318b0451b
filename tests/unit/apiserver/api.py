"""The API over a store, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from lateen.api.check import check
from lateen.apiserver.client import Client
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.reviews import Analyse
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref


async def nothing(_: Sequence[Ref]) -> Sequence[Finding]:
    return ()


@contextlib.asynccontextmanager
async def serving(store: Store, analyse: Analyse = nothing) -> AsyncIterator[Client]:
    """The API of a store, and a client of it."""
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:  # short, for the socket's path
        socket = Path(directory) / "api.sock"
        app = application(store, check=check, analyse=analyse, ready=lambda: True)
        task = asyncio.create_task(serve(identified(app, owner), unix_listener(socket)))
        async with Client(socket) as client:
            yield client
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    async with serving(store) as each:
        yield each
