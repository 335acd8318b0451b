"""The control plane process: store, API, graph, xDS, CA and pages put together.

    python -m lateen.daemon.controlplane SETTINGS-FILE SUPERVISOR-PID

Everything is loaded before anybody is served, so a proxy that connects first gets the whole picture. The sockets:
`api.sock` (HTTP) and 127.0.0.1:6443 (the same with TLS and credentials), `xds.sock` and 127.0.0.1:15012 (gRPC, client
certificate required: xDS and renewals), `ca.sock` (gRPC, no client certificate: first certificates by token),
127.0.0.1:20001 (pages), 127.0.0.1:15014 (metrics, debug), and when asked: 15012 and 15013 (as `ca.sock`) at an address
for virtual machines; xDS without authentication for tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import grpc.aio
import structlog

from lateen.api.check import check
from lateen.apiserver.rbac import Roles
from lateen.apiserver.resources import Resources
from lateen.apiserver.rows import Row
from lateen.apiserver.serving import serve, tcp_listener
from lateen.apiserver.store import Store
from lateen.console.access import guarded, own_or_token
from lateen.console.data import findings_of, mesh_routes
from lateen.console.debug import debug_routes
from lateen.console.login import Login
from lateen.console.pages import Mesh, debug_pages, page, pages
from lateen.daemon.addresses import AddressWriter
from lateen.daemon.analysis import Analysis
from lateen.daemon.authority import Authority
from lateen.daemon.bundles import bundle_route
from lateen.daemon.ca_routes import ca_routes
from lateen.daemon.demand_findings import DemandFindings
from lateen.daemon.departures import Departures
from lateen.daemon.describing import describe_route
from lateen.daemon.error_rates import ErrorRates
from lateen.daemon.identities import Identities
from lateen.daemon.inputs import Inputs, initial
from lateen.daemon.jwt_keys import key_fetcher
from lateen.daemon.kubernetes_api import KubernetesApi
from lateen.daemon.learning import LearnedFile, memories
from lateen.daemon.machines import Machines
from lateen.daemon.metrics import Metrics
from lateen.daemon.modules import module_fetcher
from lateen.daemon.process import main, open_files, return_memory
from lateen.daemon.pushing import StoredRevisions, push_route
from lateen.daemon.quarantine import REFUSED, StoreQuarantine
from lateen.daemon.settings import Settings
from lateen.daemon.status_writer import StatusWriter, configures
from lateen.daemon.token_requests import token_route
from lateen.engine import Graph
from lateen.envoy.types import TYPES
from lateen.intent.scope import scope_of
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref
from lateen.lib.machines import ProxySettings
from lateen.model.mesh import domain as cluster_domain
from lateen.model.proxy_config import proxy_settings
from lateen.security.account_tokens import AccountTokens
from lateen.security.client import unix_target
from lateen.security.csr import CertificateService
from lateen.security.oidc import Oidc, Provider
from lateen.security.peer import AuthContext, PeerIdentity, peer_of
from lateen.security.serving import (
    SERVER_OPTIONS,
    SHORT_CONNECTIONS,
    SMALL_MESSAGES,
    ServingCertificate,
    connection_limit,
    renewed_connections,
)
from lateen.security.tokens import TokenIssuer
from lateen.xds.auth import Authenticated, Believing
from lateen.xds.learned import Learned
from lateen.xds.server import OPTIONS, XdsServer

_STOP_S = 1.0
_ANSWER_S = 1.0
_VERDICT_S = 1.5
_POLL_S = 0.005

_log = structlog.stdlib.get_logger("lateen.controlplane")


class Settled:
    """Tells when everything that was submitted has been worked off."""

    def __init__(self, xds: XdsServer) -> None:
        self._xds = xds
        self._waiters: list[asyncio.Future[None]] = []
        xds.pump.on_drained(self._drained)

    def _drained(self) -> Iterator[None]:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            if not each.done():
                each.set_result(None)
        yield

    async def wait(self) -> None:
        """Returns when all that was submitted before is in force."""
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        self._xds.pump.wake()
        await future


class ControlPlane:
    """Everything in one process; `run` serves until cancelled."""

    def __init__(self, settings: Settings, store: Store) -> None:
        layout = settings.layout()
        self._settings = settings
        self._store = store
        self._ready = False
        graph = Graph()
        graph.commit(initial(store.rows()))
        tokens = TokenIssuer(layout.state / "tokens.json")
        self._identities = Identities(store, tokens, lambda: self._authority.domain())
        rule = Authenticated(self._peer_of, self._identities.peer_of_token, self._identities.account_of)
        learned = Learned(time.time)
        self._learned = LearnedFile(learned, layout.state / "learned.json")
        self._learned.load()
        memory_of = memories(learned, graph)
        quarantine = StoreQuarantine(store)
        self._xds = XdsServer(
            graph, TYPES, scope_of, rule, quarantine, tracked=configures, divide=quarantine, memory_of=memory_of
        )
        self._keys = key_fetcher(self._xds.pump, layout.state / "jwks.json")
        self._errors = ErrorRates(store, lambda: graph.pull(cluster_domain))
        self._authority = Authority(
            layout.ca,
            store,
            self._xds.pump,
            self._connected,
            self._errors.take,
            validity=dt.timedelta(seconds=settings.certificate_validity_s),
        )
        self._modules = module_fetcher(self._xds.pump, layout.state / "wasm")
        self._settled = Settled(self._xds)
        self._addresses = AddressWriter(store, self._xds.pump)
        self._analysis = Analysis(store, graph, self._xds.pump)
        self._status = StatusWriter(store, self._xds)
        store.subscribe(StoredRevisions(self._xds.journal))
        store.subscribe(Inputs(self._xds.pump.submit))
        store.subscribe(Departures(self._identities.account_of, self._xds.expel))
        domain = self._authority.domain
        self._machines = Machines(store, self._peer_of, self._machine_settings)
        self._certificates = CertificateService(self._authority.ca, tokens, self._identities.certificate_of, domain)
        self._serving = ServingCertificate(self._authority.ca, domain)
        self._demand = DemandFindings(store, self._xds)
        self._metrics = Metrics(store, self._xds, self._status, self._demand)
        roles, resources = Roles(store), Resources(store.rows())
        store.subscribe(resources)
        proxies, metrics = self._xds.proxies, self._metrics.text
        mesh = Mesh(settings.name, store, proxies, lambda: self._ready, metrics, layout, roles, resources)
        self._oidc = oidc(settings)
        debug = debug_routes(mesh, graph)
        self._kubernetes = KubernetesApi(
            settings,
            store,
            AccountTokens(layout.api / "tokens.json"),
            self._oidc,
            resources=resources,
            check=check,
            analyse=self._analyse,
            ready=lambda: self._ready,
            pod_token=token_route(store, tokens, self._identities).endpoint,
            routes=[
                *ca_routes(self._authority),
                bundle_route(
                    settings, store, tokens, lambda: self._authority.ca().trust_pem, domain, graph.pull(cluster_domain)
                ),
                *mesh_routes(mesh),
                *debug,
                describe_route(store, graph, self._xds.proxies),
                push_route(self._xds.journal),
            ],
        )
        known = self._kubernetes.authenticate
        asks = settings.console_login or self._oidc is not None
        self._pages = pages(mesh, Login(settings.name, known, self._oidc, page) if asks else None)
        self._debug = debug_pages(mesh, guarded(debug, own_or_token(known), roles))

    async def run(self) -> None:
        """Serves until cancelled."""
        settings, layout = self._settings, self._settings.layout()
        async with asyncio.TaskGroup() as parts, contextlib.AsyncExitStack() as stack:
            parts.create_task(self._xds.run(), name="xds")
            parts.create_task(self._metrics.run(), name="metrics")
            parts.create_task(return_memory(), name="memory")
            parts.create_task(self._learned.run(), name="what workloads call")
            parts.create_task(self._keys.run(), name="keys of token issuers")
            parts.create_task(self._modules.run(), name="WebAssembly modules")
            parts.create_task(self._addresses.run(), name="addresses of ServiceEntries")
            parts.create_task(self._analysis.run(), name="analysis")
            parts.create_task(self._status.run(), name="status writer")
            parts.create_task(self._errors.run(), name="error rates")
            parts.create_task(self._demand.run(), name="findings on demand")
            parts.create_task(self._machines.run(), name="machines")
            parts.create_task(self._authority.run(), name="CA")
            if self._oidc is not None:
                parts.create_task(self._oidc.run(), name="identity provider")
            await self._settled.wait()
            gc.collect()
            gc.freeze()  # what is loaded stays: a full collection over it would stop the loop for its length
            gc.set_threshold(20_000, 50, 1_000)  # the pump freezes what is added; decision 0001
            first, renewal = unix_target(layout.run / "ca.sock"), unix_target(layout.xds_socket)
            login, joining = _at(settings.vm_host, settings.vm_login_port), _at(settings.vm_host, settings.xds_port)
            await stack.enter_async_context(self._grpc([first], mutual=False, trust=True))
            if login:
                await stack.enter_async_context(self._grpc(login, mutual=False, trust=False))
            mutual = [renewal, *_at("127.0.0.1", settings.xds_port), *joining]
            await stack.enter_async_context(self._grpc(mutual, mutual=True, trust=True))
            if settings.plaintext_xds_port:
                await stack.enter_async_context(plaintext_xds(self._xds, f"127.0.0.1:{settings.plaintext_xds_port}"))
            for port, application in ((settings.console_port, self._pages), (settings.debug_port, self._debug)):
                if port:
                    listener = tcp_listener("127.0.0.1", port)
                    parts.create_task(serve(application, listener), name=f"HTTP at {port}")
            parts.create_task(self._kubernetes.run(), name="api")
            self._ready = True
            _log.info("ready", objects=len(self._store.rows()), revision=self._store.revision)
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def _grpc(self, addresses: Sequence[str], *, mutual: bool, trust: bool) -> AsyncIterator[None]:
        strangers = () if trust else (*SHORT_CONNECTIONS, connection_limit(open_files(), 8))
        lives = renewed_connections(self._settings.certificate_validity_s)
        options = (*OPTIONS, *lives, connection_limit(open_files())) if mutual else (*SMALL_MESSAGES, *strangers)
        server = grpc.aio.server(options=(*SERVER_OPTIONS, *options))
        self._certificates.add_to(server)
        if trust:
            self._authority.service.add_to(server)
        if mutual:
            server.add_generic_rpc_handlers((self._xds.handler(), self._machines.handler()))
        for address in addresses:
            _add_port(server, address, self._serving.credentials(require_client_certificate=mutual))
        async with _running(server):
            yield

    def _machine_settings(self, namespace: str, labels: Mapping[str, str]) -> ProxySettings:
        """What ProxyConfigs say of the proxy of a machine whose entry has those labels."""
        found = self._xds.pump.graph.pull(proxy_settings, namespace, tuple(sorted(labels.items())), "")
        return ProxySettings(found.concurrency, dict(found.environment), found.metadata, found.drain_s)

    def _peer_of(self, context: AuthContext) -> PeerIdentity | None:
        ca = self._authority.ca()
        return peer_of(context, trust_domain=self._authority.domain, revoked=ca.revoked)

    def _connected(self) -> list[str]:
        return [f"{each.proxy.namespace}/{each.proxy.name}" for each in self._xds.proxies()]

    async def _analyse(self, refs: Sequence[Ref]) -> Sequence[Finding]:
        """What the checks say of the objects, and proxies once all have answered or a second has passed."""
        await self._settled.wait()
        await _until(self._synced, _ANSWER_S)
        if any(each.errors for proxy in self._xds.proxies() for each in proxy.types):
            await _until(lambda: bool(self._held(refs)), _VERDICT_S)
        refused = [each for row in self._held(refs) for each in findings_of(row) if each.code == REFUSED]
        return [*refused, *self._analysis.of(refs)]

    def _synced(self) -> bool:
        return all(each.synced for proxy in self._xds.proxies() for each in proxy.types)

    def _held(self, refs: Sequence[Ref]) -> list[Row]:
        return [row for row in map(self._store.get, refs) if row is not None and row.held is not None]


def oidc(settings: Settings) -> Oidc | None:
    """The mesh's identity provider."""
    if not settings.oidc_issuer:
        return None
    provider = Provider(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        secret_file=settings.oidc_client_secret_file,
        ca_file=settings.oidc_ca_file,
        username_claim=settings.oidc_username_claim,
        username_prefix=settings.oidc_username_prefix,
        groups_claim=settings.oidc_groups_claim,
        groups_prefix=settings.oidc_groups_prefix,
    )
    return Oidc(provider, settings.layout().state / "oidc.json")


