"""The benchmark of changes, on a small mesh: counts, not times."""

from __future__ import annotations

import pytest

from lateen.bench.xds import Plan, measure
from lateen.bench.xds_mesh import MeshShape, used_by

SHAPE = MeshShape(services=40, sidecars=4, uses=3)


def test_each_sidecar_uses_the_first_service_and_none_the_last() -> None:
    for sidecar in range(50):
        used = used_by(MeshShape(1000, 50), sidecar)
        assert (len(used), used[0]) == (20, 0)
        assert max(used) < 999


@pytest.mark.parametrize("on_demand", [True, False])
def test_a_change_goes_to_those_who_use_it(on_demand: bool) -> None:
    report = measure(Plan(shape=SHAPE, on_demand=on_demand, rounds=1))
    rows = {each.name: each for each in report.changes}
    assert report.cold.bytes_each > 1000
    assert rows["endpoint of a service all use"].sidecars == rows["route all use"].sidecars == 4
    if on_demand:
        assert rows["endpoint of a service all use"].bytes_each < 2048
        assert rows["route all use"].bytes_each < 4096
        assert rows["new service"].bytes_each == rows["new service"].sidecars == 0
    else:
        assert rows["new service"].sidecars == 4
