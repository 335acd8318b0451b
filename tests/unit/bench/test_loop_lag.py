"""The loop lag benchmark runs: real store, real translation, TLS streams in another process."""

from __future__ import annotations

from pathlib import Path

from lateen.bench.loop_lag import Settings, run


async def test_a_short_run(tmp_path: Path) -> None:
    settings = Settings(streams=4, namespaces=2, services=3, writes=200, endpoint_writes=20, route_writes=10, seconds=1)
    report = await run(settings, tmp_path)
    assert report.written == 200
    assert report.refused == 0
    assert report.revisions > 0
    assert report.received["RouteConfiguration resources"] >= 4
    assert report.received["ClusterLoadAssignment resources"] >= 4
    assert report.lag_p50 <= report.lag_p99 <= report.lag_max
