"""One Envoy for all pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.envoy.harness import short_directory
from tests.envoy.playground import Playground
from tests.lab.lab import Lab
from tests.lab.pages import LabPage


@pytest.fixture(scope="session")
def playground() -> Iterator[Playground]:
    """An Envoy with servers behind it, as the pages assume it."""
    directory = short_directory()
    made = Playground(directory)
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def lab_page() -> Iterator[LabPage]:
    """Whole proxies with servers behind them."""
    with Lab() as lab:
        yield LabPage(lab)
