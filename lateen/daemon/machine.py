"""The agent of a machine outside of the Pods: `lateen agent --bundle DIR`.

It needs a bundle and this package, nothing of the platform and no control plane on the machine: names, redirection,
Envoy, its certificate and the machine's place in the mesh, put together. The certificate and what tells this machine
from others are kept in the state directory, so that a machine that comes back needs no token.

Order at the start: names, certificate, Envoy; once Envoy has its configuration, applications' traffic is redirected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from lateen.lib.lean import structlog

# isort: split
from lateen import __version__
from lateen.daemon.process import return_memory
from lateen.lib.errors import LateenError
from lateen.lib.machines import Hello, Joined
from lateen.lib.signing import Signer, SigningError
from lateen.node import bootstrap as envoy
from lateen.node import proxy, redirect
from lateen.node.bundle import Bundle
from lateen.node.diagnosis import diagnose
from lateen.node.dns import NameServer
from lateen.node.envoy import envoy_binary
from lateen.node.membership import Membership
from lateen.node.names import Names
from lateen.node.request_counts import report
from lateen.node.resolvers import Resolvers
from lateen.node.trust import TrustFollower
from lateen.node.workload import PodSpec, Workload
from lateen.security.client import CertificateClient, ControlPlane

STATE = Path("/var/lib/lateen")
RUN = Path("/run/lateen")
DRAIN_S = 5
"""How long listeners that were replaced keep their connections when nobody says otherwise."""
_PROXY_DIRECTORY = "proxy"

_log = structlog.stdlib.get_logger("lateen.machine")


class MachineError(LateenError):
    """This machine cannot join; the message says why."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent of a machine is started with. `address` empty: the one from which the control plane is called."""

    bundle: Bundle
    address: str = ""
    state: Path = STATE
    run: Path = RUN


async def serve(machine: Machine) -> None:
    """Keeps the machine in the mesh until cancelled. LateenError when that cannot begin."""
    bundle = machine.bundle
    binary = envoy_binary()
    proxy.check(binary)
    proxy.own_group()
    address = machine.address or own_address(bundle.xds)
    _directories(machine)
    names, resolvers = Names(bundle.domain, home=bundle.namespace), Resolvers()
    applications = NameServer(names, resolvers, private=False)
    proxies = NameServer(names, resolvers, external=False, private=False)
    await _listen(applications, redirect.DNS_PORT)
    await _listen(proxies, redirect.PROXY_DNS_PORT)
    signer = CertificateClient(ControlPlane(bundle.login, bundle.xds, bundle.roots), address=address)
    directory = machine.run / _PROXY_DIRECTORY
    workload = Workload(
        PodSpec(
            uid=bundle.group,
            namespace=bundle.namespace,
            name=bundle.group,
            service_account=bundle.service_account,
            token_path=str(bundle.token),
            sds_socket=str(directory / "sds.sock"),
            admin_socket=str(directory / "admin.sock"),
        ),
        _Explained(signer, bundle),
        kept=machine.state / "identity.json",
    )
    await workload.start()
    os.chown(directory / "sds.sock", proxy.PROXY_ID, proxy.PROXY_ID)
    follower = TrustFollower(
        signer,
        machine.state / "trust.json",
        lambda: (workload,),
        identity=lambda: workload.identity,
        roots=bundle.roots,
    )
    follower.told(workload)
    joined = _Once(lambda entry: _envoy(machine, entry, address, binary))
    hello = Hello(address, _machine_id(machine.state), __version__)
    membership = Membership(bundle.xds, hello, lambda: workload.identity, names, joined.take)
    _log.info("agent started", group=f"{bundle.namespace}/{bundle.group}", address=address, control_plane=bundle.xds)
    try:
        async with asyncio.TaskGroup() as parts:
            parts.create_task(workload.run(), name="certificate")
            parts.create_task(return_memory(), name="memory")
            parts.create_task(follower.run(), name="trust of the mesh")
            parts.create_task(report(follower, lambda: (workload,)), name="counts of requests")
            parts.create_task(membership.run(), name="membership")
            parts.create_task(joined.run(), name="Envoy")
    finally:
        await redirect.stop()
        await workload.stop()


class _Explained:
    """A Signer whose failures say what is wrong with the way to the control plane, where that can be seen."""

    def __init__(self, signer: Signer, bundle: Bundle) -> None:
        self._signer = signer
        self._bundle = bundle

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        try:
            return await self._signer.sign(csr, token=token)
        except SigningError as error:
            raise await self._explained(error, self._bundle.login) from None

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        try:
            return await self._signer.renew(csr, key=key, chain=chain)
        except SigningError as error:
            raise await self._explained(error, self._bundle.xds) from None

    async def _explained(self, error: SigningError, target: str) -> SigningError:
        if not str(error).startswith("UNAVAILABLE"):
            return error
        why = await diagnose(target, str(error))
        return SigningError(why) if why else error


