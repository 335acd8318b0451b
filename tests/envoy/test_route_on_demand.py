"""The parts a route table is joined from can come on demand: one virtual host as a resource of its own (VHDS).

With a server of its own the test holds the shape of tables to what on-demand discovery needs: routes encoded apart
from names, no `*` among the services, all names of a virtual host known from the table.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.on_demand.v3.on_demand_pb2 import OnDemand
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.envoy.route import sidecar_routes
from lateen.envoy.virtual_host import encoded_virtual_host
from lateen.features.feature import Direction
from lateen.features.phases import http_filters
from lateen.intent.route_table import sidecar_hosts
from lateen.model.visibility import Client
from tests.configuration import objects, service, virtual_service
from tests.envoy.harness import ADS, LISTENER, ROUTE, Envoy, ads_bootstrap, short_directory
from tests.envoy.playground import Caller

VIRTUAL_HOST = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
TABLE = "9080"
ANSWER = "{hosts: [%s], http: [{directResponse: {status: 200, body: {string: %s}}}]}"


class OnDemandServer(grpc.GenericRpcHandler):
    """A delta ADS server with one listener, an empty table, and virtual hosts for those who ask."""

    def __init__(self, listener: Listener) -> None:
        self.graph = Graph()
        self.asked: list[str] = []
        self._table = RouteConfiguration(name=TABLE, ignore_port_in_host_matching=True)
        source = self._table.vhds.config_source
        source.ads.SetInParent()
        source.resource_api_version = ApiVersion.V3
        source.initial_fetch_timeout.nanos = 50_000_000
        self._listener = listener

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return grpc.stream_stream_rpc_method_handler(self._stream) if handler_call_details.method == ADS else None

    def _stream(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        out: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(requests, out), daemon=True).start()
        while (item := out.get()) is not None:
            yield item

    def _read(self, requests: Iterator[bytes], out: SimpleQueue[bytes | None]) -> None:
        try:
            for raw in requests:
                request = DeltaDiscoveryRequest.FromString(raw)
                names = list(request.resource_names_subscribe)
                if names or not request.response_nonce:
                    out.put(self._answer(request.type_url, names).SerializeToString())
        except grpc.RpcError:
            pass  # Envoy has ended
        finally:
            out.put(None)

    def _answer(self, type_url: str, names: list[str]) -> DeltaDiscoveryResponse:
        response = DeltaDiscoveryResponse(type_url=type_url, nonce="1")
        if type_url == LISTENER:
            response.resources.add(name="on-demand", version="1").resource.Pack(self._listener)
        elif type_url == ROUTE:
            response.resources.add(name=TABLE, version="1").resource.Pack(self._table)
        elif type_url == VIRTUAL_HOST:
            for name in names:
                if name != "*":
                    self.asked.append(name)
                    self._add_virtual_host(response, name)
        return response

    def _add_virtual_host(self, response: DeltaDiscoveryResponse, asked: str) -> None:
        host = asked.removeprefix(f"{TABLE}/").partition(":")[0]
        client = Client("default")
        for each in self.graph.pull(sidecar_hosts, client, int(TABLE)):
            if host in each.domains:
                routes = self.graph.pull(sidecar_routes, client, (), each.host, each.port, each.virtual_service)
                name = f"{TABLE}/{each.host}"
                item = response.resources.add(name=name, aliases=[asked], version="1")
                item.resource.type_url = VIRTUAL_HOST
                item.resource.value = encoded_virtual_host(name, each.domains, routes.body)
                return
        response.resources.add(name=asked, aliases=[asked], version="1")  # no body: 404, and not asked again


def listener(path: Path) -> Listener:
    """A listener on a Unix socket: lateen's own filters behind the one that asks."""
    manager = HttpConnectionManager(stat_prefix="on-demand")
    manager.rds.route_config_name = TABLE
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3
    manager.http_filters.add(name="envoy.filters.http.on_demand").typed_config.Pack(OnDemand())
    for each in http_filters(Direction.OUTBOUND):
        manager.http_filters.add().ParseFromString(each)
    made = Listener(name="on-demand")
    made.address.pipe.path = str(path)
    made.filter_chains.add().filters.add(name="manager").typed_config.Pack(manager)
    return made


@pytest.fixture
def on_demand() -> Iterator[tuple[OnDemandServer, Path]]:
    directory = short_directory()
    socket, xds = directory / "in.sock", directory / "xds.sock"
    server = OnDemandServer(listener(socket))
    grpc_server = grpc.server(ThreadPoolExecutor(8))
    grpc_server.add_generic_rpc_handlers((server,))
    grpc_server.add_insecure_port(f"unix:{xds}")
    grpc_server.start()
    bootstrap: dict[str, Any] = ads_bootstrap(xds)
    envoy = Envoy(bootstrap, directory)
    try:
        envoy.wait_live()
        yield server, socket
    finally:
        envoy.stop()
        grpc_server.stop(None).wait()
        shutil.rmtree(directory, ignore_errors=True)


def test_virtual_hosts_come_when_they_are_asked_for(on_demand: tuple[OnDemandServer, Path]) -> None:
    server, socket = on_demand
    texts = [service(name, address=f"10.96.0.{index}") for index, name in enumerate(("a", "b", "c"))]
    texts += [virtual_service(name, ANSWER % (name, f"from-{name}")) for name in ("a", "b")]
    fault = "{hosts: [c], http: [{fault: {abort: {percentage: {value: 100}, httpStatus: 418}}, "
    texts.append(virtual_service("c", fault + "route: [{destination: {host: c}}]}]}"))
    server.graph.commit(transaction([each for text in texts for each in objects(text)]))

    def request(host: str) -> tuple[int, str]:
        with Caller(socket) as caller:
            answer = caller.request(host, "/", "GET", {}, b"")
            return answer.status, answer.body.decode()

    assert request("a:9080") == (200, "from-a")
    assert server.asked == ["9080/a:9080"]
    for other in ("a", "a.default", "A.default.svc:9080", "a.default.svc.cluster.local", "10.96.0.0"):
        assert request(other) == (200, "from-a")
    assert server.asked == ["9080/a:9080"]  # all its names came with it
    assert request("c.default") == (418, "fault filter abort")  # filters behind are configured at the first request
    assert request("nobody.example")[0] == 404
    assert request("nobody.example")[0] == 404
    assert request("b") == (200, "from-b")
    assert server.asked == ["9080/a:9080", "9080/c.default", "9080/nobody.example", "9080/b"]
