"""The benchmark of changes, on a small mesh: counts, not times."""

from __future__ import annotations

import shlex
import sys

import pytest

from lateen.bench.host import BenchError
from lateen.bench.xds import Plan, Report, measure
from lateen.bench.xds_mesh import MeshShape, hears, service, stamp, stamped, used_by

SHAPE = MeshShape(services=40, sidecars=4, uses=3)


def test_each_sidecar_uses_the_first_service_and_none_the_last() -> None:
    for sidecar in range(50):
        used = used_by(MeshShape(1000, 50), sidecar)
        assert (len(used), used[0]) == (20, 0)
        assert max(used) < 999


def test_a_sidecar_hears_of_what_it_uses_and_without_a_sidecar_object_of_everything_else_that_is_pushed() -> None:
    assert not hears(SHAPE, 3, SHAPE.last, on_demand=True)
    assert hears(SHAPE, 3, SHAPE.last, on_demand=False)
    assert not hears(MeshShape(40, 10, 3), 9, SHAPE.last, on_demand=False)
    assert hears(MeshShape(40, 10, 3), 9, 0, on_demand=False)


def test_an_address_says_with_which_change_it_came() -> None:
    assert [stamped(stamp(each)) for each in (0, 255, 256, 6000)] == [0, 255, 256, 6000]


def test_a_service_has_rules_where_the_mesh_has_them() -> None:
    kinds = [each["kind"] for each in service(SHAPE, SHAPE.last)]
    assert kinds == ["Service", "EndpointSlice", "VirtualService", "DestinationRule"]
    assert len(service(SHAPE, 1)) == 2
    assert len(service(SHAPE, 5)[0]["spec"]["ports"]) == 3


def sizes(report: Report) -> dict[str, float]:
    return {each.name: each.bytes_each for each in report.changes}


@pytest.mark.parametrize("source", ["folder", "api"])
def test_a_change_goes_to_those_who_use_it_in_one_message(source: str) -> None:
    plan = Plan(shape=SHAPE, rounds=1, idle_s=0.1, source="api" if source == "api" else "folder", churn_s=0.5)
    report = measure(plan)
    rows = {each.name: each for each in report.changes}
    assert (report.streams, report.scopes) == (4, 4)
    assert (rows["endpoint all use"].sidecars, rows["endpoint all use"].messages) == (4, 4)
    assert (rows["route all use"].sidecars, rows["route all use"].messages) == (4, 8)
    assert rows["endpoint all use"].bytes_each < 2048
    assert rows["route all use"].bytes_each < 4096
    for nobody in ("endpoint nobody uses", "route nobody uses", "new service"):
        assert rows[nobody].bytes_each == rows[nobody].messages == 0
    assert report.churn is not None
    assert report.churn.changes == 50
    assert report.churn.bytes_each > 0
    assert report.churn.behind_max_s > 0


def test_bytes_do_not_depend_on_the_size_of_the_mesh() -> None:
    small, large = (measure(Plan(shape=MeshShape(each, 2, 3), rounds=1, idle_s=0.1)) for each in (40, 240))
    for name, size in sizes(small).items():
        assert sizes(large)[name] == pytest.approx(size, rel=0.2)
    assert large.cold.bytes_each == pytest.approx(small.cold.bytes_each, rel=0.2)


def test_another_server_is_measured_by_the_same_client() -> None:
    own = f"{shlex.quote(sys.executable)} -m lateen.cli.main serve --config-dir {{folder}} --xds-address {{address}}"
    report = measure(Plan(shape=SHAPE, rounds=1, idle_s=0.1, on_demand=False, server=own))
    assert {each.sidecars for each in report.changes} == {4}
    assert report.scopes == 0
    with pytest.raises(BenchError, match="the server ended"):
        measure(Plan(shape=SHAPE, rounds=1, idle_s=0.1, server="false"))


def test_another_server_may_read_a_kubernetes_api() -> None:
    with pytest.raises(BenchError, match="apiVersion"):
        measure(Plan(shape=SHAPE, rounds=1, source="api", server="head -c 300 {kubeconfig}"))
