"""docs/reference/samples.md is true, and has every document of the samples."""

from __future__ import annotations

import os

from tests.paths import shared
from tests.samples.cases import CASES
from tests.samples.report import PAGE, report


def test_the_page_is_up_to_date() -> None:
    """`LATEEN_WRITE_REPORTS=1` writes it anew."""
    text = report(shared("samples"))
    if os.environ.get("LATEEN_WRITE_REPORTS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def test_every_case_is_about_a_file() -> None:
    root = shared("samples")
    assert [file for file in CASES if not (root / file).exists()] == []
