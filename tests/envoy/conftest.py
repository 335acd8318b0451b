"""Fixtures on the real Envoy; `validator` is one Envoy for the whole run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lateen.lib.layout import Layout
from tests.envoy.harness import Validator, short_directory


@pytest.fixture(scope="session")
def validator() -> Iterator[Validator]:
    """Says what the real Envoy has against resources: `validator.accepts([(type_url, resource), ...])`."""
    made = Validator()
    yield made
    made.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for Unix sockets."""
    made = short_directory()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def layout(directory: Path) -> Layout:
    """The directories of a mesh."""
    made = Layout("test", directory / "state", directory / "run")
    for each in (made.state, made.run):
        each.mkdir(mode=0o700)
    return made
