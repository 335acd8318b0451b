"""Every golden case gives the answer that is written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.golden import CASES, answer, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_golden(case: Path, update_golden: bool) -> None:
    written = case / "xds.yaml"
    given = answer(case)
    if update_golden:
        written.write_text(given)
    assert given == written.read_text()


def test_there_are_cases() -> None:
    assert CASES
