"""The servers that the conventions are tried on: lateen's API in this process, and a real kube-apiserver with etcd.

The real one runs where `make test-kube` has built it (`LATEEN_KUBE_BIN` names the directory); elsewhere its tests are
skipped and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from lateen.api.check import check
from lateen.apiserver import rbac
from lateen.apiserver.definitions import Establisher
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.operations import Create
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.bench.kubernetes import Cluster
from tests.unit.apiserver.api import nothing

PROGRAMS = "LATEEN_KUBE_BIN"
TIMEOUT_S = 60


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """etcd, kube-apiserver and controller manager, once for all tests."""
    programs = os.environ.get(PROGRAMS)
    if not programs:
        pytest.skip(f"{PROGRAMS} names no directory with kube-apiserver and etcd: make test-kube builds them")
    with tempfile.TemporaryDirectory(prefix="lateen-kube-") as directory:
        running = Cluster(Path(programs), Path(directory))
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(params=["lateen", pytest.param("kubernetes", marks=pytest.mark.kube)])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API, as an administrator."""
    if request.param == "kubernetes":
        cluster: Cluster = request.getfixturevalue("cluster")
        tls = ssl.create_default_context(cafile=str(cluster.ca))
        tls.load_cert_chain(*map(str, cluster.administrator))
        async with httpx.AsyncClient(base_url=cluster.url, verify=tls, timeout=TIMEOUT_S) as client:
            yield client
        return
    store = await Store.open(tmp_path / "store.db")
    await store.write([Create(each) for each in rbac.initial()])
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:  # short, for the socket's path
        socket = Path(directory) / "api.sock"
        app = application(store, check=check, analyse=nothing, ready=lambda: True)
        tasks = [
            asyncio.create_task(serve(identified(app, owner), unix_listener(socket))),
            asyncio.create_task(Establisher(store).run()),
        ]
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://lateen", timeout=TIMEOUT_S) as client:
            yield client
        for each in tasks:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
    await store.close()


@pytest.fixture
async def space(api: httpx.AsyncClient) -> AsyncIterator[str]:
    """A namespace of the test's own."""
    name = f"t-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    assert (await api.post("/api/v1/namespaces", json=body)).status_code == 201
    yield name
    await api.delete(f"/api/v1/namespaces/{name}")
