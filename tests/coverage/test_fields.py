"""Each field does something: two documents that differ in it alone have other outcomes on the real Envoy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import yaml

from lateen.api.check import check_raw
from lateen.lib.findings import Level
from tests.coverage.case import REFUSED, Case, Refusal
from tests.coverage.cases import cases, refusals
from tests.coverage.cases.workload_group import seen
from tests.coverage.fields import Json, with_value
from tests.lab.lab import Lab, Refused, Station
from tests.lab.served import ServedStation

NOT_ASKED_FOR = ("ProxyConfig", "TrafficExtension", "WasmPlugin")
"""Kinds about proxies and listeners, which nobody asks for on demand."""
CASES = [
    *(pytest.param(Station, each, id=each.id, marks=[pytest.mark.long] if each.long else []) for each in cases()),
    *(
        pytest.param(
            ServedStation,
            each,
            id=f"on demand {each.id}",
            marks=[pytest.mark.long] if each.long or each.kind != "VirtualService" else [],
        )
        for each in cases()
        if each.kind not in NOT_ASKED_FOR
    ),
]
"""Each field with a proxy that gets everything, and with one that asks for what it needs."""
REFUSALS = [pytest.param(each, id=each.id) for each in refusals()]


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[[type[Station]], Lab]]:
    with ExitStack() as stack:
        made: dict[type[Station], Lab] = {}

        def lab(sidecar: type[Station]) -> Lab:
            if sidecar not in made:
                made[sidecar] = stack.enter_context(Lab(sidecar))
            return made[sidecar]

        yield lab


@pytest.mark.parametrize(("sidecar", "case"), CASES)
def test_field(labs: Callable[[type[Station]], Lab], sidecar: type[Station], case: Case) -> None:
    assert case.before != case.after
    lab = labs(sidecar)
    for document, outcome in ((case.document, case.before), (case.changed, case.after)):
        wrong = [each for each in check_raw(document) if each.level is Level.ERROR or each.code == "LTN0001"]
        assert not wrong, f"{document}: {wrong}"
        assert _outcome(lab, case, document) == outcome, document


def _outcome(lab: Lab, case: Case, document: Json) -> object:
    if case.look is not None:
        return case.look(document)
    try:
        lab.configure(case.beside, yaml.safe_dump(seen(document)))
    except Refused:
        return REFUSED
    return case.probe(lab)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusal(refusal: Refusal) -> None:
    """A field without effect is said to be one, and nothing else is wrong."""
    found = check_raw(with_value(refusal.document, refusal.place, refusal.value))
    place = refusal.place.partition("{")[0]
    about = [each for each in found if place.startswith(each.path) or each.path.startswith(place)]
    assert refusal.code in {each.code for each in about}, found
    assert not [each for each in found if each.level is Level.ERROR and each not in about], found
