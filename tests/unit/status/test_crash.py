"""A control plane that is killed loses no status and no history."""

from __future__ import annotations

import asyncio
from typing import Any

from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from tests.unit.daemon.test_controlplane import ROUTE, ControlPlane
from tests.unit.daemon.test_controlplane import plane as plane  # a fixture

Json = dict[str, Any]


async def test_status_and_history_survive_kill_9(plane: ControlPlane) -> None:
    for host in ("reviews", "ratings"):
        async with Client(plane.client._socket, host) as author:
            done = await apply_files(author, [("r.yaml", ROUTE.replace("hosts: [reviews]", f"hosts: [{host}]"))])
        assert done.applied

    async def seen() -> tuple[list[Json], list[Json]]:
        status: Json = (await plane.client.get("vs", "reviews")).get("status") or {}
        ref = "VirtualService.networking.istio.io/default/reviews"
        versions = (await plane.client.read("/lateen/v1/revisions", ref=ref))["versions"]
        return status.get("conditions", []), versions

    async with asyncio.timeout(20):
        while {each["observedGeneration"] for each in (await seen())[0]} != {2}:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)  # whatever else is said about it has been said
    before = await seen()
    assert [each["author"] for each in before[1]] == ["ratings", "reviews"]
    plane.kill()
    await plane.up()
    assert await seen() == before
