"""The bench of the API measures what it says, on a small server."""

from __future__ import annotations

from lateen.bench.api import ApiPlan, figures, measure


def test_a_small_run() -> None:
    report = measure(ApiPlan(objects=100, watchers=3, rate=200, seconds=0.5))
    (own,) = report.servers
    assert own.name == "lateen"
    assert 0 < own.list_s < 30
    assert own.changes_s > 0  # every one of the hundred changes was seen by every watcher, or the run had failed
    assert own.cpu_us > 0
    assert figures(report)[0]["lateen: memory, MiB"] == own.memory.rss_mib
