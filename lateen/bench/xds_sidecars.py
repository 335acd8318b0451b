"""Simulated sidecars in one process: they ask for what an Envoy asks for, accept everything, and count.

    python -m lateen.bench.xds_sidecars          # the first line on standard input is a Fleet as JSON

Each further line is `mark` (counts start anew) or `wait N` (until N sidecars have got something since the mark); each
is answered by one line of JSON: what came in all and by type, how many sidecars got something, the time (seconds since
the epoch) of the last, and when a sidecar got which stamped change. A floor takes whatever is sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.bench.xds_mesh import SEQUENCE, stamped

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PREFIX: Final = "type.googleapis.com/envoy.config."
CLUSTER: Final = PREFIX + "cluster.v3.Cluster"
ENDPOINT: Final = PREFIX + "endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = PREFIX + "listener.v3.Listener"
ROUTE: Final = PREFIX + "route.v3.RouteConfiguration"
VIRTUAL_HOST: Final = PREFIX + "route.v3.VirtualHost"

Json = dict[str, Any]


class Client(msgspec.Struct, frozen=True):
    """One sidecar: who it is, and the names its workload calls (as `PORT/HOST:PORT`)."""

    namespace: str
    name: str
    address: str
    hosts: tuple[str, ...] = ()


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Sidecars of one server. `tables` are the route tables each subscribes to. `credentials` is a folder with
    NAMESPACE.ca.pem, .key.pem and .chain.pem for mutual TLS, empty for plaintext. `stamped` is the cluster whose
    endpoints say with which change they came (`stamp` of `xds_mesh`)."""

    target: str
    clients: tuple[Client, ...]
    tables: tuple[str, ...] = ()
    on_demand: bool = False
    floor: bool = False
    credentials: str = ""
    streams_a_connection: int = 20
    stamped: str = ""


class Counts:
    """What all sidecars got since the last mark."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.bytes = 0
        self.responses = 0
        self.last_at = 0.0
        self.stamps: list[tuple[int, float]] = []  # the change a sidecar had until now, and when it got a newer one
        self.types = Counter[str]()
        self.reached: set[int] = set()
        self.news = asyncio.Event()

    def add(self, sidecar: int, size: int) -> None:
        self.bytes += size
        self.responses += 1
        self.last_at = time.time()
        self.reached.add(sidecar)
        self.news.set()

    def took(self, message: DeltaDiscoveryResponse) -> None:
        kind = message.type_url.rpartition(".")[2]
        self.types[f"{kind} responses"] += 1
        self.types[f"{kind} resources"] += len(message.resources)
        self.types[f"{kind} removed"] += len(message.removed_resources)

    def shown(self) -> Json:
        return {
            "bytes": self.bytes,
            "responses": self.responses,
            "sidecars": len(self.reached),
            "last_at": self.last_at,
            "stamps": self.stamps,
            "types": {name: count for name, count in self.types.items() if count},
        }


class Sidecar:
    """One stream. `ready` is set when it has what it needs to serve."""

    def __init__(self, number: int, fleet: Fleet, counts: Counts) -> None:
        self._number = number
        self._client = fleet.clients[number]
        self._fleet = fleet
        self._counts = counts
        self._asked: set[str] = set()
        self._hosts = {each.rpartition(":")[0] for each in self._client.hosts}
        self._waiting: set[str] = {CLUSTER, LISTENER, ROUTE, *([VIRTUAL_HOST] if self._asks else [])}
        self._seen = 0
        self.ready = asyncio.Event()

    @property
    def _asks(self) -> bool:
        return self._fleet.on_demand and bool(self._client.hosts)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Talks until the channel closes."""
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)
        own, domain = self._client, f"{self._client.namespace}.svc.cluster.local"
        first = DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id = f"sidecar~{own.address}~{own.name}.{own.namespace}~{domain}"
        metadata = first.node.metadata.fields
        metadata["NAMESPACE"].string_value = own.namespace
        metadata["INSTANCE_IPS"].string_value = own.address
        metadata["LATEEN_ON_DEMAND"].string_value = "true" if self._fleet.on_demand else "false"
        await call.write(first.SerializeToString())
        await call.write(DeltaDiscoveryRequest(type_url=LISTENER).SerializeToString())
        tables = DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=self._fleet.tables)
        await call.write(tables.SerializeToString())
        async for raw in call:
            self._counts.add(self._number, len(raw))
            message = DeltaDiscoveryResponse.FromString(raw)
            self._counts.took(message)
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
        if kind == ENDPOINT and self._fleet.stamped:
            self._look(message)
        if kind == ROUTE and self._asks and ROUTE in self._waiting:
            hosts = DeltaDiscoveryRequest(type_url=VIRTUAL_HOST, resource_names_subscribe=self._client.hosts)
            answers.append(hosts)
        if kind == VIRTUAL_HOST:
            self._hosts.difference_update(each.name for each in message.resources)
            if not self._hosts:
                self._waiting.discard(VIRTUAL_HOST)
        if kind != VIRTUAL_HOST:
            self._waiting.discard(kind)
        if not self._waiting:
            self.ready.set()
        return answers

    def _look(self, message: DeltaDiscoveryResponse) -> None:
        """Notes which stamped change came."""
        for each in message.resources:
            if each.name == self._fleet.stamped and SEQUENCE.encode() in each.resource.value:
                assignment = ClusterLoadAssignment.FromString(each.resource.value)
                addresses = [
                    endpoint.endpoint.address.socket_address.address
                    for place in assignment.endpoints
                    for endpoint in place.lb_endpoints
                ]
                newest = max((stamped(each) for each in addresses if each.startswith(SEQUENCE)), default=0)
                if newest > self._seen:
                    self._counts.stamps.append((self._seen, time.time()))
                    self._seen = newest


