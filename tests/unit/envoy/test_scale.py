"""1,000 services and 20 proxies of different namespaces: what a change runs, and how long it takes.

Counts are asserted; seconds are printed (they depend on the machine) and bounded loosely.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import pytest

from lateen.api.codec import decode
from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.envoy.types import CDS, EDS, LDS, TYPES
from lateen.intent.scope import ProxyKind, Scope

SERVICES, NAMESPACES = 1000, 20

Json = dict[str, Any]


def _service(number: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number}", "namespace": f"ns{number % NAMESPACES}"},
        "spec": {
            "clusterIP": f"10.96.{number // 250}.{number % 250}",
            "selector": {"app": f"s{number}"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def _pod(number: int, *, ready: bool = True) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"s{number}-1",
            "namespace": f"ns{number % NAMESPACES}",
            "labels": {"app": f"s{number}", "security.istio.io/tlsMode": "istio"},
        },
        "spec": {"containers": [{"name": "app"}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.88.{number // 250}.{number % 250}",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def _slice(number: int, *, ready: bool = True) -> Json:
    target = {"kind": "Pod", "name": f"s{number}-1", "namespace": f"ns{number % NAMESPACES}"}
    endpoint = {
        "addresses": [f"10.88.{number // 250}.{number % 250}"],
        "conditions": {"ready": ready},
        "targetRef": target,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": f"s{number}-x",
            "namespace": f"ns{number % NAMESPACES}",
            "labels": {"kubernetes.io/service-name": f"s{number}"},
        },
        "endpoints": [endpoint],
        "ports": [{"name": "http", "port": 8080}],
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


class Mesh:
    """A graph of all services, watched as by one proxy per namespace."""

    def __init__(self) -> None:
        self.graph = Graph()
        documents = [make(each) for each in range(SERVICES) for make in (_service, _pod, _slice)]
        self.graph.commit(transaction([decode(each) for each in documents]))
        for namespace in range(NAMESPACES):
            scope = Scope(ProxyKind.SIDECAR, f"ns{namespace}", (("app", f"s{namespace}"),))
            for kind in TYPES:
                for name in self.graph.pull(kind.names, scope):
                    self.graph.watch(kind.resource, scope, name)

    def change(self, *documents: Json) -> tuple[Counter[str], list[Any], float]:
        """Commits documents: how often each query ran, the answers that changed, seconds."""
        started = time.perf_counter()
        self.graph.commit(transaction([decode(each) for each in documents]))
        with self.graph.tracing() as ran:
            changed = [each.value() for each in self.graph.drain()]
        return Counter(each.partition("(")[0] for each in ran), changed, time.perf_counter() - started


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    started = time.perf_counter()
    made = Mesh()
    seconds = time.perf_counter() - started
    _say(f"{SERVICES} services x {NAMESPACES} namespaces: {seconds:.1f} s, {len(made.graph)} queries")
    return made


def test_a_readiness_change_makes_one_assignment_again(mesh: Mesh) -> None:
    """Encoded once for all proxies: each of them gets the same bytes, and nothing but this assignment."""
    ran, changed, seconds = mesh.change(_slice(7, ready=False))
    _say(f"readiness change: {sum(ran.values())} queries in {seconds * 1000:.2f} ms")
    assert {each.name for each in changed} == {"outbound|80||s7.ns7.svc.cluster.local"}
    assert len(changed) == NAMESPACES
    assert len({id(each.body) for each in changed}) == 1
    assert ran == {"endpoints": 1, "shared_localities": 1, "assignment": 1, EDS.resource.__name__: NAMESPACES}
    assert seconds < 0.1
    mesh.change(_slice(7))


def test_the_status_of_a_pod_changes_nothing(mesh: Mesh) -> None:
    ran, changed, _ = mesh.change(_pod(7, ready=False))
    assert changed == []
    assert set(ran) <= {"pod_workload", "_pod_labels"}


def test_an_untouched_service_is_not_made_again(mesh: Mesh) -> None:
    """A new service on a port that is there: its own resources, the route table of the port, no listener."""
    ran, changed, _ = mesh.change(_service(SERVICES), _pod(SERVICES), _slice(SERVICES))
    assert ran[CDS.resource.__name__] == 0
    assert ran["outbound"] == 0
    assert ran["outbound_resource"] <= NAMESPACES
    assert {each.name for each in changed} == {"80"}


def test_mesh_settings_that_change_nothing_stop_at_the_projections(mesh: Mesh) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": "defaultConfig: {terminationDrainDuration: 7s}"},
    }
    ran, changed, seconds = mesh.change(config)
    _say(f"mesh setting without effect: {sum(ran.values())} queries in {seconds * 1000:.0f} ms")
    assert changed == []
    assert ran["mesh_config"] == 1
    assert ran["outbound"] == ran[LDS.resource.__name__] == 0
