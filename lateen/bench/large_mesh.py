"""What a sidecar's Envoy pays for a large mesh of which it calls little.

    report = measure(LargePlan(services=10_000))

Two sidecars, client and server, of a control plane on a folder. Measured: the client's Envoy after calls of ten
services in a mesh of ten, and in the large one; the first request to services that it has not loaded, over mutual TLS
to a server that has answered others, beside the next; and what names that nobody has leave behind in Envoy and control
plane.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from lateen.bench.children import Server, serving
from lateen.bench.envoys import Envoy, application
from lateen.bench.host import BenchError, Origin, free_port, memory, origin
from lateen.bench.loads import measured
from lateen.bench.local_sidecars import LocalSidecars
from lateen.bench.network import CLIENT, SERVER, Cable
from lateen.bench.results import Figures
from lateen.bench.xds_mesh import MeshShape, common, service
from lateen.bench.xds_sources import FolderSource

Json = dict[str, Any]

CALLED: Final = 10
NAMESPACE: Final = "bench"
_PORT: Final = 8080
_CALLER: Final = """
import http.client, json, sys, time
names = json.loads(sys.stdin.readline())
rows = []
for host, address in names:
    for _ in range(2):
        started = time.perf_counter()
        connection = http.client.HTTPConnection(address, 80, timeout=30)
        status = -1
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            pass
        rows.append((status, round((time.perf_counter() - started) * 1e6)))
        connection.close()
print(json.dumps(rows))
"""


class LargePlan(msgspec.Struct, frozen=True, kw_only=True):
    """`first` is how many services get a first request; `unknown` how many names that nobody has are called below a
    domain that nobody has a name in, `single` how many without a domain."""

    services: int = 10_000
    first: int = 200
    unknown: int = 2_000
    single: int = 300


class LargeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. Memory is resident, MiB: of the client's Envoy when it has called ten services, in a mesh of ten
    and in the large one; of it and of the control plane before the unknown names, after those of a domain, and after
    those without (past a limit the proxy then gets everything), with the answers they got (502; -1 for none). Times are
    of a request on a new connection."""

    plan: LargePlan
    small_mib: float
    large_mib: float
    first_p50_ms: float
    first_p99_ms: float
    next_p50_ms: float
    next_p99_ms: float
    before_unknown_mib: float
    after_unknown_mib: float
    after_single_mib: float
    unknown_answers: dict[str, int]
    server_before_mib: float
    server_after_unknown_mib: float
    server_after_single_mib: float
    origin: Origin

    @property
    def ratio(self) -> float:
        """The large mesh to the small one."""
        return self.large_mib / self.small_mib


def figures(report: LargeReport) -> Figures:
    """What is worth comparing."""
    names = (
        "small_mib",
        "large_mib",
        "first_p50_ms",
        "first_p99_ms",
        "next_p50_ms",
        "after_unknown_mib",
        "after_single_mib",
    )
    return {each: float(getattr(report, each)) for each in names}, report.origin


def measure(plan: LargePlan, say: Callable[[str], None] = lambda _: None) -> LargeReport:
    """Runs a plan. BenchError when something does not work."""
    say(f"a mesh of {CALLED} services")
    with _mesh(CALLED, 0) as mesh:
        mesh.called(range(CALLED))
        small = mesh.client_mib()
    say(f"a mesh of {plan.services} services")
    with _mesh(CALLED + plan.first, max(0, plan.services - CALLED - plan.first)) as mesh:
        mesh.called(range(CALLED))
        large = mesh.client_mib()
        say(f"first requests to {plan.first}")
        times = mesh.called(range(CALLED, CALLED + plan.first))
        firsts, nexts = measured(times[::2], 1), measured(times[1::2], 1)
        before, server_before = mesh.client_mib(), mesh.server.rss_mib()
        say(f"{plan.unknown} names that nobody has")
        answers = mesh.unknown([f"n{each}.unknown.test" for each in range(plan.unknown)])
        after, server_after = mesh.client_mib(), mesh.server.rss_mib()
        say(f"{plan.single} without a domain")
        answers += mesh.unknown([f"n{each}" for each in range(plan.single)])
        return LargeReport(
            plan=plan,
            small_mib=small,
            large_mib=large,
            first_p50_ms=firsts.p50_ms,
            first_p99_ms=firsts.p99_ms,
            next_p50_ms=nexts.p50_ms,
            next_p99_ms=nexts.p99_ms,
            before_unknown_mib=before,
            after_unknown_mib=after,
            after_single_mib=mesh.client_mib(),
            unknown_answers={str(status): count for status, count in answers.items()},
            server_before_mib=server_before,
            server_after_unknown_mib=server_after,
            server_after_single_mib=mesh.server.rss_mib(),
            origin=origin(),
        )


