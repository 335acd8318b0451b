"""A store in a temporary file, and small objects for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lateen.apiserver.store import Store
from lateen.lib.ids import Ref

Json = dict[str, Any]


def config_map(name: str, namespace: str = "default", **data: str) -> Json:
    """A small valid object."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def ref(name: str, kind: str = "ConfigMap", namespace: str = "default", group: str = "") -> Ref:
    """Its Ref."""
    return Ref(group, kind, namespace, name)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.db")
    yield opened
    await opened.close()
