"""The field coverage report: each field of routing and security with the test that shows it, or its finding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.coverage.cases import cases, refusals
from tests.coverage.fields import KINDS, fields

REPORT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "field-coverage.md"
HEAD = """\
# Field coverage

Every field of routing and security, and every value where the schema lists values. A field is covered by a test in
which two documents differ in that field alone and a real Envoy behaves differently (`tests/coverage/test_fields.py`,
by the name of the case), or by the finding that says that it has no effect. `tests/coverage/test_report.py` writes
this page and fails when a field is neither.
"""


def covered() -> dict[tuple[str, str], str]:
    """What covers each field: the name of a case, or the code of a finding."""
    found: dict[tuple[str, str], str] = {}
    for each in cases():
        name = f"`{each.id}`" + (" (long)" if each.long else "")
        for field in each.covers():
            found.setdefault(field, name)
    for each in refusals():
        for field in each.covers():
            found.setdefault(field, f"refused: {each.code}")
    return found


def open_fields() -> list[tuple[str, str]]:
    """The fields that nothing covers."""
    known = covered()
    return [each for each in fields() if each not in known]


def text() -> str:
    """The page."""
    known = covered()
    parts = [HEAD]
    counts = Counter(kind for kind, _ in fields())
    refused = Counter(kind for kind, path in fields() if known.get((kind, path), "").startswith("refused"))
    shown = Counter(each for each in fields() if each in known)
    rows = [
        f"| {kind} | {counts[kind]} | {sum(each[0] == kind for each in shown) - refused[kind]} | {refused[kind]} |"
        for kind in KINDS
    ]
    parts.append("\n".join(["| kind | fields and values | shown by traffic | refused |", "|---|---|---|---|", *rows]))
    for kind in KINDS:
        table = [f"| `{path}` | {known.get((kind, path), '**open**')} |" for own, path in fields() if own == kind]
        parts.append("\n".join([f"## {kind}\n", "| field | shown by |", "|---|---|", *table]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
