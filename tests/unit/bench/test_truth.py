"""The benchmark of conditions, on a small mesh: counts, not times."""

from __future__ import annotations

import pytest

from lateen.bench.truth import TruthPlan, measure


@pytest.mark.long
def test_every_change_gets_its_condition_and_few_are_written_twice() -> None:
    report = measure(TruthPlan(objects=20, seconds=0.5, sidecars=2))
    assert 0 < report.needed <= 20
    assert 20 <= report.statuses <= 60
