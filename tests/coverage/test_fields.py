"""Each field does something: two documents that differ in it alone have other outcomes on the real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from lateen.api.check import check_raw
from lateen.lib.findings import Level
from tests.coverage.case import Case, Refusal
from tests.coverage.cases import cases, refusals
from tests.coverage.fields import with_value
from tests.lab.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def _rows() -> Iterator[object]:
    for each in cases():
        yield pytest.param(each, id=each.id, marks=[pytest.mark.long] if each.long else [])


@pytest.mark.parametrize("case", list(_rows()))
def test_field(lab: Lab, case: Case) -> None:
    for document, outcome in ((case.document, case.before), (case.changed, case.after)):
        wrong = [each for each in check_raw(document) if each.level is Level.ERROR or each.code == "LTN0001"]
        assert not wrong, f"{document}: {wrong}"
        lab.configure(case.beside, yaml.safe_dump(document))
        assert case.probe(lab) == outcome, document
    assert case.before != case.after


@pytest.mark.parametrize("refusal", [pytest.param(each, id=each.id) for each in refusals()])
def test_refusal(refusal: Refusal) -> None:
    """A field without effect is said to be one."""
    found = check_raw(with_value(refusal.document, refusal.place, refusal.value))
    assert refusal.code in {each.code for each in found if f"{each.path}".startswith(refusal.place.split("{")[0])}, (
        found
    )
