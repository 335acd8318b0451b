"""Many delta xDS clients in one process: they ask for what a sidecar asks for, accept everything, and count.

    python -m lateen.bench.xds_clients JSON

JSON: `{"target", "directory", "clients": [[namespace, name], ...], "routes": {namespace: [table, ...]}}`; the
directory holds NAMESPACE.ca.pem, .key.pem and .chain.pem. Prints one line of JSON when every client has clusters,
listeners and routes, and another (the counts) when standard input closes.
Each client has its own connection.
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
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PREFIX: Final = "type.googleapis.com/envoy.config."
CLUSTER: Final = PREFIX + "cluster.v3.Cluster"
ENDPOINT: Final = PREFIX + "endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = PREFIX + "listener.v3.Listener"
ROUTE: Final = PREFIX + "route.v3.RouteConfiguration"


class Client:
    """One proxy: wildcard clusters and listeners, endpoints of every outbound cluster, given route tables."""

    def __init__(self, namespace: str, name: str, routes: list[str], counts: Counter[str]) -> None:
        self._node = f"sidecar~10.88.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"
        self._routes = routes
        self._counts = counts
        self._asked: set[str] = set()
        self.ready = asyncio.Event()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Talks until the channel closes."""
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)
        first = DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id = self._node
        await call.write(first.SerializeToString())
        await call.write(DeltaDiscoveryRequest(type_url=LISTENER).SerializeToString())
        await call.write(
            DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=self._routes).SerializeToString()
        )
        waiting = {CLUSTER, LISTENER, ROUTE}
        async for raw in call:
            message = DeltaDiscoveryResponse.FromString(raw)
            kind = message.type_url
            self._counts[f"{kind.rpartition('.')[2]} responses"] += 1
            self._counts[f"{kind.rpartition('.')[2]} resources"] += len(message.resources)
            self._counts["bytes"] += len(raw)
            answer = DeltaDiscoveryRequest(type_url=kind, response_nonce=message.nonce)
            await call.write(answer.SerializeToString())
            if kind == CLUSTER:
                new = {each.name for each in message.resources if each.name.startswith("outbound|")} - self._asked
                if new:
                    self._asked |= new
                    ask = DeltaDiscoveryRequest(type_url=ENDPOINT, resource_names_subscribe=sorted(new))
                    await call.write(ask.SerializeToString())
            waiting.discard(kind)
            if not waiting:
                self.ready.set()


async def main(settings: dict[str, Any]) -> None:
    """Runs the clients until standard input closes."""
    credentials = {namespace: _credentials(Path(settings["directory"]), namespace) for namespace in settings["routes"]}
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost"))
    counts = Counter[str]()
    channels = [
        grpc.aio.secure_channel(settings["target"], credentials[namespace], options)
        for namespace, _ in settings["clients"]
    ]
    clients = [
        Client(namespace, name, settings["routes"][namespace], counts) for namespace, name in settings["clients"]
    ]
    started = time.perf_counter()
    tasks = [asyncio.create_task(each.run(channel)) for each, channel in zip(clients, channels, strict=True)]
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    ready = asyncio.gather(*[each.ready.wait() for each in clients])
    await asyncio.wait([over, ready], return_when=asyncio.FIRST_COMPLETED)
    if not over.done():
        _say({"ready_s": round(time.perf_counter() - started, 3), **counts})
        counts.clear()
        await over
        _say(dict(counts))
    ready.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*[channel.close() for channel in channels])


def _credentials(directory: Path, namespace: str) -> grpc.ChannelCredentials:
    ca, key, chain = ((directory / f"{namespace}.{part}.pem").read_bytes() for part in ("ca", "key", "chain"))
    return grpc.ssl_channel_credentials(ca, key, chain)


def _say(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
