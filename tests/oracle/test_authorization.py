"""Random policies, random requests: a plain reading of Istio's semantics and the real Envoy give the same answer.

What is compared for a request: whether it passes, whether it was audited, and what each policy on trial would have
done; for a connection, whether its caller hears a byte. What is counted is what decided: a field of a rule counts for
an outcome when the answer is another one with that field alone the other way round. A zero fails.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple, cast

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lateen.api.check import check_raw
from lateen.lib.findings import Level
from tests.oracle.drawing import NORMALIZATIONS, Drawn, expected_cells, policies, policies_about, requests
from tests.oracle.mesh import SEEN, Answer, Workload, mesh_of
from tests.oracle.reading import read
from tests.oracle.semantics import Cell, Json, Mesh, Policy, Request, deciding, verdict

TURNS, PER_TURN = 33, 62
LONG_TURNS, LONG_PER_TURN = 250, 420
CANDIDATES = 18
"""How many requests are drawn for each port; those that most fields decide are asked."""
MORE_DRAWS = 2000
"""How many draws more there may be about fields that have not decided anything so far; those that do get a turn."""
SMALLEST_S = 60
"""How long a failure is made smaller."""


@pytest.fixture(scope="module")
def workload() -> Iterator[Workload]:
    with Workload() as made:
        yield made


def test_envoy_decides_as_the_semantics_read(workload: Workload, capsys: pytest.CaptureFixture[str]) -> None:
    """Both transports together."""
    merged = {("any", *each[1:]) for each in expected_cells()}
    compared = Comparison(workload, merged, lambda cell: ("any", cell.field, cell.action, cell.outcome))
    compared.run(TURNS, PER_TURN, capsys)
    assert compared.pairs >= 2000


@pytest.mark.long
def test_envoy_decides_as_the_semantics_read_a_hundred_thousand_times(
    workload: Workload, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests and connections apart."""
    compared = Comparison(
        workload, expected_cells(), lambda cell: (cell.transport, cell.field, cell.action, cell.outcome)
    )
    compared.run(LONG_TURNS, LONG_PER_TURN, capsys)
    assert compared.pairs >= 100_000


Key = tuple[str, str, str, str]


class Configuration(NamedTuple):
    """Policies, and requests with what each decides."""

    documents: list[Json]
    mesh: Mesh
    chosen: list[tuple[Request, set[Key]]]


