"""How rounds become a row: medians, ratios within a round, and the least CPU."""

from __future__ import annotations

from lateen.bench.loads import Measured
from lateen.bench.proxy import BASE, Sample, way_of


def sample(per_second: float, p50_ms: float, cpu_us: float) -> Sample:
    return Sample(Measured(round(per_second), 0, 1, p50_ms, 2 * p50_ms), cpu_us)


def test_a_busy_round_disturbs_neither_ratio_nor_least() -> None:
    quiet = {BASE: sample(1000, 1, 100), "lateen": sample(900, 1.1, 104)}
    busy = {BASE: sample(500, 3, 190), "lateen": sample(450, 3.3, 200)}
    odd = {BASE: sample(1000, 1, 102), "lateen": sample(300, 9, 400)}
    row = way_of("lateen", [quiet, busy, odd])
    assert (row.cpu_us, row.cpu_least_us, row.cpu_least_ratio) == (200, 104, 1.04)
    assert (row.cpu_ratio, row.p50_ratio, row.per_second_ratio) == (1.053, 1.1, 0.9)
    assert row.p50_ms == 3.3


def test_without_proxies_there_is_no_cpu() -> None:
    row = way_of("direct", [{BASE: sample(1000, 1, 100), "direct": sample(9000, 0.1, 0)}])
    assert (row.cpu_us, row.cpu_ratio, row.cpu_least_ratio) == (0, 0, 0)
