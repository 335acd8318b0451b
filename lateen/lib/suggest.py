"""The word somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, or None when none is like it. Case and separators count little."""
    by_folded: dict[str, str] = {}
    for each in sorted(known):
        by_folded.setdefault(_folded(each), each)
    found = difflib.get_close_matches(_folded(word[:100]), by_folded, n=1, cutoff=0.7)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, at_most: int = 12) -> str:
    """A remedy: the nearest word, or all known ones when they are few, or nothing."""
    every = sorted(known)
    found = nearest(word, every)
    if found is not None:
        return f'did you mean "{found}"?'
    return f"known are {', '.join(every)}" if 0 < len(every) <= at_most else ""


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
