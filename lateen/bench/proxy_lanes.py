"""The ways from a client to a server that `lateen bench proxy` compares, each between two hosts of its own.

- `direct`: nothing between them.
- `hand-written`: two Envoys with what one would write by hand for this one service.
- `lateen`: two sidecars as lateen configures them, with certificates from its agent, without telemetry;
  `lateen+telemetry` the same with the access log of every request and the counters of requests by service.

The pair by hand speaks on the wire what lateen's sidecars speak (HTTP/1.1 or HTTP/2, as the client does), with the same
marks and redirection, one worker each.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from lateen.bench.envoys import Envoy, Secrets, application, inbound, outbound
from lateen.bench.host import BenchError
from lateen.bench.loads import MESSAGE, Measured, send
from lateen.bench.loads import Protocol as Wire
from lateen.bench.network import CLIENT, SERVER, Cable
from lateen.bench.plane import Plane
from lateen.lib.keypair import new_request
from lateen.lib.spiffe import SpiffeId
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity

Json = dict[str, Any]

PORTS: Final[dict[Wire, int]] = {"http1": 8080, "http2": 8081, "grpc": 8082, "tcp": 8083}
VIP: Final = "10.96.0.10"
BODY: Final = "x" * 1024
NAMESPACE: Final = "bench"
_NAMES: Final = {"http1": "http", "http2": "http2", "grpc": "grpc", "tcp": "tcp"}
_READY_S: Final = 30.0


class Lane(Protocol):
    """One way. `proxies` are the process ids whose CPU counts, none when there is no proxy."""

    name: str
    proxies: tuple[int, ...]

    def send(self, wire: Wire, seconds: float, rate: int) -> Measured:
        """Sends from its client to its server."""
        ...


class _Ends:
    """Two hosts and the servers of one of them."""

    def __init__(self, name: str, address: str, directory: Path, stack: ExitStack, *, redirected: bool) -> None:
        self.name = name
        self.proxies: tuple[int, ...] = ()
        self.directory = directory / name
        self.directory.mkdir()
        self._address = address
        self.cable = stack.enter_context(Cable(redirected=redirected))
        ports = [port for wire, port in PORTS.items() if wire != "grpc"]
        server = Envoy.of(application(ports, BODY), self.directory, "app", self.cable.server)
        stack.callback(server.close)
        server.wait_live()
        stack.enter_context(_grpc_server(self.cable.server, self.directory))

    def send(self, wire: Wire, seconds: float, rate: int) -> Measured:
        path = "answer.grpc" if wire == "grpc" else ""
        return send(self.cable.client, wire, f"http://{self._address}:{PORTS[wire]}/{path}", seconds, rate)


@contextmanager
def _grpc_server(host: list[str], directory: Path) -> Iterator[None]:
    """nghttpd, answering each call with one message and the trailer `grpc-status: 0`."""
    root = directory / "root"
    root.mkdir()
    (root / "answer.grpc").write_bytes(MESSAGE)
    types = directory / "mime.types"
    types.write_text("application/grpc grpc\n")
    command = [*host, "nghttpd", "--no-tls", f"--htdocs={root}", f"--mime-types-file={types}"]
    command += ["--trailer=grpc-status: 0", "--no-content-length", str(PORTS["grpc"])]
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise BenchError("the program nghttpd is missing", remedy="apt-get install -y nghttp2-server") from None
    try:
        yield
    finally:
        process.kill()
        process.wait()


def direct(directory: Path, stack: ExitStack) -> Lane:
    """Client and server alone."""
    return _Ends("direct", SERVER, directory, stack, redirected=False)


class _ByHand(_Ends):
    """Two Envoys for one protocol at a time."""

    def __init__(self, directory: Path, stack: ExitStack, secrets: Secrets | None) -> None:
        super().__init__("hand-written", SERVER, directory, stack, redirected=True)
        self._secrets = secrets
        self._wire: Wire | None = None
        self._pair = stack.enter_context(ExitStack())

    def send(self, wire: Wire, seconds: float, rate: int) -> Measured:
        if wire != self._wire:
            self._start(wire)
        return super().send(wire, seconds, rate)

    def _start(self, wire: Wire) -> None:
        self._pair.close()
        http2, tcp = wire in ("http2", "grpc"), wire == "tcp"
        pair: list[int] = []
        for name, document, host in (
            ("in", inbound(PORTS[wire], http2=http2, tcp=tcp, secrets=self._secrets), self.cable.server),
            ("out", outbound(SERVER, PORTS[wire], http2=http2, tcp=tcp, secrets=self._secrets), self.cable.client),
        ):
            envoy = Envoy.of(document, self.directory, name, host)
            self._pair.callback(envoy.close)
            envoy.wait_live()
            pair.append(envoy.pid)
        self.proxies, self._wire = tuple(pair), wire


def by_hand(directory: Path, stack: ExitStack, *, mtls: bool) -> Lane:
    """A minimal pair of Envoys, its certificates from files."""
    return _ByHand(directory, stack, _secrets(directory) if mtls else None)


def _secrets(directory: Path) -> Secrets:
    key, csr = new_request()
    authority = open_ca(directory / "ca")
    chain = authority.issue(csr, PeerIdentity(spiffe=SpiffeId("cluster.local", NAMESPACE, "default")))
    files = Secrets(directory / "chain.pem", directory / "key.pem", directory / "roots.pem")
    for path, text in ((files.chain, "".join(chain)), (files.key, key), (files.roots, authority.trust_pem)):
        path.write_text(text)
    return files


class Sidecars(_Ends):
    """Two sidecars of a lateen of their own."""

    def __init__(self, directory: Path, stack: ExitStack, *, mtls: bool, telemetry: bool) -> None:
        super().__init__("lateen+telemetry" if telemetry else "lateen", VIP, directory, stack, redirected=True)
        self.plane = stack.enter_context(Plane(self.directory))
        self.plane.apply(objects(mtls=mtls, log=telemetry))
        self.server = self.plane.sidecar(NAMESPACE, "server", SERVER, self.cable.server, counts=telemetry)
        self.client = self.plane.sidecar(NAMESPACE, "client", CLIENT, self.cable.client, counts=telemetry)
        self.proxies = (self.client.pid, self.server.pid)
        self._first()

    def count(self, pattern: str, *, server: bool = False) -> int:
        """The sum of the counters of one of the sidecars whose whole name a regular expression fits."""
        lines = (self.server if server else self.client).ask(f"/stats?filter=^{pattern}$").splitlines()
        return sum(int(each.rpartition(": ")[2]) for each in lines)

    def _first(self) -> None:
        """Returns when every port answers through both."""
        end = time.monotonic() + _READY_S
        for wire in PORTS:
            while True:
                with contextlib.suppress(BenchError):
                    got = self.send(wire, 0.2, 50)
                    if got.requests and not got.failed:
                        break
                if time.monotonic() > end:
                    raise BenchError(f"{wire} does not get through: {self.client.ask('/clusters')[-3000:]}")


def objects(*, mtls: bool, log: bool) -> list[Json]:
    """One service with a port of each protocol, its Pod, and the client's."""
    meta = {"namespace": NAMESPACE}
    ports = [{"name": _NAMES[wire], "port": port} for wire, port in PORTS.items()]
    made: list[Json] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", **meta}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", **meta},
            "spec": {"clusterIP": VIP, "selector": {"app": "server"}, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "server-1", **meta, "labels": {"kubernetes.io/service-name": "server"}},
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [SERVER],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": "server", **meta},
                }
            ],
            "ports": ports,
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "istio-system"},
            "spec": {"mtls": {"mode": "STRICT" if mtls else "DISABLE"}},
        },
        *[pod(name, address) for name, address in (("server", SERVER), ("client", CLIENT))],
    ]
    if log:
        config = {"mesh": "accessLogFile: /dev/stdout"}
        metadata = {"name": "istio", "namespace": "istio-system"}
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config})
    return made


def pod(name: str, address: str) -> Json:
    """A Pod with a sidecar."""
    labels = {"app": name, "security.istio.io/tlsMode": "istio"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": "app", "command": ["true"]}]},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
