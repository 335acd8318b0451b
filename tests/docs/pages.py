"""Documentation that is run: the YAML of a page is applied, its expectations are checked.

A page holds fences ` ```yaml apply ` with configuration and ` ```yaml expect ` with a list of expectations
(`tests/envoy/expectations.py`). ` ```yaml lab ` is configuration for whole proxies (`tests/lab`) instead
of route tables alone. A configuration replaces the one before it on the page; `also` adds to it, and an object replaces
one of the same name. ` ```yaml refused ` is a document that
is not taken, and ` ```yaml findings ` what is said about the configuration or document before it: `CODE LINE:COLUMN
PATH: MESSAGE` for what is wrong with a document by itself, `CODE KIND NAMESPACE/NAME PATH: MESSAGE` for what does not
fit together, each from its beginning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

Kind = Literal["apply", "lab", "expect", "findings", "refused"]
_FENCE = re.compile(r"^```yaml (apply|lab|expect|findings|refused)( also)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One fence of a page; `line` is where it begins."""

    kind: Kind
    text: str
    line: int


def steps(page: Path) -> list[Step]:
    """The fences of a page in order."""
    text = page.read_text()
    made: list[Step] = []
    for found in _FENCE.finditer(text):
        kind, own = cast("Kind", found[1]), found[3]
        if found[2]:
            before = next(each for each in reversed(made) if each.kind == kind)
            own = f"{before.text}---\n{own}"
        made.append(Step(kind, own, text[: found.start()].count("\n") + 1))
    return made
