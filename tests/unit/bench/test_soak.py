"""The soak, for seconds: everything that comes and goes does, from a folder and from an API."""

from __future__ import annotations

import pytest

from lateen.bench.host import origin
from lateen.bench.soak import Period, SoakPlan, SoakReport, soak


@pytest.mark.parametrize("source", [pytest.param("folder", marks=pytest.mark.long), "api"])
def test_a_short_soak(source: str) -> None:
    plan = SoakPlan(
        minutes=0.06,
        period_minutes=0.03,
        services=40,
        sidecars=6,
        changes_a_second=60,
        reconnect_s=1,
        source="api" if source == "api" else "folder",
    )
    report = soak(plan)
    assert len(report.periods) == 2
    assert sum(each.services_made for each in report.periods) > 0
    assert all(each.changes > 0 and each.median_mib > 20 for each in report.periods)
    assert sum(each.reconnects for each in report.periods) >= 4


def report(*median_mib: float) -> SoakReport:
    made = [
        Period(until_minute=5, changes=1, services_made=1, reconnects=1, cpu_s=1, median_mib=each, highest_mib=each)
        for each in median_mib
    ]
    return SoakReport(plan=SoakPlan(), periods=tuple(made), origin=origin())


def test_memory_is_flat_when_it_does_not_grow_after_the_first_period() -> None:
    assert report(100, 150, 150, 160).flat
    assert not report(100, 150, 160, 170).flat
    assert report(100, 105).flat
    assert not report(100, 120).flat
