"""One mesh with the demo for all tests of a run (of a worker); each test starts from the demo's own rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lateen.demo
from tests.e2e.mesh import SAMPLES, Mesh, eventually
from tests.paths import shared

OWN = {("VirtualService", "bookinfo"), ("Gateway", "bookinfo-gateway")}
RULES = ("VirtualService", "DestinationRule", "PeerAuthentication", "ServiceEntry", "Gateway")


@pytest.fixture(scope="session")
def mesh(worker_id: str) -> Iterator[Mesh]:
    """A running mesh with the demo."""
    one = Mesh(f"n-{worker_id}-{os.getpid()}")
    try:
        one.up()
        yield one
    finally:
        one.remove()


@pytest.fixture
def bookinfo(mesh: Mesh) -> Iterator[Mesh]:
    """The mesh with nothing but the demo's rules, before and after."""
    reset(mesh)
    yield mesh
    reset(mesh)


def reset(mesh: Mesh) -> None:
    """Takes away every rule that is not the demo's."""
    for kind in RULES:
        for each in mesh.get(kind, "-A"):
            name, namespace = each["metadata"]["name"], each["metadata"]["namespace"]
            if (kind, name) not in OWN:
                mesh.lateen("delete", kind, name, "-n", namespace)
    mesh.apply(Path(lateen.demo.__file__).parent / "bookinfo-gateway.yaml")
    eventually(lambda: mesh.ask("/productpage").status, lambda status: status == 200)


def sample(name: str) -> Path:
    """A file of Istio's Bookinfo samples, as published."""
    return shared(f"{SAMPLES}/{name}.yaml")
