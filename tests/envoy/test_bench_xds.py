"""Real Envoys beside the simulated sidecars have each change, or never hear of it."""

from __future__ import annotations

from lateen.bench.xds import Plan, measure
from lateen.bench.xds_mesh import MeshShape


def test_real_envoys_confirm_every_row() -> None:
    report = measure(Plan(shape=MeshShape(40, 4, 3), rounds=1, idle_s=0.1, confirm=True))
    for row in report.changes:
        concerns_none = "nobody" in row.name or row.name == "new service"
        assert row.unheard == concerns_none
        assert (row.envoy_s is None) == concerns_none
