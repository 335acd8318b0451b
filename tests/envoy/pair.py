"""Two Envoys with certificates from one agent, and traffic between them over new, kept and TCP connections."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
from cryptography import x509

from lateen.lib.layout import Layout
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, bootstrap
from tests.envoy.harness import Envoy
from tests.envoy.identities import (
    TYPE,
    AgentProcess,
    Json,
    Signing,
    agent_process,
    certificate_on_the_wire,
    static,
    tls_from_sds,
    until,
)

HTTP, KEPT, TCP = "http", "kept", "tcp"


def _manager(route: Json) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "test",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"},
                }
            ],
        },
    }


def _tcp(cluster: str) -> Json:
    config = {"@type": f"{TYPE}filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "test", "cluster": cluster}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _listener(name: str, network_filter: Json, tls: Json | None = None) -> Json:
    chain: Json = {"filters": [network_filter], **({"transport_socket": tls} if tls else {})}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def cluster(name: str, port: int, **fields: object) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **fields}


def proxy(layout: Layout, pod: Json, listeners: list[Json], clusters: list[Json]) -> Envoy:
    directory = layout.pod(pod["uid"])
    spec = BootstrapSpec(
        pod=pod["name"],
        namespace=pod["namespace"],
        ip="127.0.0.1",
        xds=XdsAddress(path=str(layout.xds_socket)),
        sds_path=pod["sds_socket"],
        admin_path=str(directory / "admin.sock"),
        mark=None,
        status_port=None,
        metrics_port=None,
    )
    return Envoy(static(bootstrap(spec), listeners, clusters), directory)


def _port(envoy: Envoy, listener: str) -> int:
    statuses = msgspec.json.decode(envoy.admin("/listeners", format="json"))["listener_statuses"]
    (found,) = (each for each in statuses if each["name"] == listener)
    return found["local_address"]["socket_address"]["port_value"]


class Traffic:
    """Requests over new connections, over kept ones, and bytes over one TCP connection, until it is closed."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
        self.done = dict.fromkeys(ports, 0)
        self.failures: list[str] = []

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Traffic]:
        """Sends while the block runs; what failed is in `failures`."""
        tasks = [asyncio.create_task(self._requests(kind)) for kind in (HTTP, KEPT)]
        tasks.append(asyncio.create_task(self._bytes()))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self, count: int = 20) -> None:
        """Returns when each kind has done that many more."""
        goal = {kind: done + count for kind, done in self.done.items()}

        async def reached() -> bool:
            assert self.failures == []
            return all(self.done[kind] >= goal[kind] for kind in goal)

        await until(reached)

    async def _requests(self, kind: str) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.ports[kind]}") as client:
            while True:
                answer = await client.get("/")
                if answer.status_code != 200:
                    self.failures.append(f"{kind}: {answer.status_code} {answer.text}")
                self.done[kind] += 1
                await asyncio.sleep(0.01)

    async def _bytes(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[TCP])
        try:
            while True:
                writer.write(b"ping")
                if await reader.read(4) != b"ping":
                    self.failures.append("tcp: the connection ended")
                    return
                self.done[TCP] += 1
                await asyncio.sleep(0.01)
        finally:
            writer.close()


class Pair:
    """A client and a server Pod, each an Envoy with certificates from one agent."""

    def __init__(self, layout: Layout, signing: Signing, agent: AgentProcess) -> None:
        self.layout = layout
        self.signing = signing
        self.agent = agent
        self.client = signing.pod("client")
        self.server = signing.pod("server")
        self.tls_port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """Both Envoys with traffic between them."""

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1024):
                writer.write(data)
            writer.close()

        envoys: list[Envoy] = []
        app = await asyncio.start_server(echo, "127.0.0.1", 0)
        try:
            for pod in (self.client, self.server):
                await self.agent.add(pod)
            answer: Json = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
            mutual = tls_from_sds("Downstream", require_client_certificate=True)
            server = proxy(
                self.layout,
                self.server,
                [_listener(HTTP, _manager(answer), mutual), _listener(TCP, _tcp("app"), mutual)],
                [cluster("app", app.sockets[0].getsockname()[1])],
            )
            envoys.append(server)
            await asyncio.to_thread(server.wait_live)
            self.tls_port = _port(server, HTTP)
            once: Json = {
                "@type": f"{TYPE}upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"max_requests_per_connection": 1},
                "explicit_http_config": {"http_protocol_options": {}},
            }
            options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": once}
            tls = tls_from_sds("Upstream")
            client = proxy(
                self.layout,
                self.client,
                [
                    _listener(kind, _manager({"match": {"prefix": "/"}, "route": {"cluster": kind}}))
                    for kind in (HTTP, KEPT)
                ]
                + [_listener(TCP, _tcp(TCP))],
                [
                    cluster(HTTP, self.tls_port, transport_socket=tls, typed_extension_protocol_options=options),
                    cluster(KEPT, self.tls_port, transport_socket=tls),
                    cluster(TCP, _port(server, TCP), transport_socket=tls),
                ],
            )
            envoys.append(client)
            await asyncio.to_thread(client.wait_live)
            self.client_envoy = client
            async with Traffic({kind: _port(client, kind) for kind in (HTTP, KEPT, TCP)}).flowing() as traffic:
                await traffic.more()
                yield traffic
                await traffic.more()
        finally:
            for envoy in envoys:
                envoy.stop()
            app.close()

    async def accepts(self, chain: bytes, key: bytes) -> bool:
        """Whether the server takes a certificate (PEM) of somebody in a new handshake."""
        files = self.layout.state / "caller.pem", self.layout.state / "caller.key"
        for file, content in zip(files, (chain, key), strict=True):
            file.write_bytes(content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(*files)
        async with httpx.AsyncClient(verify=context) as client:
            try:
                return (await client.get(f"https://127.0.0.1:{self.tls_port}/")).status_code == 200
            except (httpx.TransportError, ssl.SSLError):
                return False

    async def shown(self) -> x509.Certificate:
        """The server's certificate in a new handshake, made with the client Pod's."""
        kept = msgspec.json.decode((self.layout.pod(self.client["uid"]) / "identity.json").read_bytes())
        files = self.layout.state / "client.pem", self.layout.state / "client.key"
        files[0].write_text(kept["chain"])
        files[1].write_text(kept["key"])
        return await certificate_on_the_wire(self.tls_port, files, kept["roots"])


@asynccontextmanager
async def mesh_of_two(layout: Layout, validity: dt.timedelta = dt.timedelta(hours=24)) -> AsyncIterator[Pair]:
    """The Pods of a pair with their agent and CA; `running` starts the proxies."""
    signing = Signing(layout, validity)
    await signing.start()
    try:
        async with agent_process(layout) as agent:
            yield Pair(layout, signing, agent)
    finally:
        await signing.stop()
