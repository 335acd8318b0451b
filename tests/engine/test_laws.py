"""The engine's laws on random graphs: what is incremental equals what is from scratch, and nothing runs in vain."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.engine import CycleError, Graph, Index, Q, Transaction
from lateen.lib.ids import Ref

INPUTS, LAYERS, WIDTH = 6, 4, 4
BY_PARITY = Index[int, int](("t", "N"), lambda _, value: (value % 2,), "by parity")
ALL = Index[None, int](("t", "N"), lambda _k, _v: (None,), "all")


def ref(i: int) -> Ref:
    return Ref("t", "N", "", f"n{i}")


@dataclass(frozen=True)
class Rule:
    """What one query reads: inputs, groups, queries of lower layers; one more of them if the first value is odd.
    `modulus` makes different inputs give equal answers; `raises_at` an answer that is an error."""

    inputs: tuple[int, ...]
    groups: tuple[int, ...]
    lower: tuple[int, ...]
    if_odd: int | None
    modulus: int
    raises_at: int | None


@dataclass(frozen=True, eq=False)
class Program:
    """Layers of rules; compared by identity, which keeps keys small."""

    layers: tuple[tuple[Rule, ...], ...]

    def __str__(self) -> str:
        return "program"


class BrokenError(Exception):
    pass


def query(q: Q, program: Program, layer: int, place: int) -> int:
    rule = program.layers[layer][place]
    values: list[int] = [q.read(ref(i)) or 0 for i in rule.inputs]
    values += [sum(q.group(BY_PARITY, i)) if i < 2 else len(q.group(ALL, None)) for i in rule.groups]
    if layer:
        values += [q(query, program, layer - 1, i) for i in rule.lower]
        if rule.if_odd is not None and values and values[0] % 2:
            values.append(q(query, program, layer - 1, rule.if_odd))
    answer = sum((i + 1) * value for i, value in enumerate(values)) % rule.modulus
    if answer == rule.raises_at:
        raise BrokenError(f"{layer}/{place}: {answer}")
    return answer


def places(n: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, n - 1), max_size=3, unique=True).map(tuple)


rules = st.builds(
    Rule,
    inputs=places(INPUTS),
    groups=places(3),
    lower=places(WIDTH),
    if_odd=st.none() | st.integers(0, WIDTH - 1),
    modulus=st.sampled_from([1, 2, 3, 50]),
    raises_at=st.none() | st.integers(0, 2),
)
programs = st.builds(Program, st.tuples(*[st.tuples(*[rules] * WIDTH)] * LAYERS))
changes = st.dictionaries(st.integers(0, INPUTS - 1), st.none() | st.integers(0, 9), max_size=3)


def transaction(change: dict[int, int | None]) -> Transaction:
    return Transaction(
        put=[(ref(i), value) for i, value in change.items() if value is not None],
        delete=[ref(i) for i, value in change.items() if value is None],
    )


def answers(graph: Graph, program: Program, layer: int) -> list[Any]:
    found: list[Any] = []
    for place in range(WIDTH):
        try:
            found.append(graph.pull(query, program, layer, place))
        except BrokenError as error:
            found.append(repr(error))
    return found


@given(programs, st.lists(changes, max_size=8))
@settings(deadline=None, max_examples=60)
def test_incremental_equals_from_scratch(program: Program, history: list[dict[int, int | None]]) -> None:
    graph = Graph()
    for change in history:
        graph.commit(transaction(change))
        for layer in range(LAYERS):
            assert answers(graph, program, layer) == answers(graph.fork(), program, layer)


@given(programs, st.lists(changes, min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_only_queries_that_read_a_change_run_and_each_once(
    program: Program, history: list[dict[int, int | None]]
) -> None:
    """A query may run again only if an input, a group or a lower answer that it may read got a new value since it
    last ran."""
    graph = Graph()
    with graph.tracing() as ran:
        answers(graph, program, LAYERS - 1)
    known, may_run = set(ran), set[str]()
    for change in history:
        before = _reads(graph, program)
        graph.commit(transaction(change))
        after = _values(graph, program)
        may_run |= {name for name, reads in before.items() if any(after[read] != was for read, was in reads.items())}
        with graph.tracing() as ran:
            answers(graph, program, LAYERS - 1)
        assert len(ran) == len(set(ran))
        assert known & set(ran) <= may_run
        known |= set(ran)
        may_run -= set(ran)


def _name(program: Program, layer: int, place: int) -> str:
    return f"query({program}, {layer}, {place})"


def _values(graph: Graph, program: Program) -> dict[str, Any]:
    """What everything that can be read is now, read in a fork so that nothing is memoised here."""
    fork = graph.fork()
    found: dict[str, Any] = {f"input {i}": fork.input(ref(i)) for i in range(INPUTS)}
    members = [(i, fork.input(ref(i))) for i in range(INPUTS) if fork.input(ref(i)) is not None]
    found |= {f"group {i}": [each for each in members if i == 2 or each[1] % 2 == i] for i in range(3)}
    for layer in range(LAYERS):
        for place, answer in enumerate(answers(fork, program, layer)):
            found[_name(program, layer, place)] = answer
    return found


def _reads(graph: Graph, program: Program) -> dict[str, dict[str, Any]]:
    """Of every query, what it could have read, with the values: a superset of its dependencies."""
    values = _values(graph, program)
    found: dict[str, dict[str, Any]] = {}
    for layer, row in enumerate(program.layers):
        for place, rule in enumerate(row):
            names = [f"input {i}" for i in rule.inputs] + [f"group {i}" for i in rule.groups]
            if layer:
                names += [_name(program, layer - 1, i) for i in rule.lower]
                names += [_name(program, layer - 1, rule.if_odd)] if rule.if_odd is not None else []
            found[_name(program, layer, place)] = {name: values[name] for name in names}
    return found


@given(programs, st.lists(st.tuples(changes, st.integers(0, 3)), max_size=10))
@settings(deadline=None, max_examples=60)
def test_a_drain_cut_short_by_commits_loses_nothing(
    program: Program, history: list[tuple[dict[int, int | None], int]]
) -> None:
    """Whoever listens to `drain` alone ends with the same answers as whoever asks at the end."""
    graph = Graph()
    watches = {place: graph.watch(query, program, LAYERS - 1, place) for place in range(WIDTH)}
    places_of = {id(watch): place for place, watch in watches.items()}
    told = answers(graph, program, LAYERS - 1)
    for change, steps in history:
        graph.commit(transaction(change))
        for _, watch in zip(range(steps), graph.drain(), strict=False):
            place = places_of[id(watch)]
            told[place] = answers(graph, program, LAYERS - 1)[place]
    for watch in graph.drain():
        place = places_of[id(watch)]
        told[place] = answers(graph, program, LAYERS - 1)[place]
    assert graph.idle
    assert told == answers(graph.fork(), program, LAYERS - 1)


@given(programs, st.lists(changes, max_size=6), st.sets(st.integers(0, WIDTH - 1)))
@settings(deadline=None, max_examples=40)
def test_a_sweep_forgets_only_what_nobody_watches(
    program: Program, history: list[dict[int, int | None]], watched: set[int]
) -> None:
    graph = Graph()
    watches = [graph.watch(query, program, LAYERS - 1, place) for place in sorted(watched)]
    answers(graph, program, LAYERS - 1)
    for change in history:
        graph.commit(transaction(change))
        graph.sweep()
        list(graph.drain())
        with graph.tracing() as ran:
            for watch in watches:
                with contextlib.suppress(BrokenError):
                    watch.value()
        assert ran == []
        assert answers(graph, program, LAYERS - 1) == answers(graph.fork(), program, LAYERS - 1)
    for watch in watches:
        watch.close()
    graph.sweep()
    assert len(graph) == 0


# -- by hand ------------------------------------------------------------------------------------------------------


def parity(q: Q, i: int) -> int:
    return (q.read(ref(i)) or 0) % 2


def report(q: Q, i: int) -> str:
    return f"parity {q(parity, i)}"


def test_an_equal_answer_stops_the_wave() -> None:
    graph = Graph()
    graph.commit(Transaction(put=[(ref(0), 2)]))
    watch = graph.watch(report, 0)
    graph.commit(Transaction(put=[(ref(0), 4)]))
    with graph.tracing() as ran:
        assert list(graph.drain()) == []
    assert ran == ["parity(0)"]
    graph.commit(Transaction(put=[(ref(0), 5)]))
    assert list(graph.drain()) == [watch]
    assert watch.value() == "parity 1"


def test_an_equal_input_is_no_change() -> None:
    graph = Graph()
    graph.commit(Transaction(put=[(ref(0), 2)]))
    graph.watch(report, 0)
    graph.commit(Transaction(put=[(ref(0), 2)]))
    assert graph.idle


def test_an_absent_input_is_read() -> None:
    graph = Graph()
    watch = graph.watch(parity, 7)
    graph.commit(Transaction(put=[(ref(7), 3)]))
    assert list(graph.drain()) == [watch]
    graph.commit(Transaction(delete=[ref(7)]))
    assert list(graph.drain()) == [watch]
    assert watch.value() == 0


def ring(q: Q, i: int) -> int:
    return q(ring, (i + 1) % 3) + 1


def test_a_cycle_is_named_and_the_graph_lives_on() -> None:
    graph = Graph()
    with pytest.raises(CycleError, match=r"ring\(0\) -> ring\(1\) -> ring\(2\) -> ring\(0\)"):
        graph.pull(ring, 0)
    with pytest.raises(CycleError):
        graph.pull(ring, 1)
    graph.commit(Transaction(put=[(ref(0), 1)]))
    assert graph.pull(parity, 0) == 1


def cyclic_if_odd(q: Q, i: int) -> int:
    return q(cyclic_if_odd, i) if q(parity, i) else 0


def test_a_cycle_that_goes_away_is_gone() -> None:
    graph = Graph()
    graph.commit(Transaction(put=[(ref(0), 1)]))
    watch = graph.watch(cyclic_if_odd, 0)
    with pytest.raises(CycleError):
        watch.value()
    graph.commit(Transaction(put=[(ref(0), 2)]))
    list(graph.drain())
    assert watch.value() == 0


def fails_if_odd(q: Q, i: int) -> int:
    if q(parity, i):
        raise BrokenError(i)
    return i


def outer(q: Q, i: int) -> int:
    try:
        return q(fails_if_odd, i)
    except BrokenError:
        return -1


def test_an_error_is_an_answer_and_goes_away_with_its_cause() -> None:
    graph = Graph()
    graph.commit(Transaction(put=[(ref(0), 1)]))
    failing, handling = graph.watch(fails_if_odd, 0), graph.watch(outer, 0)
    with pytest.raises(BrokenError):
        failing.value()
    assert handling.value() == -1
    graph.commit(Transaction(put=[(ref(0), 3)]))
    assert list(graph.drain()) == []
    graph.commit(Transaction(put=[(ref(0), 2)]))
    assert set(graph.drain()) == {failing, handling}
    assert (failing.value(), handling.value()) == (0, 0)


def committing(q: Q, graph: Graph) -> None:
    graph.commit(Transaction())


def test_a_query_cannot_commit() -> None:
    graph = Graph()
    with pytest.raises(RuntimeError, match="pure"):
        graph.pull(committing, graph)


def test_watches_of_one_query_are_one_until_the_last_closes() -> None:
    graph = Graph()
    first, second = graph.watch(parity, 0), graph.watch(parity, 0)
    assert first is second
    first.close()
    graph.commit(Transaction(put=[(ref(0), 1)]))
    assert list(graph.drain()) == [second]
    second.close()
    graph.commit(Transaction(put=[(ref(0), 2)]))
    assert graph.idle


def test_why_leads_to_the_inputs() -> None:
    graph = Graph()
    graph.commit(Transaction(put=[(ref(0), 2)]))
    why = graph.why(report, 0)
    assert why.name == "report(0)"
    assert [each.name for each in why.reads] == ["parity(0)"]
    assert [each.name for each in why.reads[0].reads] == [str(ref(0))]
