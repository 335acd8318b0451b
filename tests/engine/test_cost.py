"""What a change costs does not depend on the size of the mesh: queries run, resources made, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lateen.api.codec import decode
from lateen.api.objects import transaction
from lateen.bench import xds_mesh as mesh
from lateen.bench.xds_mesh import MeshShape, ServiceState
from lateen.engine import Graph
from lateen.envoy.resource import Resource, ResourceType
from lateen.envoy.types import CDS, EDS, LDS, RDS, TYPES, VHDS
from lateen.intent.scope import Capabilities, Proxy, ProxyKind, Scope, scope_of

SIDECARS = 40


class Watched:
    """A mesh, and everything that its sidecars get, kept up to date."""

    def __init__(self, services: int, *, on_demand: bool) -> None:
        self.shape = MeshShape(services, SIDECARS)
        self.graph = Graph()
        self._put(mesh.common(self.shape))
        for number in range(services):
            self._put(mesh.service(self.shape, number))
        self._watched: dict[Any, Callable[[], Any]] = {}
        for number in range(SIDECARS):
            can = Capabilities(on_demand=on_demand)
            proxy = Proxy(ProxyKind.SIDECAR, mesh.namespace_of(number), mesh.client_of(number), capabilities=can)
            self._watch(number, self.graph.watch(scope_of, proxy).value())

    def change(self, number: int, state: ServiceState) -> tuple[int, int, int]:
        """Changes a service. How many queries ran, how many answers changed, how many bytes of resources are new."""
        self._put(mesh.service(self.shape, number, state))
        with self.graph.tracing() as ran:
            changed = [each.value() for each in self.graph.drain()]
        return len(ran), len(changed), sum(len(each.body) for each in changed if isinstance(each, Resource))

    def _put(self, documents: list[Any]) -> None:
        self.graph.commit(transaction([decode(each) for each in documents]))

    def _watch(self, number: int, scope: Scope) -> None:
        for kind in TYPES:
            self.graph.watch(kind.shares, scope)
        for kind in (CDS, LDS):
            assert kind.names_at is not None
            for level, by in enumerate(self.graph.pull(kind.shares, scope).levels):
                for name in self.graph.watch(kind.names_at, by, level).value():
                    self._get(kind, scope, name)
                    if kind is CDS and name.startswith("outbound|"):
                        self._get(EDS, scope, name)
        for port in (mesh.HTTP, mesh.GRPC):
            self._get(RDS, scope, str(port))
        for service in mesh.used_by(self.shape, number) if scope.on_demand else ():
            asked = f"{mesh.HTTP}/{mesh.host_of(service)}:{mesh.HTTP}"
            assert VHDS.resolve is not None
            name = self.graph.watch(VHDS.resolve, self._by(VHDS, scope, asked), asked).value()
            host = self._get(VHDS, scope, name)
            for cluster in host.clusters if host is not None else ():
                self._get(CDS, scope, cluster)
                self._get(EDS, scope, cluster)

    def _get(self, kind: ResourceType, scope: Scope, name: str) -> Resource | None:
        return self.graph.watch(kind.resource, self._by(kind, scope, name), name).value()

    def _by(self, kind: ResourceType, scope: Scope, name: str) -> Scope:
        shares = self.graph.pull(kind.shares, scope)
        return shares.levels[kind.level(shares, name)]


CHANGES = {
    "endpoint all use": (0, ServiceState(endpoints=5)),
    "route all use": (0, ServiceState(timeout_s=41)),
    "endpoint nobody uses": (-1, ServiceState(endpoints=5)),
    "route nobody uses": (-1, ServiceState(timeout_s=41)),
    "new service": (1, ServiceState()),
}


def costs(services: int) -> dict[str, tuple[int, int, int]]:
    watched = Watched(services, on_demand=True)
    numbers = {0: 0, -1: watched.shape.last, 1: services + 5}
    return {name: watched.change(numbers[which], state) for name, (which, state) in CHANGES.items()}


def test_a_change_costs_the_same_in_a_mesh_of_any_size() -> None:
    small, large = costs(100), costs(3000)
    for name, (ran, changed, size) in small.items():
        assert large[name][0] <= ran * 1.2 + 2, (name, small[name], large[name])
        assert (large[name][1], large[name][2]) == pytest.approx((changed, size), rel=0.2), name
    assert small["endpoint all use"][0] < 40
    assert small["new service"][1] == 0, "nobody hears of it"
    assert small["endpoint nobody uses"] == (0, 0, 0), "nothing runs for what nobody uses"


def test_with_everything_at_once_sidecars_share_what_is_the_same() -> None:
    watched = Watched(200, on_demand=False)
    ran, changed, _ = watched.change(0, ServiceState(endpoints=5))
    assert changed < 20, "two or three assignments for all, and those of the few that see the service their own way"
    assert ran < 100
    ran, changed, _ = watched.change(205, ServiceState())
    assert ran < 20 * SIDECARS
