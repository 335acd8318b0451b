"""Simulated sidecars in one process: they ask for what an Envoy asks for, accept everything, and count.

    python -m lateen.bench.xds_sidecars JSON

JSON: `{"target", "shape": {...}, "on_demand": bool, "floor": bool}`. Each line on standard input is `mark` (counts
start anew) or `wait N` (until N sidecars have got something since the mark); each is answered by one line of JSON:
bytes, responses, how many sidecars got something, and the time (seconds since the epoch) of the last. With `floor` they
take whatever is sent. Twenty streams share a connection.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.bench.xds_mesh import GRPC, HTTP, MeshShape, host_of, namespace_of, used_by

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PREFIX: Final = "type.googleapis.com/envoy.config."
CLUSTER: Final = PREFIX + "cluster.v3.Cluster"
ENDPOINT: Final = PREFIX + "endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = PREFIX + "listener.v3.Listener"
ROUTE: Final = PREFIX + "route.v3.RouteConfiguration"
VIRTUAL_HOST: Final = PREFIX + "route.v3.VirtualHost"
STREAMS_A_CONNECTION: Final = 20

Json = dict[str, Any]


class Counts:
    """What all sidecars got since the last mark."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.bytes = 0
        self.responses = 0
        self.last_at = 0.0
        self.reached: set[int] = set()
        self.news = asyncio.Event()

    def add(self, sidecar: int, size: int) -> None:
        self.bytes += size
        self.responses += 1
        self.last_at = time.time()
        self.reached.add(sidecar)
        self.news.set()

    def shown(self) -> Json:
        return {
            "bytes": self.bytes,
            "responses": self.responses,
            "sidecars": len(self.reached),
            "last_at": self.last_at,
        }


class Sidecar:
    """One stream. `ready` is set when it has what it needs to serve."""

    def __init__(self, number: int, shape: MeshShape, on_demand: bool, counts: Counts) -> None:
        self._number = number
        self._shape = shape
        self._on_demand = on_demand
        self._counts = counts
        self._asked: set[str] = set()
        self._hosts: set[str] = set()
        self._waiting: set[str] = {CLUSTER, LISTENER, ROUTE}
        self.ready = asyncio.Event()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Talks until the channel closes."""
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)
        namespace = namespace_of(self._number)
        first = DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id = f"sidecar~10.0.0.1~client{self._number}.{namespace}~{namespace}.svc.cluster.local"
        first.node.metadata.fields["NAMESPACE"].string_value = namespace
        first.node.metadata.fields["LATEEN_ON_DEMAND"].string_value = "true" if self._on_demand else "false"
        await call.write(first.SerializeToString())
        await call.write(DeltaDiscoveryRequest(type_url=LISTENER).SerializeToString())
        tables = [str(HTTP), str(GRPC)]
        await call.write(DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=tables).SerializeToString())
        async for raw in call:
            self._counts.add(self._number, len(raw))
            message = DeltaDiscoveryResponse.FromString(raw)
            for answer in self._answers(message):
                await call.write(answer.SerializeToString())

    async def take(self, channel: grpc.aio.Channel) -> None:
        """Takes what is sent, for the floor."""
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)
        await call.write(b"")
        self.ready.set()
        async for raw in call:
            self._counts.add(self._number, len(raw))
            await call.write(b"ok")

    def _answers(self, message: DeltaDiscoveryResponse) -> list[DeltaDiscoveryRequest]:
        kind = message.type_url
        answers = [DeltaDiscoveryRequest(type_url=kind, response_nonce=message.nonce)]
        if kind == CLUSTER:
            new = {each.name for each in message.resources if each.name.startswith("outbound|")} - self._asked
            if new:
                self._asked |= new
                answers.append(DeltaDiscoveryRequest(type_url=ENDPOINT, resource_names_subscribe=sorted(new)))
        if kind == ROUTE and self._on_demand and ROUTE in self._waiting:
            hosts = [f"{HTTP}/{host_of(each)}:{HTTP}" for each in used_by(self._shape, self._number)]
            self._hosts.update(each.rpartition(":")[0] for each in hosts)
            self._waiting.add(VIRTUAL_HOST)
            answers.append(DeltaDiscoveryRequest(type_url=VIRTUAL_HOST, resource_names_subscribe=hosts))
        if kind == VIRTUAL_HOST:
            self._hosts.difference_update(each.name for each in message.resources)
            if not self._hosts:
                self._waiting.discard(VIRTUAL_HOST)
        if kind != VIRTUAL_HOST:
            self._waiting.discard(kind)
        if not self._waiting:
            self.ready.set()
        return answers


async def main(settings: Json) -> None:
    """Runs the sidecars until standard input closes."""
    shape = msgspec.convert(settings["shape"], MeshShape)
    counts = Counts()
    sidecars = [Sidecar(number, shape, settings["on_demand"], counts) for number in range(shape.sidecars)]
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    channels = [
        grpc.aio.insecure_channel(settings["target"], options)
        for _ in range((shape.sidecars + STREAMS_A_CONNECTION - 1) // STREAMS_A_CONNECTION)
    ]
    started = time.time()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task((each.take if settings["floor"] else each.run)(channels[number // STREAMS_A_CONNECTION]))
            for number, each in enumerate(sidecars)
        ]
        await asyncio.gather(*[each.ready.wait() for each in sidecars])
        _say({"ready_s": time.time() - started, **counts.shown()})
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, _, number = line.strip().partition(" ")
            if word == "mark":
                counts.clear()
            else:
                await _reached(counts, int(number))
            _say(counts.shown())
        for each in running:
            each.cancel()


async def _reached(counts: Counts, sidecars: int) -> None:
    while len(counts.reached) < sidecars:
        counts.news.clear()
        await counts.news.wait()


def _say(values: Json) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