async def _until(done: Callable[[], bool], at_most_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            while not done():  # noqa: ASYNC110 (streams change with every answer; few ask, and not for long)
                await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def plaintext_xds(xds: XdsServer, address: str) -> AsyncIterator[None]:
    """xDS for tools: no authentication, the node's word counts. `address` is HOST:PORT."""
    server = grpc.aio.server(options=(*SERVER_OPTIONS, *OPTIONS, connection_limit(open_files(), 8)))
    server.add_generic_rpc_handlers((xds.handler(Believing()),))
    _add_port(server, address, None)
    async with _running(server):
        yield


@contextlib.asynccontextmanager
async def _running(server: grpc.aio.Server) -> AsyncIterator[None]:
    await server.start()
    try:
        yield
    finally:
        await server.stop(_STOP_S)


def _add_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError:
        raise LateenError(f"cannot listen on {address}: is it taken?", remedy="choose another port") from None


def _at(host: str, port: int) -> list[str]:
    return [f"{host}:{port}"] if host and port else []


async def run(settings: Settings) -> None:
    """Serves until cancelled."""
    layout = settings.layout()
    layout.xds_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await Store.open(layout.store)
    try:
        await ControlPlane(settings, store).run()
    finally:
        await store.close()


if __name__ == "__main__":
    main(run)
