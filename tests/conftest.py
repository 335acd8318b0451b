"""What all tests share."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Without this, asyncio makes the main thread an event loop when pytest-asyncio asks for the one before its own, and
# nobody closes it: an unclosed loop is a warning, and warnings are errors here.
asyncio.set_event_loop(None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing them")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True when golden files are to be written."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A new directory, gone after the test. In place of pytest's, whose paths grow with the number of runs on a
    machine and with the test's name, until they are too long for the Unix sockets in them."""
    made = Path(tempfile.mkdtemp(prefix="ltn-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)
