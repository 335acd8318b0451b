"""Documentation that is run: the YAML of a page is applied, its expectations are checked.

A page holds fences ` ```yaml apply ` with configuration and ` ```yaml expect ` with a list of expectations
(`tests/envoy/expectations.py`). ` ```yaml lab ` is configuration for whole proxies (`tests/lab`) instead
of route tables alone. A configuration replaces the one before it on the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

_FENCE = re.compile(r"^```yaml (apply|lab|expect)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One fence of a page; `line` is where it begins."""

    kind: Literal["apply", "lab", "expect"]
    text: str
    line: int


def steps(page: Path) -> list[Step]:
    """The fences of a page in order."""
    text = page.read_text()
    return [
        Step(cast("Literal['apply', 'lab', 'expect']", found[1]), found[2], text[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(text)
    ]
