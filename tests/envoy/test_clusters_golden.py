"""The real Envoy accepts every resource of every golden case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.envoy.harness import Validator
from tests.golden.golden import CASES, name_of, resources


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_accepted(case: Path, validator: Validator) -> None:
    assert validator.accepts((kind.type_url, each) for kind, each in resources(case)) == []
