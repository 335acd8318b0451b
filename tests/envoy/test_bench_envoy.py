"""The benchmark of large meshes, on a small one: what is loaded is what is called."""

from __future__ import annotations

from lateen.bench.large_mesh import LargePlan, measure


def test_an_envoy_holds_what_is_called() -> None:
    report = measure(LargePlan(services=60, first=10, unknown=5, single=3))
    assert report.unknown_answers == {"502": 16}
    assert report.ratio < 1.3
    assert 0 < report.next_p50_ms < report.first_p50_ms
