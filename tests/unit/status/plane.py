"""A control plane in this process: store, graph, xDS and conditions, and proxies that answer as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.api import kinds
from lateen.apiserver.applying import apply_files
from lateen.apiserver.deletion import Delete
from lateen.apiserver.results import ApplyResult
from lateen.apiserver.store import Store
from lateen.daemon.analysis import Analysis
from lateen.daemon.inputs import Inputs, initial
from lateen.daemon.quarantine import StoreQuarantine
from lateen.daemon.status_writer import StatusWriter, configures
from lateen.engine import Graph
from lateen.envoy.types import TYPES
from lateen.intent.scope import scope_of
from lateen.lib.ids import Ref
from lateen.xds.auth import Believing
from lateen.xds.server import OPTIONS, SERVICE, XdsServer
from tests.envoy.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, serving
from tests.unit.apiserver import api

Json = dict[str, Any]

WORKLOADS = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  clusterIP: 10.96.0.1
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec:
  selector: {app: ratings}
  clusterIP: 10.96.0.2
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.3
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, labels: {app: reviews}}
spec: {containers: [{name: app, command: [x], ports: [{containerPort: 9080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ratings-1, labels: {app: ratings}}
spec: {containers: [{name: app, command: [x], ports: [{containerPort: 9080}]}]}
"""
"""Two services of namespace default with a Pod each, and one without, for port 80."""


def route(name: str, host: str, timeout: str = "1s", created: str = "") -> str:
    """A VirtualService for one host of namespace default."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  http: [{{timeout: {timeout}, route: [{{destination: {{host: {host}, port: {{number: 9080}}}}}}]}}]
"""


