"""Every routing document of the samples does what its comments and Istio's documentation say, with traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.samples.cases import CASES
from tests.samples.stage import Stage, world

DISTINCT = list({id(case): file for file, case in reversed(CASES.items())}.values())[::-1]
"""One file of each case; a few cases show two files at once."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(world=world()) as made:
        yield made


@pytest.mark.parametrize("file", DISTINCT, ids=lambda file: Path(file).stem)
def test_does_what_it_says(file: str, lab: Lab) -> None:
    stage = Stage(lab)
    stage.client()
    stage.gateway()
    CASES[file](stage)
