"""Each reason of each condition, as people and programs read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lateen.daemon import conditions
from tests.golden.conditions import said

GOLDEN = Path(__file__).with_name("conditions.yaml")


def test_conditions_are_as_written(pytestconfig: pytest.Config) -> None:
    """`--update-golden` writes them anew; read the difference before you commit it."""
    text = yaml.safe_dump(said(), sort_keys=False, width=120)
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_no_reason_is_left_out() -> None:
    source = Path(conditions.__file__).read_text()
    known = {found[0] or found[1] for found in re.findall(r'"(?:True|False)",\s*"(\w+)"|no\("(\w+)"', source)}
    known |= {"RefusedByProxies", "Pending", "Shadowed", "FieldsLost"}  # chosen between
    shown = {line.split()[1] for each in said().values() for line in each.values()}
    assert shown >= known
    assert len(known) > 12
