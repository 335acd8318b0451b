"""A mesh's Kubernetes API as clients find it: TLS on a port of its own, a kubeconfig, the initial roles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from lateen.api.check import check
from lateen.apiserver.errors import BadRequestError
from lateen.apiserver.resources import Resources
from lateen.apiserver.store import Store
from lateen.daemon.kubernetes_api import KubernetesApi
from lateen.daemon.settings import Settings, load
from lateen.security.account_tokens import AccountTokens
from tests.unit.apiserver.api import nothing

DEADLINE_S = 60


class Served(msgspec.Struct, frozen=True):
    """A running API: its store, where its kubeconfig is, its settings."""

    store: Store
    settings: Settings
    kubeconfig: Path


async def _no_pods(_: Request) -> Response:
    raise BadRequestError("there are no Pods here")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:  # short, for the socket's path
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        flags = {"state_dir": f"{directory}/state", "run_dir": f"{directory}/run", "api_port": port}
        settings = load(None, {}, flags)
        layout = settings.layout()
        store = await Store.open(layout.store)
        tokens = AccountTokens(layout.api / "tokens.json")
        resources = Resources(store.rows())
        store.subscribe(resources)
        api = KubernetesApi(
            settings,
            store,
            tokens,
            None,
            resources=resources,
            check=check,
            analyse=nothing,
            ready=lambda: True,
            pod_token=_no_pods,
            routes=[],
        )
        task = asyncio.create_task(api.run())
        async with asyncio.timeout(DEADLINE_S):
            while not layout.api_socket.exists():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
        yield Served(store, settings, layout.kubeconfig)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()