class Comparison:
    """Compares, and counts what decided; everything `expected` must have, as `key` names it."""

    def __init__(self, workload: Workload, expected: set[Key], key: Callable[[Cell], Key]) -> None:
        self._workload = workload
        self._expected = expected
        self._key = key
        self.decided: Counter[Key] = Counter()
        self.pairs = 0

    @property
    def missing(self) -> list[Key]:
        """What has decided nothing so far."""
        return sorted(self._expected - self.decided.keys())

    def run(self, turns: int, per_turn: int, capsys: pytest.CaptureFixture[str]) -> None:
        """So many random configurations, then some about what has decided nothing."""
        seeds: dict[int, int] = {}

        @settings(
            max_examples=turns,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(st.integers(0, 2**64))
        def check(seed: int) -> None:
            turn = seeds.setdefault(seed, len(seeds))
            by = Random(seed)
            self._turn(self._drawn(by, policies(by, turn), per_turn), str(turn))

        check()
        more = 0
        for draw in range(MORE_DRAWS):
            if not self.missing:
                break
            by = Random(draw)
            about = policies_about(by, sorted({(field, action) for _, field, action, _ in self.missing}))
            drawn = self._drawn(by, about, per_turn)
            if any(found.intersection(self.missing) for _, found in drawn.chosen):
                self._turn(drawn, f"more {draw}")
                more += 1
        with capsys.disabled():
            counted = f"{len(self.decided)} decided, the least {min(self.decided.values())} times"
            print(f"\n  {self.pairs} pairs in {len(seeds)} + {more} configurations; {counted}")  # noqa: T201
        assert not self.missing, "never decided"

    def _drawn(self, by: Random, drawn: list[Drawn], per_turn: int) -> Configuration:
        mesh = mesh_of(by.choice(NORMALIZATIONS))
        offered = requests(by, max(CANDIDATES, per_turn // 14))
        return Configuration([each.document for each in drawn], mesh, self._choose(drawn, mesh, offered, per_turn))

    def _turn(self, drawn: Configuration, turn: str) -> None:
        _same(self._workload, drawn.documents, drawn.mesh, [request for request, _ in drawn.chosen], turn)
        self.pairs += len(drawn.chosen)
        for _, found in drawn.chosen:
            self.decided.update(found)

    def _choose(
        self, drawn: list[Drawn], mesh: Mesh, offered: list[Request], count: int
    ) -> list[tuple[Request, set[Key]]]:
        """The requests that decide most, seldom things first, greedily; then others as they come."""
        there = {port: read([each.at(port) for each in drawn], mesh) for port in {each.port for each in offered}}
        rest = [(each, set(map(self._key, deciding(there[each.port], mesh, each)))) for each in offered]
        if len(rest) <= count:
            return rest
        chosen: list[tuple[Request, set[Key]]] = []
        have: set[Key] = set()
        while len(chosen) < count:
            gains = [math.fsum(2.0 ** -self.decided[key] for key in found - have) for _, found in rest]
            best = max(range(len(rest)), key=gains.__getitem__, default=-1)
            if best < 0 or not gains[best]:
                break
            chosen.append(rest.pop(best))
            have |= chosen[-1][1]
        return [*chosen, *rest[: count - len(chosen)]]


def _same(workload: Workload, documents: list[Json], mesh: Mesh, asked: list[Request], turn: str) -> None:
    """AssertionError with the smallest policies that show it when Envoy answers one request otherwise."""
    for each in documents:
        assert not [found for found in check_raw(each) if found.level is Level.ERROR], each
    answers = _answers(workload, documents, mesh, asked, turn)
    policies = read(documents, mesh)
    for request, answer in zip(asked, answers, strict=True):
        if _said(policies, mesh, request) != _got(request, answer):
            smallest = _smallest(workload, documents, mesh, request)
            (got,) = _answers(workload, smallest, mesh, [request], f"{turn} smallest")
            raise AssertionError(
                f"{yaml.safe_dump_all(smallest)}\n{request}\n{mesh.normalization}"
                f"\nsemantics: {_said(read(smallest, mesh), mesh, request)}\nEnvoy: {_got(request, got)} ({got})"
            )


def _answers(workload: Workload, documents: list[Json], mesh: Mesh, asked: list[Request], turn: str) -> list[Answer]:
    workload.configure(documents, mesh.normalization, turn)
    waits = "over-grpc" in str(documents) or "fd00" in str(documents)
    return workload.ask(asked, speak_first=waits)


def _said(policies: list[Policy], mesh: Mesh, request: Request) -> tuple[object, ...]:
    said = verdict(policies, mesh, request)
    if request.tcp or not said.allowed:
        return (said.allowed,)
    return (True, said.audited, tuple(each for each in said.trials if each[0] != "AUDIT"))


def _got(request: Request, answer: Answer) -> tuple[object, ...]:
    if request.tcp:
        return (answer.heard,)
    if answer.status != 200:
        return (False,) if answer.status == 403 else (answer.status,)
    audited, *trials = (each == "allowed" if each else None for each in answer.seen)
    names = [each.split("_")[3].upper() for each in SEEN[1:]]
    tried = sorted((name, each) for name, each in zip(names, trials, strict=True) if each is not None)
    return (True, audited is True, tuple(tried))


def _smallest(workload: Workload, documents: list[Json], mesh: Mesh, request: Request) -> list[Json]:
    """Takes away from the policies what can go while they are still answered otherwise, as far as it gets in time."""
    at, end = 0, time.monotonic() + SMALLEST_S
    while at < len(smaller := list(_smaller(documents))) and time.monotonic() < end:
        tried = smaller[at]
        valid = not [each for one in tried for each in check_raw(one) if each.level is Level.ERROR]
        if valid:
            (answer,) = _answers(workload, tried, mesh, [request], f"smaller {time.monotonic_ns()}")
            if _said(read(tried, mesh), mesh, request) != _got(request, answer):
                documents, at = tried, 0
                continue
        at += 1
    return documents


def _smaller(value: Any) -> Iterator[Any]:
    """A document or part with one item of a list or mapping less, anywhere in it."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        for index, each in enumerate(items):
            if len(items) > 1:
                yield [*items[:index], *items[index + 1 :]]
            yield from ([*items[:index], less, *items[index + 1 :]] for less in _smaller(each))
    elif isinstance(value, dict):
        fields = cast("Json", value)
        for name, each in fields.items():
            if name not in ("apiVersion", "kind", "metadata", "provider", "key"):
                if name != "spec":
                    yield {key: one for key, one in fields.items() if key != name}
                yield from ({**fields, name: less} for less in _smaller(each))
