"""Results are kept and compared."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from lateen.bench.host import BenchError, Memory, origin
from lateen.bench.proxy import ProxyPlan, ProxyReport, figures
from lateen.bench.results import compared, load, store


def report(pss_mib: float) -> ProxyReport:
    return ProxyReport(plan=ProxyPlan(), cases=(), memory={"agent": Memory(2, pss_mib, 3)}, origin=origin())


def test_a_result_is_compared_with_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "results" / "proxy.json"
    assert load(file, ProxyReport) is None
    store(file, report(40))
    kept = load(file, ProxyReport)
    assert kept is not None
    (row,) = compared(figures(report(50)), figures(kept))
    assert (row.name, row.then, row.now, row.ratio) == ("agent: PSS MiB", 40, 50, " (x 1.25)")


def test_other_machines_and_other_files_are_not_compared(tmp_path: Path) -> None:
    here = report(40)
    there = msgspec.structs.replace(here, origin=msgspec.structs.replace(here.origin, cpu="Z80"))
    with pytest.raises(BenchError, match="another machine"):
        compared(figures(here), figures(there))
    file = tmp_path / "proxy.json"
    file.write_text(json.dumps({"plan": 1}))
    with pytest.raises(BenchError, match="no result"):
        load(file, ProxyReport)


def test_a_result_says_where_it_is_from() -> None:
    here = origin()
    assert here.cores >= 1
    assert here.memory_mib > 100
    assert here.at.endswith("Z")
