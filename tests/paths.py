"""Where the tests find things: the repository, and the folder of schemas and samples beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def shared(relative: str) -> Path:
    """A path in the shared folder. Without that folder the test is skipped; under CI it fails."""
    path = SHARED / relative
    if not path.exists():
        reason = f"{path} is not there"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
