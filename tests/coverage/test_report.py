"""The report of covered fields is complete and up to date."""

from __future__ import annotations

import os

from tests.coverage.report import REPORT, open_fields, text


def test_no_field_is_in_a_third_state() -> None:
    assert open_fields() == []


def test_report_is_up_to_date() -> None:
    """`LATEEN_WRITE_REPORTS=1` writes it anew."""
    if os.environ.get("LATEEN_WRITE_REPORTS"):
        REPORT.write_text(text())
    assert REPORT.read_text() == text()
