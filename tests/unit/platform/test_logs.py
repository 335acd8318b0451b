"""Logs with the times of their lines: what was written is what is read, whatever part of it is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.apiserver.streams import LogOptions
from lateen.daemon import pod_logs
from lateen.platform.logs import LogWriter, log_files, read_times

SECOND_NS = 1_000_000_000
BEGIN_NS = 1_700_000_000 * SECOND_NS


class Clock:
    def __init__(self) -> None:
        self.now_ns = BEGIN_NS

    def __call__(self) -> int:
        return self.now_ns


async def read(directory: Path, **options: object) -> str:
    wanted = LogOptions(**options)  # type: ignore[arg-type]
    lines = pod_logs.read(log_files(directory, "app"), wanted, lambda: True)
    return b"".join([each async for each in lines]).decode()


async def test_times_tails_and_moments(tmp_path: Path) -> None:
    clock = Clock()
    log = LogWriter(str(tmp_path), "app", 1 << 20, clock)
    log.begin(0)
    for number in range(5):
        log.write(f"line {number}\n".encode())
        clock.now_ns += SECOND_NS
    log.write(b"begun ")
    clock.now_ns += SECOND_NS
    log.write(b"and ended\n")
    log.close()
    assert await read(tmp_path, tail=2) == "line 4\nbegun and ended\n"
    assert await read(tmp_path, tail=0) == ""
    second = (await read(tmp_path, timestamps=True)).splitlines()[1]
    assert second == "2023-11-14T22:13:21.000000000Z line 1"
    assert await read(tmp_path, since=1_700_000_003.5) == "line 4\nbegun and ended\n"
    # a line that came in two pieces is told whole, with the time of its beginning
    assert await read(tmp_path, since=1_700_000_006) == "begun and ended\n"
    assert (await read(tmp_path, since=1_700_000_006, timestamps=True)).startswith("2023-11-14T22:13:25")
    assert await read(tmp_path, since=1_700_000_007) == ""
    assert await read(tmp_path, since=1_700_000_001, tail=1) == "begun and ended\n"
    assert await read(tmp_path, limit_bytes=8) == "line 0\nl"


async def test_what_goes_on_is_stamped_line_by_line(tmp_path: Path) -> None:
    clock = Clock()
    log = LogWriter(str(tmp_path), "app", 1 << 20, clock)
    log.begin(0)
    log.write(b"first\nsec")
    over = False
    lines = pod_logs.read(log_files(tmp_path, "app"), LogOptions(follow=True, timestamps=True), lambda: over)
    assert (await anext(lines)).decode() == "2023-11-14T22:13:20.000000000Z first\n"
    clock.now_ns += SECOND_NS
    log.write(b"ond\nthird")
    assert (await anext(lines)).decode() == "2023-11-14T22:13:20.000000000Z second\n"
    over = True
    log.close()
    rest = b"".join([each async for each in lines]).decode()
    assert rest == "2023-11-14T22:13:21.000000000Z third"


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 3)), min_size=1, max_size=30),
    limit=st.integers(20, 200),
)
def test_times_ascend_and_nothing_is_lost_when_files_are_begun_anew(
    pieces: list[tuple[bytes, int]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        _written_and_read(Path(name), pieces, limit)


def _written_and_read(directory: Path, pieces: list[tuple[bytes, int]], limit: int) -> None:
    clock = Clock()
    log = LogWriter(str(directory), "app", limit, clock)
    log.begin(0)
    for content, seconds in pieces:
        clock.now_ns += seconds * SECOND_NS
        log.write(content)
    log.close()
    files = log_files(directory, "app")
    written = b"".join(each for each, _ in pieces)
    assert written.endswith(b"".join(each.read_bytes() for each in files))
    for file in files:
        times = read_times(file)
        assert list(times.offsets) == sorted(set(times.offsets))
        assert list(times.at_ns) == sorted(times.at_ns)
        assert all(offset < max(1, file.stat().st_size) for offset in times.offsets)
