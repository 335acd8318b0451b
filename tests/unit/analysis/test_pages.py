"""The pages of the codes are up to date, and every code that is said has one."""

from __future__ import annotations

import re

from lateen.analysis.pages import pages
from tests.paths import REPOSITORY


def test_pages_are_up_to_date() -> None:
    folder = REPOSITORY / "docs" / "findings"
    written = {path.name: path.read_text() for path in folder.glob("*.md")}
    assert written == pages(), "run: python scripts/finding_pages.py"


def test_every_code_has_a_page() -> None:
    said: set[str] = set()
    for path in (REPOSITORY / "lateen").rglob("*.py"):
        said.update(re.findall(r'"((?:IST|LTN)[0-9]{4})"', path.read_text()))
    assert said == {name.removesuffix(".md") for name in pages()} - {"README"}
