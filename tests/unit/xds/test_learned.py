"""What workloads were seen to call: noted, bounded, aged, kept in a file that several control planes share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.daemon.learning import LearnedFile
from lateen.xds import learned as module
from lateen.xds.learned import FRESH_S, LIFETIME_S, NAMES_MAX, Identity, Learned

WEB, BATCH = Identity("shop", "web", "web"), Identity("shop", "batch", "batch")
DAY_S = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def learned(clock: Clock) -> Learned:
    return Learned(clock)


def test_a_workload_has_what_it_asked_for_and_nothing_of_another(learned: Learned) -> None:
    learned.note(WEB, "VHDS", "80/a")
    learned.note(WEB, "CDS", "10.96.0.5:3306")
    learned.note(WEB, "VHDS", "80/b")
    assert learned.names(WEB, "VHDS") == ["80/b", "80/a"]
    assert learned.names(WEB, "CDS") == ["10.96.0.5:3306"]
    assert learned.names(BATCH, "VHDS") == []


def test_a_name_is_forgotten_a_week_after_it_was_asked_for_last(learned: Learned, clock: Clock) -> None:
    learned.note(WEB, "VHDS", "80/a")
    learned.note(WEB, "VHDS", "80/b")
    clock.now += 6 * DAY_S
    learned.note(WEB, "VHDS", "80/b")
    clock.now += 2 * DAY_S
    assert learned.names(WEB, "VHDS") == ["80/b"]
    learned.encoded()
    assert len(learned) == 1


def test_asks_within_an_hour_are_no_news(learned: Learned, clock: Clock) -> None:
    learned.note(WEB, "VHDS", "80/a")
    learned.encoded()
    clock.now += FRESH_S - 1
    learned.note(WEB, "VHDS", "80/a")
    assert not learned.changed
    clock.now += 2
    learned.note(WEB, "VHDS", "80/a")
    assert learned.changed


def test_a_workload_that_calls_everything_fills_only_its_own_place(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned.note(BATCH, "VHDS", "80/kept")
    for number in range(NAMES_MAX + 50):
        learned.note(WEB, "VHDS", f"80/n{number}")
    assert len(learned.names(WEB, "VHDS")) == NAMES_MAX
    assert learned.names(WEB, "VHDS")[-1] == "80/n50"
    assert learned.names(BATCH, "VHDS") == ["80/kept"]
    monkeypatch.setattr(module, "TOTAL_MAX", NAMES_MAX)
    learned.note(WEB, "VHDS", "80/last")
    assert learned.names(BATCH, "VHDS") == []
    assert len(learned) == NAMES_MAX


@given(
    st.lists(st.tuples(st.sampled_from([WEB, BATCH]), st.sampled_from("abc"), st.floats(0, LIFETIME_S)), max_size=20),
    st.lists(st.tuples(st.sampled_from([WEB, BATCH]), st.sampled_from("abc"), st.floats(0, LIFETIME_S)), max_size=20),
)
def test_two_that_merge_know_the_same(
    ours: list[tuple[Identity, str, float]], theirs: list[tuple[Identity, str, float]]
) -> None:
    clock = Clock()
    one, other = Learned(clock), Learned(clock)
    for learned, asks in ((one, ours), (other, theirs)):
        for identity, name, after in sorted(asks, key=lambda each: each[2]):
            clock.now = 1_000_000_000.0 + after
            learned.note(identity, "VHDS", name)
    clock.now = 1_000_000_000.0 + LIFETIME_S
    one.merge(other.encoded())
    other.merge(one.encoded())
    for identity in (WEB, BATCH):
        assert set(one.names(identity, "VHDS")) == set(other.names(identity, "VHDS"))
    again = Learned(clock)
    again.merge(one.encoded())
    assert again.encoded() == one.encoded()
    assert len(again) == len(one)


def test_a_file_is_shared_by_two_and_outlives_both(learned: Learned, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "state" / "learned.json"
    other = Learned(clock)
    ours, theirs = LearnedFile(learned, path), LearnedFile(other, path)
    learned.note(WEB, "VHDS", "80/a")
    other.note(BATCH, "VHDS", "80/b")
    ours.save()
    theirs.save()
    ours.save()
    for each in (learned, other):
        assert (each.names(WEB, "VHDS"), each.names(BATCH, "VHDS")) == (["80/a"], ["80/b"])
    later = Learned(clock)
    LearnedFile(later, path).load()
    assert later.names(WEB, "VHDS") == ["80/a"]
    assert path.stat().st_mode & 0o077 == 0


async def test_the_file_is_written_at_the_end(learned: Learned, tmp_path: Path) -> None:
    kept = LearnedFile(learned, tmp_path / "learned.json")
    task = asyncio.create_task(kept.run())
    await asyncio.sleep(0)
    learned.note(WEB, "VHDS", "80/a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert b"80/a" in (tmp_path / "learned.json").read_bytes()


def test_a_broken_file_is_replaced(learned: Learned, tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    path.write_text("{")
    kept = LearnedFile(learned, path)
    kept.load()
    learned.note(WEB, "VHDS", "80/a")
    kept.save()
    assert msgspec.json.decode(path.read_bytes())
