"""Tests of the local platform on the real kernel; each runs in whatever mode its user has (root or rootless)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.kernel.platform.harness import Mesh, layout, running


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with running(layout()) as mesh:
        yield mesh
