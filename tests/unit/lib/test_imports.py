"""What a process loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lateen.lib.imports import without


def test_a_library_is_hidden_only_inside() -> None:
    before = sys.modules["pytest"]
    with without("pytest"), pytest.raises(ImportError):
        __import__("pytest")
    assert sys.modules["pytest"] is before


@pytest.mark.parametrize("process", ["agent", "machine"])
def test_agents_load_nothing_for_a_terminal(process: str) -> None:
    code = f"import sys, lateen.daemon.{process}; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
