"""A workload that asks for hundreds of unknown names: a finding on its Pod while its proxy gets everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc.aio
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.daemon.demand_findings import DemandFindings
from lateen.xds.demand import UNKNOWN_MAX
from lateen.xds.sender import VIRTUAL_HOST
from lateen.xds.server import SERVICE
from tests.envoy.harness import CLUSTER, LISTENER, ROUTE
from tests.unit.status.plane import Plane, running


async def asks_for(plane: Plane, names: list[str], asked: asyncio.Event) -> None:
    """A sidecar of reviews-1 that asks for these virtual hosts, and takes all it gets."""
    async with grpc.aio.insecure_channel(plane.address) as channel:
        method = cast("Callable[[], Any]", channel.stream_stream(f"/{SERVICE}/DeltaAggregatedResources"))
        call = method()
        for type_url in (CLUSTER, LISTENER):
            first = DeltaDiscoveryRequest(type_url=type_url)
            first.node.id = "sidecar~10.88.0.9~reviews-1.default~default.svc.cluster.local"
            first.node.metadata["LATEEN_ON_DEMAND"] = "true"
            await call.write(first.SerializeToString())
        for type_url, listed in ((ROUTE, ["9080"]), (VIRTUAL_HOST, names)):
            request = DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=listed)
            await call.write(request.SerializeToString())
        asked.set()
        async for raw in call:
            message = DeltaDiscoveryResponse.FromString(raw)
            answer = DeltaDiscoveryRequest(type_url=message.type_url, response_nonce=message.nonce)
            await call.write(answer.SerializeToString())


def codes(plane: Plane) -> list[str]:
    row = plane.store.get(plane.ref("pod", "reviews-1"))
    assert row is not None
    return [each["code"] for each in row.decode().get("status", {}).get("findings", ())]


def subscribed(plane: Plane) -> int:
    """How many virtual hosts the sidecar follows."""
    return sum(kind.subscribed for each in plane.xds.proxies() for kind in each.types if kind.short == "VHDS")


async def test_too_many_unknown_names() -> None:
    async with running() as plane:
        demand = DemandFindings(plane.store, plane.xds)
        looking = asyncio.create_task(demand.run())
        asked = asyncio.Event()
        names = [f"9080/n{number}:9080" for number in range(UNKNOWN_MAX + 10)]
        sidecar = asyncio.create_task(asks_for(plane, names[:-20], asked))
        await plane.until(lambda: subscribed(plane) >= UNKNOWN_MAX - 10)
        await demand.look()
        assert (codes(plane), demand.total) == ([], 0)
        sidecar.cancel()
        await asyncio.gather(sidecar, return_exceptions=True)
        sidecar = asyncio.create_task(asks_for(plane, names, asked))
        await plane.until(lambda: "LTN0380" in codes(plane))
        assert demand.total == 1
        sidecar.cancel()
        await asyncio.gather(sidecar, return_exceptions=True)
        await plane.until(lambda: "LTN0380" not in codes(plane))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
