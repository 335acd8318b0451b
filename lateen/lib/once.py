"""Saying something once: a bounded memory of what was said, for logs about callers that ask again and again."""

from __future__ import annotations

from collections.abc import Hashable


class Once:
    """Remembers the last `limit` different things."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._said: dict[Hashable, None] = {}

    def is_new(self, *what: Hashable) -> bool:
        """True the first time, and again after many other things."""
        new = what not in self._said
        self._said.pop(what, None)
        self._said[what] = None
        if len(self._said) > self._limit:
            del self._said[next(iter(self._said))]
        return new
