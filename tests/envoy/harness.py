"""The real Envoy in tests: a process with a bootstrap, and a validator that answers what Envoy says of resources.

`Envoy` runs the program from the wheel, waits until it is live and stops it by its pid; its admin interface is
a Unix socket, so tests run side by side. `Validator` keeps one Envoy in a network namespace of its own (where
it may bind any port) and feeds it resources over delta ADS. Envoy looks at an endpoint assignment, a route
table or a secret only when something refers to it, so the validator adds a small cluster or listener that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.config_source_pb2 import ApiVersion, ConfigSource
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.message import Message

from lateen.envoy.resource import Resource
from lateen.node.envoy import envoy_binary
from lateen.xds.server import OPTIONS, XdsServer
from tests.envoy.certificates import Authority

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SDS = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
SDS_STATE = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"

Json = dict[str, Any]


def in_own_network() -> list[str]:
    """The command prefix that gives a program a network namespace of its own, for root and for others."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]


def pipe_cluster(name: str, path: Path) -> Json:
    """A static HTTP/2 cluster whose only endpoint is a Unix socket."""
    http2: Json = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def ads_bootstrap(xds: Path, node_id: str = "sidecar~10.88.0.9~app.default~default.svc.cluster.local") -> Json:
    """A bootstrap that takes everything over delta ADS from a Unix socket; SDS of the same socket is `sds-grpc`."""
    return {
        "node": {"id": node_id, "cluster": "app.default", "metadata": {"NAMESPACE": "default"}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [pipe_cluster("xds-grpc", xds), pipe_cluster("sds-grpc", xds)]},
    }


