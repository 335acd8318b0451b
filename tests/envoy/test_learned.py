"""A proxy of a workload that was seen to call something has it before the first call, after any restart."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lateen.bench.children import serving
from lateen.bench.envoys import Envoy, application
from lateen.bench.host import free_port
from lateen.bench.large_mesh import NAMESPACE, LargeMesh, own_objects
from lateen.bench.local_sidecars import LocalSidecars
from lateen.bench.network import CLIENT, SERVER, Cable
from lateen.bench.xds_sources import FolderSource
from tests.envoy.harness import short_directory

DEADLINE_S = 20.0
DATABASE = "172.21.9.9:3306"
DATABASE_OBJECTS = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "database", "namespace": NAMESPACE},
        "spec": {"clusterIP": "172.21.9.9", "ports": [{"name": "tcp", "port": 3306, "targetPort": 8080}]},
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "database-1",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "database"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [SERVER],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": "server", "namespace": NAMESPACE},
            }
        ],
        "ports": [{"name": "tcp", "port": 8080}],
    },
]


class Restarts:
    """A mesh whose control plane and sidecars are started anew; only files stay."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home, self._stack = home, stack
        (home / "mesh").mkdir()
        FolderSource(home / "mesh").put("bench", [*own_objects(4), *DATABASE_OBJECTS])
        self.cable = stack.enter_context(Cable(redirected=True))
        app = Envoy.of(application([8080], "hello"), home, "app", self.cable.server)
        stack.callback(app.close)
        app.wait_live()
        self._turn = stack.enter_context(ExitStack())

    def start(self) -> Envoy:
        """Everything anew, another replica of the client's workload; its Envoy."""
        self._turn.close()
        address = f"127.0.0.1:{free_port()}"
        serve = f"{shlex.quote(sys.executable)} -m lateen.cli.main serve --config-dir {self.home}/mesh"
        command = f"{serve} --xds-address {address} --learned-file {self.home}/learned.json"
        self._turn.enter_context(serving(command, address, self.home / "server.log"))
        run = self._turn.enter_context(_short())
        sidecars = LocalSidecars(run, address, NAMESPACE, self._turn)
        far = sidecars.start("server", NAMESPACE, SERVER, self.cable.server)
        near = sidecars.start("client", NAMESPACE, CLIENT, self.cable.client)
        for each in (far, near):
            each.wait_live()
        return near

    def call(self, number: int) -> str:
        """The status of a call of a service."""
        return self.get(f"http://{LargeMesh.address(number)}/", f"called{number}.bench")

    def get(self, url: str, host: str) -> str:
        """The status of a request."""
        curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10", "-H", f"host: {host}", url]
        return subprocess.run([*self.cable.client, *curl], capture_output=True, text=True, check=False).stdout


@contextmanager
def _short() -> Iterator[Path]:
    made = short_directory()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def restarts() -> Iterator[Restarts]:
    with ExitStack() as stack:
        yield Restarts(stack.enter_context(_short()), stack)


def clusters(envoy: Envoy) -> set[str]:
    names = {each.partition("::")[0] for each in envoy.ask("/clusters").splitlines()}
    hosts = {each.split("|")[3].partition(".")[0] for each in names if each.startswith("outbound|")}
    return hosts | (names & {DATABASE})


def answers(envoy: Envoy) -> int:
    """How many answers to look-ups of virtual hosts it has had."""
    return int(envoy.ask("/stats?filter=vhds.80.update_success$").rpartition(": ")[2])


def test_after_a_restart_of_everything_the_first_call_needs_no_look_up(restarts: Restarts) -> None:
    first = restarts.start()
    assert clusters(first) == set()
    assert [restarts.call(each) for each in (1, 2)] == ["200", "200"]
    assert restarts.get(f"http://{DATABASE}/", "x") == "200"
    second = restarts.start()
    deadline = time.monotonic() + DEADLINE_S
    while clusters(second) != {"called1", "called2", DATABASE}:
        assert time.monotonic() < deadline, clusters(second)
        time.sleep(0.02)
    before = answers(second)
    assert [restarts.call(each) for each in (1, 2)] == ["200", "200"]
    assert restarts.get(f"http://{DATABASE}/", "x") == "200"
    assert answers(second) == before
    assert second.ask("/stats?filter=on_demand_cluster_attempt").endswith(": 0\n")
    assert restarts.call(3) == "200"
    assert answers(second) == before + 1
    assert clusters(second) == {"called1", "called2", "called3", DATABASE}
