"""What all tests share."""

from __future__ import annotations

import asyncio

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