class Envoy:
    """One running Envoy. `directory` must be short: it holds the admin socket. `prefix` is put before its command."""

    def __init__(
        self, bootstrap: Json, directory: Path, *, own_network: bool = False, prefix: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.log = directory / "envoy.log"
        self._admin = directory / "admin.sock"
        config = directory / "envoy.json"
        config.write_text(json.dumps({**bootstrap, "admin": {"address": {"pipe": {"path": str(self._admin)}}}}))
        prefix = in_own_network() if own_network else prefix
        arguments = ["-c", str(config), "--log-path", str(self.log), "-l", "warning", "--concurrency", "1"]
        arguments += ["--disable-hot-restart", "--drain-time-s", "0", "--file-flush-interval-msec", "50"]
        self._output = (directory / "output.log").open("wb")
        self.process = subprocess.Popen(
            [*prefix, str(envoy_binary()), *arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )

    def wait_live(self, deadline_s: float = 30) -> None:
        """Returns when Envoy says LIVE; RuntimeError with its log when it ends or the time is over."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                if self.admin("/ready").strip() == "LIVE":
                    return
            except (FileNotFoundError, ConnectionError):
                pass
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"Envoy is not live:\n{self.logs()}")

    def logs(self) -> str:
        """What it has written."""
        return "".join(
            path.read_text(errors="replace") for path in (self.directory / "output.log", self.log) if path.exists()
        )

    def admin(self, path: str, method: str = "GET", **query: str) -> str:
        """What the admin interface answers; OSError when it is not there."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._admin))
            client = http.client.HTTPConnection("admin")
            client.sock = connection
            client.request(method, f"{path}?{urllib.parse.urlencode(query)}" if query else path)
            return client.getresponse().read().decode()

    def dump(self, resource: str) -> list[Json]:
        """One section of `/config_dump`, such as `dynamic_route_configs`; empty when there is none."""
        return json.loads(self.admin("/config_dump", resource=resource)).get("configs", [])

    def stat(self, name: str) -> int:
        """The value of one counter or gauge; 0 when it does not exist."""
        lines = self.admin("/stats", filter=f"^{name}$").splitlines()
        return int(lines[0].rpartition(": ")[2]) if lines else 0

    def stop(self) -> None:
        """Ends the process and waits for its end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._output.close()


def short_directory() -> Path:
    """A new directory with a path short enough for Unix sockets; the caller removes it."""
    return Path(tempfile.mkdtemp(prefix="ltn-", dir="/tmp"))


class Validator:
    """One Envoy that says what it thinks of resources. Not for use by several threads at once."""

    def __init__(self) -> None:
        self.directory = short_directory()
        self._changed = threading.Condition()
        self._given: dict[str, dict[str, Resource]] = {}
        self._sent: dict[str, tuple[str, list[str]]] = {}
        self._open: set[tuple[str, str]] = set()
        self._subscribed: set[tuple[str, str]] = set()
        self._errors: list[str] = []
        self._ads: SimpleQueue[bytes | None] | None = None
        self._serial = 0
        self._identity = dict(_identity())
        socket = self.directory / "xds.sock"
        self._server = grpc.server(ThreadPoolExecutor(64))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()
        try:
            self.envoy = self.start(self.bootstrap(socket))
            self.envoy.wait_live()
        except BaseException:
            self._server.stop(None).wait()
            raise

    def bootstrap(self, xds: Path) -> Json:
        """What Envoy starts with; `xds` is this server's socket."""
        return ads_bootstrap(xds)

    def start(self, bootstrap: Json) -> Envoy:
        """Starts Envoy."""
        return Envoy(bootstrap, self.directory, own_network=True)

    def close(self) -> None:
        """Ends Envoy and the server and removes their files."""
        self.envoy.stop()
        self._server.stop(None).wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def accepts(self, resources: Iterable[tuple[str, Resource]], deadline_s: float = 30) -> list[str]:
        """What Envoy has against these (type URL, resource): its words, one per refused response; empty is good.

        All are offered together, so a listener may refer to a route table given here; what is missing (an
        endpoint assignment, a route table, a secret) is filled in empty. Afterwards all of them are removed.
        """
        given: dict[str, dict[str, Resource]] = {CLUSTER: {}, LISTENER: {}, ENDPOINT: {}, ROUTE: {}, SECRET: {}}
        for type_url, resource in resources:
            given[type_url][resource.name] = resource
        asked = [(type_url, name) for type_url in (ENDPOINT, ROUTE, SECRET) for name in given[type_url]]
        for type_url, name in asked:
            self._serial += 1
            kind, carrier = _carrier(type_url, given[type_url][name], self._serial)
            given[kind][carrier.name] = carrier
        with self._changed:
            self._errors = []
            self._given = given
            self._open = set(asked)
            for type_url in (CLUSTER, LISTENER):
                self._offer(type_url, list(given[type_url].values()), [])
            if not self._changed.wait_for(lambda: not self._sent and not self._open, deadline_s):
                unseen = ", ".join(f"{type_url} {name}" for type_url, name in sorted(self._open))
                self._errors.append(f"no answer within {deadline_s} s; never asked for: {unseen or 'none'}")
            errors, self._errors = self._errors, []
            for type_url in (LISTENER, CLUSTER):
                self._offer(type_url, [], list(given[type_url]))
            self._given = {}
            # a name still subscribed would not be asked for next time
            self._changed.wait_for(lambda: not self._sent and self._subscribed.isdisjoint(asked), deadline_s)
        if self.envoy.process.poll() is not None:
            raise RuntimeError(f"Envoy died of these resources:\n{self.envoy.logs()[-4000:]}")
        return errors

    # -- the server; called by gRPC threads -----------------------------------------------------------------

    def _offer(self, type_url: str, resources: list[Resource], removed: list[str]) -> None:
        if (resources or removed) and self._ads is not None:
            self._send(self._ads, type_url, resources, removed)

    def _send(
        self, stream: SimpleQueue[bytes | None], type_url: str, resources: list[Resource], removed: list[str]
    ) -> None:
        self._serial += 1
        response = DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._serial), removed_resources=removed)
        for each in resources:
            item = response.resources.add(name=each.name, version=each.version)
            item.resource.type_url = type_url
            item.resource.value = each.body
        self._sent[response.nonce] = (type_url, [each.name for each in resources])
        stream.put(response.SerializeToString())

    def _answer(self, type_url: str, name: str) -> Resource | None:
        if (given := self._given.get(type_url, {}).get(name)) is not None:
            return given
        if type_url == SECRET:
            secret = Secret()
            secret.CopyFrom(self._identity["ROOTCA" if name.endswith(("ROOTCA", "-cacert")) else "default"])
            secret.name = name
            return _resource(name, secret)
        empty: dict[str, Message] = {
            ENDPOINT: ClusterLoadAssignment(cluster_name=name),
            ROUTE: RouteConfiguration(name=name),
        }
        return _resource(name, empty[type_url]) if type_url in empty else None

    def stream(self, requests: Iterator[bytes], ads: bool) -> Iterator[bytes]:
        """One delta stream: a thread reads, this generator writes."""
        out: SimpleQueue[bytes | None] = SimpleQueue()
        if ads:
            self._ads = out
        threading.Thread(target=self._read, args=(requests, out), daemon=True).start()
        while (item := out.get()) is not None:
            yield item

    def secrets(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        """One state-of-the-world stream of secrets: an answer to each first request, silence to each ACK."""
        for raw in requests:
            request = DiscoveryRequest.FromString(raw)
            if request.response_nonce:
                continue
            response = DiscoveryResponse(type_url=SECRET, version_info="1", nonce="1")
            for name in request.resource_names:
                if (secret := self._answer(SECRET, name)) is not None:
                    response.resources.add(type_url=SECRET, value=secret.body)
            yield response.SerializeToString()

    def _read(self, requests: Iterator[bytes], out: SimpleQueue[bytes | None]) -> None:
        try:
            for raw in requests:
                with self._changed:
                    self._request(DeltaDiscoveryRequest.FromString(raw), out)
                    self._changed.notify_all()
        except grpc.RpcError:
            pass  # Envoy has ended
        finally:
            out.put(None)

    def _request(self, request: DeltaDiscoveryRequest, out: SimpleQueue[bytes | None]) -> None:
        url = request.type_url
        if request.response_nonce:
            _, names = self._sent.pop(request.response_nonce, (url, []))
            self._open -= {(url, name) for name in names}
            if request.HasField("error_detail"):
                self._errors.append(f"{url.rpartition('.')[2]}: {request.error_detail.message}")
        self._subscribed -= {(url, name) for name in request.resource_names_unsubscribe}
        names = list(request.resource_names_subscribe)
        self._subscribed |= {(url, name) for name in names}
        if names or not request.response_nonce:
            answers = [self._answer(url, name) for name in names]
            found = [each for each in answers if each is not None]
            if found or not request.response_nonce:
                self._send(out, url, found, [])


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        method = str(handler_call_details.method)
        if method == SDS_STATE:
            return grpc.stream_stream_rpc_method_handler(self._validator.secrets)
        if method not in (ADS, SDS):
            return None

        def serve(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
            return self._validator.stream(requests, method == ADS)

        return grpc.stream_stream_rpc_method_handler(serve)


def _resource(name: str, message: Message) -> Resource:
    return Resource(name, "1", message.SerializeToString())


def _identity() -> Iterator[tuple[str, Secret]]:
    authority = Authority()
    certificate, key = authority.leaf("spiffe://cluster.local/ns/default/sa/default")
    own = Secret(name="default")
    own.tls_certificate.certificate_chain.inline_bytes = certificate
    own.tls_certificate.private_key.inline_bytes = key
    yield "default", own
    root = Secret(name="ROOTCA")
    root.validation_context.trusted_ca.inline_bytes = authority.pem
    yield "ROOTCA", root


def _carrier(type_url: str, resource: Resource, serial: int) -> tuple[str, Resource]:
    """Something that makes Envoy ask for a resource: a cluster for endpoints and secrets, a listener for routes."""
    carrier = f"carrier-{serial}"
    if type_url == ROUTE:
        manager = HttpConnectionManager(stat_prefix="carrier")
        manager.rds.route_config_name = resource.name
        manager.rds.config_source.CopyFrom(_from_ads())
        manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(Router())
        listener = Listener(name=carrier)
        listener.address.socket_address.address = f"127.{serial >> 14 & 255}.{serial >> 6 & 255}.{serial & 63}"
        listener.address.socket_address.port_value = 1
        listener.bind_to_port.value = False
        listener.filter_chains.add().filters.add(name="hcm").typed_config.Pack(manager)
        return LISTENER, _resource(carrier, listener)
    cluster = Cluster(name=carrier)
    if type_url == ENDPOINT:
        cluster.type = Cluster.EDS
        cluster.eds_cluster_config.service_name = resource.name
        cluster.eds_cluster_config.eds_config.CopyFrom(_from_ads())
        return CLUSTER, _resource(carrier, cluster)
    context = UpstreamTlsContext()
    if Secret.FromString(resource.body).HasField("tls_certificate"):
        config = context.common_tls_context.tls_certificate_sds_secret_configs.add()
    else:
        config = context.common_tls_context.validation_context_sds_secret_config
    config.name = resource.name
    config.sds_config.CopyFrom(_from_ads())
    cluster.type = Cluster.STATIC
    cluster.load_assignment.cluster_name = carrier
    cluster.transport_socket.name = "envoy.transport_sockets.tls"
    cluster.transport_socket.typed_config.Pack(context)
    return CLUSTER, _resource(carrier, cluster)


def _from_ads() -> ConfigSource:
    source = ConfigSource(resource_api_version=ApiVersion.V3)
    source.ads.SetInParent()
    return source


@contextlib.asynccontextmanager
async def serving(
    server: XdsServer, address: str, options: tuple[tuple[str, int], ...] = OPTIONS
) -> AsyncIterator[int]:
    """Runs an xDS server in plaintext on `unix:PATH` or `127.0.0.1:0`; gives the port (1 for a Unix socket)."""
    transport = grpc.aio.server(options=options)
    transport.add_generic_rpc_handlers((server.handler(),))
    port = transport.add_insecure_port(address)
    await transport.start()
    running = asyncio.create_task(server.run())
    try:
        yield port
    finally:
        await transport.stop(None)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 20) -> None:
    """Waits until it holds; AssertionError when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in {deadline_s} s: {what}"
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
