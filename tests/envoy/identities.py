"""A control plane that only signs, and an agent process, for tests of certificates on the real Envoy."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
from cryptography import x509

from lateen.apiserver.operations import Put
from lateen.apiserver.store import Store
from lateen.daemon.authority import Authority
from lateen.daemon.inputs import Inputs, initial
from lateen.daemon.settings import Settings, write
from lateen.engine import Graph
from lateen.lib.ids import OWN_CLUSTER
from lateen.lib.layout import Layout
from lateen.lib.spiffe import SpiffeId
from lateen.node.control import call
from lateen.security.client import unix_target
from lateen.security.csr import Caller, CertificateService
from lateen.security.peer import PeerIdentity
from lateen.security.serving import SERVER_OPTIONS, ServingCertificate
from lateen.security.tokens import TokenIssuer
from lateen.xds.pump import Pump

TRUST_DOMAIN = "cluster.local"
TYPE = "type.googleapis.com/envoy.extensions."

Json = dict[str, Any]


class Signing:
    """The CA with the certificate and trust services, on `ca.sock` (tokens) and `xds.sock` (certificates) of a run
    directory: a control plane without xDS."""

    def __init__(self, layout: Layout, validity: dt.timedelta = dt.timedelta(hours=24)) -> None:
        self.layout = layout
        self.validity = validity
        self.tokens = TokenIssuer(layout.state / "tokens.json")
        self.pods: dict[str, PeerIdentity] = {}
        self.issued = 0
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *handlers: grpc.GenericRpcHandler) -> None:
        """Serves; more handlers are added to the mutual TLS server."""
        self.store = await Store.open(self.layout.store)
        graph = Graph()
        graph.commit(initial(self.store.rows()))
        self.pump = pump = Pump(graph)
        self.store.subscribe(Inputs(pump.submit))
        self.authority = Authority(
            self.layout.ca, self.store, pump, lambda: (), validity=self.validity, settle_after_start_s=0.2
        )
        self._tasks = [asyncio.create_task(pump.run()), asyncio.create_task(self.authority.run())]
        domain = self.authority.domain
        service = CertificateService(self.authority.ca, self.tokens, self._lookup, domain)
        serving = ServingCertificate(self.authority.ca, domain)
        self.layout.xds_socket.parent.mkdir(parents=True, exist_ok=True)
        for path, mutual in ((self.layout.run / "ca.sock", False), (self.layout.xds_socket, True)):
            server = grpc.aio.server(options=SERVER_OPTIONS)
            service.add_to(server)
            self.authority.service.add_to(server)
            if mutual:
                server.add_generic_rpc_handlers(handlers)
            credentials = serving.credentials(require_client_certificate=mutual)
            server.add_secure_port(unix_target(path), credentials)
            await server.start()
            self._servers.append(server)

    async def stop(self) -> None:
        """Goes away, as a control plane that was killed."""
        for server in self._servers:
            await server.stop(None)
        self._servers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    async def apply(self, document: Json) -> None:
        """Puts an object into the store."""
        await self.store.write([Put(document)], author="test")

    def pod(self, name: str, **fields: str) -> Json:
        """Makes a Pod known; what the agent must be told of it."""
        uid = f"uid-{name}"
        spiffe = SpiffeId(TRUST_DOMAIN, "default", name)
        self.pods[uid] = PeerIdentity(spiffe=spiffe, pod=f"{name}-1", uid=uid, workload=name, **fields)
        directory = self.layout.pod(uid)
        directory.mkdir(parents=True)
        token = directory / "token"
        token.write_text(self.tokens.issue(namespace="default", service_account=name, pod=f"{name}-1", uid=uid))
        return {
            "uid": uid,
            "namespace": "default",
            "name": f"{name}-1",
            "service_account": name,
            "token_path": str(token),
            "sds_socket": str(directory / "sds.sock"),
        }

    def _lookup(self, caller: Caller) -> PeerIdentity | None:
        self.issued += 1
        return self.pods.get(caller.uid)


class AgentProcess:
    """`lateen.daemon.agent` as it runs in a mesh."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        settings = Settings(name=layout.name, state_dir=str(layout.state), run_dir=str(layout.run))
        self._settings = write(settings)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it and waits until its control socket answers."""
        argv = (sys.executable, "-W", "error", "-m", "lateen.daemon.agent", str(self._settings), str(os.getpid()))
        with (self.layout.state / "agent.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*argv, stderr=log, stdout=log)
        await until(self._answers)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log()
        try:
            await call(self.layout.agent_socket, "list")
        except OSError:
            return False
        return True

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Kills it; its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def call(self, do: str, **fields: object) -> Any:
        """A request over its control socket."""
        return await call(self.layout.agent_socket, do, **fields)

    async def add(self, pod: Json) -> None:
        """Tells it of a Pod."""
        await self.call("add_pod", pod=pod)

    async def state(self, uid: str) -> Json:
        """What `list` says of a Pod."""
        return next(each for each in await self.call("list") if each["uid"] == uid)

    def log(self) -> str:
        """What it has written."""
        return (self.layout.state / "agent.log").read_text()


@asynccontextmanager
async def agent_process(layout: Layout) -> AsyncIterator[AgentProcess]:
    """An agent that is killed at the end at the latest."""
    agent = AgentProcess(layout)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.end()


async def until(condition: Any, deadline_s: float = 30) -> None:
    """Returns when an async condition holds; AssertionError when it does not in time."""
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


def tls_from_sds(side: str, **fields: object) -> Json:
    """A TLS transport socket whose certificate and trust come from the agent; `side` is Upstream or Downstream."""
    source: Json = {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        },
        "resource_api_version": "V3",
    }
    common: Json = {
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source},
    }
    config = {"@type": f"{TYPE}transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common, **fields}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def static(document: Json, listeners: list[Json], clusters: list[Json]) -> Json:
    """A bootstrap that gets nothing but secrets from others."""
    document = msgspec.json.decode(msgspec.json.encode(document))
    del document["dynamic_resources"]
    del document["cluster_manager"]["local_cluster_name"]
    kept = [each for each in document["static_resources"]["clusters"] if each["name"] != OWN_CLUSTER]
    document["static_resources"]["listeners"] += listeners
    document["static_resources"]["clusters"] = kept + clusters
    return document


async def certificate_on_the_wire(port: int, client: tuple[Path, Path], roots: str) -> x509.Certificate:
    """What a server on loopback shows in a new handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots)
    context.load_cert_chain(*client)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True)
    writer.close()
    assert shown is not None
    return x509.load_der_x509_certificate(shown)