class LargeMesh:
    """Client and server in a mesh; `server` is the control plane."""

    def __init__(self, cable: Cable, client: Envoy, server: Server) -> None:
        self._cable, self._client, self.server = cable, client, server

    @staticmethod
    def address(number: int) -> str:
        """The address of a called service."""
        return f"172.21.{number >> 8}.{number & 255}"

    def called(self, numbers: range) -> list[tuple[int, int]]:
        """Calls each service twice; status and microseconds of each request. BenchError when one does not answer."""
        rows = self.call([(f"called{each}.{NAMESPACE}", self.address(each)) for each in numbers])
        if (answers := {status for status, _ in rows}) != {200}:
            raise BenchError(f"answers were {sorted(answers)}, not 200")
        return rows

    def unknown(self, names: list[str]) -> Counter[int]:
        """Calls names that nobody has, each twice; the answers, once the control plane has dealt with them."""
        rows = self.call([(each, self.address(0)) for each in names])
        self.server.settled_cpu_s()
        return Counter(status for status, _ in rows)

    def call(self, names: list[tuple[str, str]]) -> list[tuple[int, int]]:
        """Calls each of (Host, address) twice; the status -1 is for no answer."""
        command = [*self._cable.client, sys.executable, "-I", "-c", _CALLER]
        done = subprocess.run(command, input=json.dumps(names) + "\n", capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"calls failed: {done.stderr[-500:]}")
        return [(int(status), int(took)) for status, took in json.loads(done.stdout)]

    def client_mib(self) -> float:
        """What the client's Envoy has resident."""
        return memory(self._client.pid).rss_mib


@contextmanager
def _mesh(called: int, others: int) -> Iterator[LargeMesh]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp")))
        folder = home / "mesh"
        folder.mkdir()
        source = FolderSource(folder)
        source.put("bench", own_objects(called))
        if others:
            shape = MeshShape(others, 1)
            source.put("common", common(shape))
            for number in range(others):
                source.put(f"svc{number}", service(shape, number))
        address = f"127.0.0.1:{free_port()}"
        command = (
            f"{shlex.quote(sys.executable)} -m lateen.cli.main serve --config-dir {folder} --xds-address {address}"
        )
        server = stack.enter_context(serving(command, address, home / "server.log"))
        cable = stack.enter_context(Cable(redirected=True))
        app = Envoy.of(application([_PORT], "hello"), home, "app", cable.server)
        stack.callback(app.close)
        sidecars = LocalSidecars(home, address, NAMESPACE, stack)
        far = sidecars.start("server", NAMESPACE, SERVER, cable.server)
        near = sidecars.start("client", NAMESPACE, CLIENT, cable.client)
        for each in (app, far, near):
            each.wait_live()
        yield LargeMesh(cable, near, server)


def own_objects(called: int) -> list[Json]:
    """Client and server, and services that all lead to the server; only what the mesh has may be called."""
    meta = {"namespace": NAMESPACE}
    made: list[Json] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"},
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "istio-system"},
            "spec": {"mtls": {"mode": "STRICT"}},
        },
    ]
    for name, address in (("client", CLIENT), ("server", SERVER)):
        labels = {"app": name, "security.istio.io/tlsMode": "istio"}
        ready = [{"type": "Ready", "status": "True"}]
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, **meta, "labels": labels},
                "spec": {"containers": [{"name": "app"}]},
                "status": {"phase": "Running", "podIP": address, "conditions": ready},
            }
        )
    target = {"kind": "Pod", "name": "server", **meta}
    for number in range(called):
        name = f"called{number}"
        port = {"name": "http", "port": 80, "targetPort": _PORT}
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, **meta},
                "spec": {"clusterIP": LargeMesh.address(number), "selector": {"app": "server"}, "ports": [port]},
            }
        )
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-1", **meta, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [SERVER], "conditions": {"ready": True}, "targetRef": target}],
                "ports": [{"name": "http", "port": _PORT}],
            }
        )
    return made