class Proxy:
    """A delta client like Envoy: clusters and listeners by wildcard, endpoints and route tables by name.

    `answering` off: it takes what comes and says nothing (a stopped process). `refuses` says what it has against a
    resource's bytes.
    """

    def __init__(self, name: str, namespace: str = "default") -> None:
        self.name = name
        self.namespace = namespace
        self.held: dict[str, dict[str, bytes]] = {CLUSTER: {}, ENDPOINT: {}, LISTENER: {}, ROUTE: {}}
        self.answering = asyncio.Event()
        self.answering.set()
        self.refuses: Callable[[bytes], str] = lambda _: ""
        self._asked: dict[str, set[str]] = {ENDPOINT: set(), ROUTE: set()}
        self._task: asyncio.Task[None] | None = None

    def connect(self, address: str) -> None:
        self._task = asyncio.create_task(self._run(address))

    async def leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._asked = {ENDPOINT: set(), ROUTE: set()}

    async def _run(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            method = cast("Callable[[], Any]", channel.stream_stream(f"/{SERVICE}/DeltaAggregatedResources"))
            call = method()
            for type_url in (CLUSTER, LISTENER):
                first = DeltaDiscoveryRequest(type_url=type_url)
                first.node.id = f"sidecar~10.88.0.9~{self.name}.{self.namespace}~{self.namespace}.svc.cluster.local"
                await call.write(first.SerializeToString())
            async for raw in call:
                await self.answering.wait()
                await self._take(call, DeltaDiscoveryResponse.FromString(raw))

    async def _take(self, call: Any, response: DeltaDiscoveryResponse) -> None:
        held = self.held[response.type_url]
        answer = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        words = "; ".join(filter(None, (self.refuses(each.resource.value) for each in response.resources)))
        if words:
            answer.error_detail.message = words
        else:
            held.update({each.name: each.resource.value for each in response.resources})
            for name in response.removed_resources:
                held.pop(name, None)
        await call.write(answer.SerializeToString())
        if response.type_url == CLUSTER:
            eds = {name for name, body in held.items() if Cluster.FromString(body).type == Cluster.EDS}
            await self._ask(call, ENDPOINT, eds)
        if response.type_url == LISTENER:
            await self._ask(call, ROUTE, {name for body in held.values() for name in _tables(body)})

    async def _ask(self, call: Any, type_url: str, names: set[str]) -> None:
        asked = self._asked[type_url]
        if names == asked:
            return
        request = DeltaDiscoveryRequest(type_url=type_url)
        request.resource_names_subscribe.extend(sorted(names - asked))
        request.resource_names_unsubscribe.extend(sorted(asked - names))
        for name in asked - names:
            self.held[type_url].pop(name, None)
        self._asked[type_url] = names
        await call.write(request.SerializeToString())


def _tables(body: bytes) -> set[str]:
    found: set[str] = set()
    listener = Listener.FromString(body)
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for each in chain.filters:
            manager = HttpConnectionManager()
            if each.typed_config.Unpack(manager) and manager.HasField("rds"):
                found.add(manager.rds.route_config_name)
    return found


class Plane:
    """The parts; `apply` takes YAML, `condition` reads a status."""

    def __init__(self, store: Store, address: str, return_s: float = 0) -> None:
        self.store = store
        self.address = address
        self.graph = Graph()
        self.graph.commit(initial(store.rows()))
        held = StoreQuarantine(store)
        self.xds = XdsServer(self.graph, TYPES, scope_of, Believing(), held, tracked=configures, divide=held)
        self.analysis = Analysis(store, self.graph, self.xds.pump)
        self.writer = StatusWriter(store, self.xds, return_s=return_s)
        store.subscribe(Inputs(self.xds.pump.submit))
        self.proxies: list[Proxy] = []

    async def apply(self, text: str) -> ApplyResult:
        async with api.serving(self.store) as client:
            result = await apply_files(client, [("in.yaml", text)])
        assert result.applied, result
        return result

    async def delete(self, kind: str, name: str) -> None:
        await self.store.write([Delete(self.ref(kind, name))])

    async def proxy(self, name: str) -> Proxy:
        made = Proxy(name)
        self.proxies.append(made)
        made.connect(self.address)
        await self.until(lambda: any(each.proxy.name == name and _complete(each) for each in self.xds.proxies()))
        return made

    def ref(self, kind: str, name: str, namespace: str = "default") -> Ref:
        found = kinds.by_name(kind)
        assert found is not None
        return Ref(found.group, found.kind, namespace, name)

    def condition(self, kind: str, name: str, condition: str) -> Json:
        row = self.store.get(self.ref(kind, name))
        assert row is not None
        listed: list[Json] = row.decode().get("status", {}).get("conditions", [])
        nothing: Json = {}
        found = next((each for each in listed if each["type"] == condition), nothing)
        return found if found.get("observedGeneration") == row.generation else {}

    def says(self, kind: str, name: str) -> dict[str, str]:
        """The conditions of an object in short."""
        types = ("Accepted", "Programmed", "Conflicted", "Enforced")
        read = {each: self.condition(kind, name, each) for each in types}
        return {each: f"{found.get('status')} {found.get('reason')}" for each, found in read.items()}

    async def until(self, holds: Callable[[], bool], within_s: float = 10) -> float:
        """Waits until it holds; how long it took in seconds."""
        started = time.monotonic()
        while not holds():
            assert time.monotonic() - started < within_s, self._seen()
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    def _seen(self) -> str:
        rows = [row for row in self.store.rows() if configures(row.ref)]
        return "\n".join(f"{row.ref.short}: {row.status.decode()}" for row in rows[:10])

    async def reaches(self, kind: str, name: str, wanted: Mapping[str, str], within_s: float = 5) -> float:
        """Waits until conditions are `status reason`."""
        return await self.until(
            lambda: all(self.says(kind, name)[key] == value for key, value in wanted.items()), within_s
        )


def _complete(status: Any) -> bool:
    return {each.short for each in status.types} >= {"CDS", "EDS", "LDS", "RDS"} and all(
        each.synced for each in status.types
    )


@contextlib.asynccontextmanager
async def running(
    host: str = "", options: tuple[tuple[str, int], ...] = OPTIONS, return_s: float = 0
) -> AsyncIterator[Plane]:
    """A plane with the two services and nobody connected; xDS is on a Unix socket, or at a port of an address."""
    with tempfile.TemporaryDirectory(prefix="lateen-") as name:
        store = await Store.open(Path(name) / "store.db")
        plane = Plane(store, f"{host}:0" if host else f"unix:{name}/xds.sock", return_s)
        async with serving(plane.xds, plane.address, options) as port:
            plane.address = f"{host}:{port}" if host else plane.address
            tasks = [asyncio.create_task(plane.writer.run()), asyncio.create_task(plane.analysis.run())]
            await plane.apply(WORKLOADS)
            try:
                yield plane
            finally:
                for proxy in plane.proxies:
                    await proxy.leave()
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        await store.close()
