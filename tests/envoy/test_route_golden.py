"""Every golden route table is accepted by the real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.envoy.harness import ROUTE, Validator
from tests.golden.test_routes import CASES, tables


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_accepted(case: Path, validator: Validator) -> None:
    found = tables(case)
    assert found
    by_kind = {
        kind: [table for name, table in found.items() if name.startswith(kind)] for kind in ("sidecar", "router")
    }
    for made in by_kind.values():
        assert validator.accepts([(ROUTE, each) for each in made]) == []
