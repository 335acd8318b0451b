"""Which changes made errors jump: rates before and after each, told from chance and from other changes. Pure.

Counts come as samples of a few seconds, for each host. A change is judged by the samples that lie wholly between
it and the change before, and between it and the next one; what lies across a change counts for neither. Changes with
too few requests between them cannot be told apart and are judged together. It is a jump when

- both sides have `ENOUGH` requests,
- the rate rose by `RISE` at least and more than doubled,
- it is no chance: `SIGMAS` standard deviations of the difference of two proportions,
- and no stretch of `ENOUGH` requests before was as bad: services that fail in bursts do that without a change, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

ENOUGH: Final = 20
"""Requests on each side. At one a second the answer takes 20 s."""
RISE: Final = 0.05
SIGMAS: Final = 4.0
BEFORE_S: Final = 60.0
"""How far back a change is compared with."""
AFTER_S: Final = 60.0
"""How long after a change errors are its doing."""
TOGETHER_S: Final = 0.25
_SERVER, _CLIENT = "server errors", "client errors"


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What was counted from `start` to `end`, in seconds of one clock."""

    start: float
    end: float
    requests: int
    client_errors: int = 0
    server_errors: int = 0


class Moment(msgspec.Struct, frozen=True, order=True):
    """A change at a time, by its revision."""

    at: float
    revision: int


class Rate(msgspec.Struct, frozen=True):
    """Errors among requests."""

    errors: int
    requests: int

    def __str__(self) -> str:
        return f"{100 * self.errors / self.requests:.0f} % of {self.requests}"

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.errors / self.requests


class Jump(msgspec.Struct, frozen=True):
    """`what` rose from `before` to `after` at changes that cannot be told apart."""

    revisions: tuple[int, ...]
    what: str
    before: Rate
    after: Rate


class History:
    """The samples of one host, as far back as they are needed."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """One more, not older than the last; the oldest are forgotten. Samples of many agents that end together are
        one."""
        if self._samples and sample.end - self._samples[-1].end < TOGETHER_S:
            sample = _merged(self._samples.pop(), sample)
        self._samples.append(sample)
        while self._samples and self._samples[0].end < sample.end - BEFORE_S - AFTER_S:
            self._samples.popleft()

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def newest(self) -> float:
        """When the last sample ended."""
        return self._samples[-1].end if self._samples else 0.0

    def jumps(self, changes: Sequence[Moment]) -> Iterator[Jump]:
        """The jumps at some changes (in the order of time)."""
        groups = self._groups(changes)
        for number, group in enumerate(groups):
            first, last = group[0].at, group[-1].at
            since = max(first - BEFORE_S, groups[number - 1][-1].at if number else -math.inf)
            until = min(last + AFTER_S, groups[number + 1][0].at if number + 1 < len(groups) else math.inf)
            before, after = self._between(since, first), self._between(last, until)
            for what in (_SERVER, _CLIENT):
                one, other = _rate(before, what), _rate(after, what)
                if min(one.requests, other.requests) >= ENOUGH and _rose(one, other) and _worse(other, before, what):
                    yield Jump(tuple(each.revision for each in group), what, one, other)

    def _groups(self, changes: Sequence[Moment]) -> list[list[Moment]]:
        groups: list[list[Moment]] = []
        for each in changes:
            if groups and _rate(self._between(groups[-1][-1].at, each.at), _SERVER).requests < ENOUGH:
                groups[-1].append(each)
            else:
                groups.append([each])
        return groups

    def _between(self, start: float, end: float) -> list[Sample]:
        return [each for each in self._samples if each.start >= start and each.end <= end]


def _merged(one: Sample, other: Sample) -> Sample:
    return Sample(
        min(one.start, other.start),
        max(one.end, other.end),
        one.requests + other.requests,
        one.client_errors + other.client_errors,
        one.server_errors + other.server_errors,
    )


def _errors(sample: Sample, what: str) -> int:
    return sample.server_errors if what == _SERVER else sample.client_errors


def _rate(samples: Iterable[Sample], what: str) -> Rate:
    errors = requests = 0
    for each in samples:
        errors += _errors(each, what)
        requests += each.requests
    return Rate(errors, requests)


def _rose(before: Rate, after: Rate) -> bool:
    rise = after.share - before.share
    if rise < RISE or after.share < 2 * before.share:
        return False
    both = (before.errors + after.errors) / (before.requests + after.requests)
    deviation = math.sqrt(both * (1 - both) * (1 / before.requests + 1 / after.requests))
    return deviation == 0 or rise >= SIGMAS * deviation


def _worse(after: Rate, before: Sequence[Sample], what: str) -> bool:
    """True for a rate that is higher than that of any stretch before, by more than its own uncertainty."""
    uncertain = 3 * math.sqrt(after.share * (1 - after.share) / after.requests)
    return after.share - _worst(before, what) >= max(RISE, uncertain)


def _worst(samples: Sequence[Sample], what: str) -> float:
    """The highest share of errors in any stretch of enough requests."""
    worst, errors, requests, first = 0.0, 0, 0, 0
    for each in samples:
        errors += _errors(each, what)
        requests += each.requests
        while requests - samples[first].requests >= ENOUGH:
            errors -= _errors(samples[first], what)
            requests -= samples[first].requests
            first += 1
        if requests >= ENOUGH:
            worst = max(worst, errors / requests)
    return worst
