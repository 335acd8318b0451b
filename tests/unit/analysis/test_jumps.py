"""Which changes made errors jump: what is told from chance, from bursts and from other changes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lateen.analysis.jumps import ENOUGH, History, Jump, Moment, Sample

STEP_S = 2.0


def told(rate: Callable[[float], float], changes: list[float], per_step: int = 40, seed: int = 1) -> list[Jump]:
    """What is said over two minutes of calls that fail at a rate by the time, changes being made at some times: each
    jump once, asked after each sample as the control plane does."""
    dice, history = random.Random(seed), History()
    found: dict[tuple[int, ...], Jump] = {}
    for step in range(60):
        start = step * STEP_S
        failed = sum(dice.random() < rate(start) for _ in range(per_step))
        history.add(Sample(start, start + STEP_S, per_step, server_errors=failed))
        made = [Moment(at, number) for number, at in enumerate(changes) if at <= start]
        for jump in history.jumps(made):
            found.setdefault(jump.revisions, jump)
    return list(found.values())


def test_a_change_after_which_everything_fails() -> None:
    (jump,) = told(lambda at: 1.0 if at >= 60 else 0.0, [59.0])
    assert (jump.revisions, jump.what) == ((0,), "server errors")
    assert (jump.before.errors, jump.after.share) == (0, 1.0)
    assert str(jump.after) == "100 % of 40"


def test_a_tenth_that_fails_is_seen_and_nobody_else_is_blamed() -> None:
    made = told(lambda at: 0.12 if at >= 60 else 0.01, [20.0, 59.0, 100.0])
    assert [each.revisions for each in made] == [(1,)]


def test_what_failed_before_is_nobodys_doing() -> None:
    assert told(lambda _: 0.4, [31.0, 61.0]) == []
    assert told(lambda at: 0.0 if at >= 60 else 1.0, [59.0]) == []


def test_a_service_that_fails_in_bursts() -> None:
    assert told(lambda at: 0.8 if at % 20 < 4 else 0.0, [59.0, 79.0]) == []


def test_the_culprit_among_changes_at_some_distance() -> None:
    assert [each.revisions for each in told(lambda at: float(at >= 60), [41.0, 51.0, 59.0, 69.0])] == [(2,)]


def test_changes_too_close_to_tell_apart_are_named_together() -> None:
    (jump,) = told(lambda at: float(at >= 60), [40.1, 59.0, 59.2, 59.4])
    assert jump.revisions == (1, 2, 3)


@pytest.mark.parametrize("seed", range(300))
def test_chance_is_no_jump(seed: int) -> None:
    dice = random.Random(seed)
    level, per_step = dice.choice((0.0, 0.01, 0.05, 0.3)), dice.choice((1, 3, 20, 100))
    assert told(lambda _: level, [dice.uniform(2, 118) for _ in range(3)], per_step, seed) == []


def test_few_requests_say_nothing() -> None:
    per_step = 1
    assert told(lambda at: float(at >= 60), [59.0], per_step)[0].after.requests == ENOUGH
    history = History()
    for step in range(ENOUGH - 1):
        history.add(Sample(step, step + 1, 1))
    for step in range(ENOUGH, 2 * ENOUGH):
        history.add(Sample(step, step + 1, 1, server_errors=1))
    assert list(history.jumps([Moment(ENOUGH - 0.5, 7)])) == []


def test_client_errors_are_told_apart() -> None:
    history = History()
    for step in range(20):
        history.add(Sample(step, step + 1, 10, client_errors=10 if step >= 10 else 0))
    assert [each.what for each in history.jumps([Moment(10, 7)])] == ["client errors"]


def test_samples_of_many_agents_are_few() -> None:
    history = History()
    for tick in range(10_000):
        history.add(Sample(tick / 100 - 2, tick / 100, 1))
    assert len(history) < 500
