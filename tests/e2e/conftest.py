"""One mesh with the demo for all tests of a run (of a worker); each test starts from the demo's own rules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lateen.demo
from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from tests.e2e.machines import Lan
from tests.e2e.mesh import SAMPLES, Mesh, eventually
from tests.paths import shared

OWN = {("VirtualService", "bookinfo"), ("Gateway", "bookinfo-gateway")}
RULES = (
    "VirtualService",
    "DestinationRule",
    "PeerAuthentication",
    "AuthorizationPolicy",
    "ServiceEntry",
    "Gateway",
    "WorkloadGroup",
)


@pytest.fixture(scope="session")
def mesh(worker_id: str) -> Iterator[Mesh]:
    """A running mesh with the demo; as root with a network beside it, from which machines may join."""
    lan = Lan(os.getpid() % 200) if os.getuid() == 0 else None
    one = Mesh(f"n-{worker_id}-{os.getpid()}", lan.host if lan is not None else "")
    try:
        one.up()
        one.lan = lan
        yield one
    finally:
        one.remove()
        if lan is not None:
            lan.remove()


@pytest.fixture
def bookinfo(mesh: Mesh) -> Mesh:
    """The mesh with nothing but the demo's rules."""
    asyncio.run(_reset(mesh))
    eventually(lambda: mesh.ask("/productpage").status, lambda status: status == 200)
    return mesh


async def _reset(mesh: Mesh) -> None:
    """Takes away every rule that is not the demo's, and restores those."""
    async with Client(mesh.settings.layout().api_socket) as client:
        for kind in RULES:
            for each in await client.list(kind):
                name, namespace = each["metadata"]["name"], each["metadata"]["namespace"]
                if (kind, name) not in OWN:
                    await client.delete(kind, name, namespace)
        gateway = Path(lateen.demo.__file__).parent / "bookinfo-gateway.yaml"
        assert (await apply_files(client, [(gateway.name, gateway.read_text())])).applied


def sample(name: str) -> Path:
    """A file of Istio's Bookinfo samples, as published."""
    return shared(f"{SAMPLES}/{name}.yaml")