async def main() -> None:
    """Runs the sidecars until standard input closes."""
    fleet = msgspec.json.decode(sys.stdin.readline(), type=Fleet)
    counts = Counts()
    sidecars = [Sidecar(number, fleet, counts) for number in range(len(fleet.clients))]
    channels = _channels(fleet)
    started = time.time()
    tasks = [
        asyncio.create_task((each.take if fleet.floor else each.run)(channels[number // fleet.streams_a_connection]))
        for number, each in enumerate(sidecars)
    ]
    over = asyncio.create_task(_told(counts, started, sidecars))
    await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
    failed = [each for each in tasks if each.done()]
    for each in (over, *tasks):
        each.cancel()
    await asyncio.gather(*tasks, over, return_exceptions=True)
    await asyncio.gather(*[channel.close() for channel in channels])
    if failed:
        raise SystemExit(f"a stream ended: {failed[0].exception() or 'by the server'}")


async def _told(counts: Counts, started: float, sidecars: list[Sidecar]) -> None:
    await asyncio.gather(*[each.ready.wait() for each in sidecars])
    _say({"ready_s": time.time() - started, **counts.shown()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, _, number = line.strip().partition(" ")
        if word == "mark":
            counts.clear()
        else:
            while len(counts.reached) < int(number):
                counts.news.clear()
                await counts.news.wait()
        _say(counts.shown())


def _channels(fleet: Fleet) -> list[grpc.aio.Channel]:
    size = fleet.streams_a_connection
    firsts = [fleet.clients[start] for start in range(0, len(fleet.clients), size)]
    options: tuple[tuple[str, int | str], ...] = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    )
    if not fleet.credentials:
        return [grpc.aio.insecure_channel(fleet.target, options) for _ in firsts]
    options += (("grpc.ssl_target_name_override", "localhost"),)
    folder = Path(fleet.credentials)
    known = {each.namespace: _credentials(folder, each.namespace) for each in firsts}
    return [grpc.aio.secure_channel(fleet.target, known[each.namespace], options) for each in firsts]


def _credentials(folder: Path, namespace: str) -> grpc.ChannelCredentials:
    ca, key, chain = ((folder / f"{namespace}.{part}.pem").read_bytes() for part in ("ca", "key", "chain"))
    return grpc.ssl_channel_credentials(ca, key, chain)


def _say(values: Json) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