class _Once:
    """Starts Envoy with the first entry this machine is given, and anew when it is given another."""

    def __init__(self, start: Callable[[Joined], Awaitable[None]]) -> None:
        self._start = start
        self._entry: Joined | None = None
        self._changed = asyncio.Event()

    def take(self, joined: Joined) -> None:
        """The entry this machine is now."""
        if self._entry is None or self._entry.entry != joined.entry:
            self._entry = joined
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        running: asyncio.Task[None] | None = None
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if running is not None:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)
                assert self._entry is not None
                running = asyncio.ensure_future(self._start(self._entry))
        finally:
            if running is not None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def _envoy(machine: Machine, joined: Joined, address: str, binary: Path) -> None:
    """Runs Envoy as this entry, and redirects traffic once it is ready."""
    bundle, directory, settings = machine.bundle, machine.run / _PROXY_DIRECTORY, joined.proxy
    host, _, port = bundle.xds.rpartition(":")
    spec = envoy.BootstrapSpec(
        pod=joined.entry,
        namespace=joined.namespace,
        ip=address,
        xds=envoy.XdsAddress(host=host, port=int(port)),
        sds_path=str(directory / "sds.sock"),
        admin_path=str(directory / "admin.sock"),
        service_account=bundle.service_account,
        workload=bundle.group,
        node_name=socket.gethostname(),
        cluster_id=bundle.cluster,
        network=bundle.network,
        trust_domain=bundle.trust_domain,
        domain=bundle.domain,
        mesh_gateway=bundle.gateway,
        mark=None,
        status_port=None,
        metrics_port=None,
        resolver=f"127.0.0.1:{redirect.PROXY_DNS_PORT}",
        concurrency=(os.cpu_count() or 1) if settings.concurrency == 0 else settings.concurrency or 1,
        drain_s=DRAIN_S if settings.drain_s is None else round(settings.drain_s),
        metadata=settings.metadata,
    )
    config = directory / "envoy.json"
    config.unlink(missing_ok=True)
    envoy.write_bootstrap(envoy.bootstrap(spec), config)
    os.chown(config, proxy.PROXY_ID, proxy.PROXY_ID)
    ready = asyncio.Event()
    argv = envoy.argv(spec, binary, config)
    process = proxy.EnvoyProcess(argv, Path(spec.admin_path), ready.set, settings.environment)
    async with asyncio.TaskGroup() as parts:
        parts.create_task(process.run(), name="Envoy process")
        await ready.wait()
        await redirect.start()
        _log.info("traffic redirected")


def own_address(control_plane: str) -> str:
    """The address from which this machine calls the control plane. MachineError when there is no way there."""
    host, _, port = control_plane.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))  # sends nothing: asks the routing table
            return str(probe.getsockname()[0])
    except OSError as error:
        raise MachineError(
            f"the control plane at {control_plane} cannot be reached from here: {error.strerror}",
            remedy="check the network, and LATEEN_XDS_ADDRESS in the bundle",
        ) from None


async def _listen(server: NameServer, port: int) -> None:
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (tcp, udp):
            each.bind(("127.0.0.1", port))
        tcp.listen(128)
    except OSError as error:
        tcp.close()
        udp.close()
        message = f"cannot serve names on 127.0.0.1:{port}: {error.strerror}"
        raise MachineError(message, remedy="stop what listens there, maybe another agent") from None
    await server.listen(udp.detach(), tcp.detach())


def _directories(machine: Machine) -> None:
    for directory, mode in ((machine.state, 0o700), (machine.run, 0o755)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    proxy_directory = machine.run / _PROXY_DIRECTORY
    proxy_directory.mkdir(exist_ok=True)
    proxy_directory.chmod(0o700)
    os.chown(proxy_directory, proxy.PROXY_ID, proxy.PROXY_ID)
    for file in proxy_directory.glob("*.sock"):
        file.unlink()


def _machine_id(state: Path) -> str:
    """A random text that this machine keeps."""
    file = state / "machine-id"
    with contextlib.suppress(FileNotFoundError):
        return file.read_text().strip()
    fresh = secrets.token_hex(16)
    file.touch(mode=0o600)
    file.write_text(fresh)
    return fresh
