"""What `lateen bench proxy` measures: every way carries every protocol, and the sidecars do what is said of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lateen.bench.host import cpu_s, memory
from lateen.bench.loads import PROTOCOLS, Measured, measured
from lateen.bench.proxy_lanes import Sidecars, by_hand, direct
from tests.envoy.harness import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with ExitStack() as stack:
        made = short_directory()
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        yield made


def test_every_way_carries_every_protocol(directory: Path) -> None:
    with ExitStack() as stack:
        lanes = (direct(directory, stack), by_hand(directory, stack, mtls=True))
        sidecars = Sidecars(directory, stack, mtls=True, telemetry=True)
        sent = sum(_all_answered(sidecars.send(wire, 0.2, 500)) for wire in PROTOCOLS if wire != "tcp")
        assert sidecars.count("http.outbound_.*.downstream_rq_2xx") >= sent
        assert sidecars.count("listener.*15006.ssl.handshake", server=True) > 0
        log = Path(sidecars.plane.layout.run).glob("pods/*/envoy.log")
        lines = [each for file in log for each in file.read_text().splitlines() if '"GET / HTTP/1.1" 200' in each]
        assert lines
        for lane in lanes:
            before = cpu_s(*lane.proxies)
            for wire in PROTOCOLS:
                _all_answered(lane.send(wire, 0.2, 0))
            assert (cpu_s(*lane.proxies) > before) == (lane.name != "direct")


def _all_answered(got: Measured) -> int:
    assert got.requests > 0
    assert got.failed == 0
    return got.requests


def test_figures_are_of_answered_requests() -> None:
    got = measured([(200, 1000 * each) for each in range(1, 101)] + [(503, 1), (-1, 1)], 2)
    assert (got.requests, got.failed, got.p50_ms, got.p99_ms) == (102, 2, 51.0, 100.0)
    assert got.per_second == 50
    assert measured([], 1) == Measured(0, 0, 1, 0, 0)


def test_memory_is_that_of_the_process() -> None:
    mine = memory(os.getpid())
    assert 0 < mine.pss_mib <= mine.rss_mib <= mine.peak_mib
