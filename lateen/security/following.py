"""Sources that are fetched and looked at again for as long as they are wanted: a task each, and how long a failed one
waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable
from random import uniform
from typing import Final, Generic, TypeVar

BACKOFF_S: Final = (1.0, 300.0)
"""The shortest and the longest time between two tries of a source that fails."""

S = TypeVar("S", bound=Hashable)


class Following(Generic[S]):
    """Runs `follow` once for every wanted source; `forget` is told of each that is wanted no longer."""

    def __init__(self, follow: Callable[[S], Coroutine[None, None, None]], forget: Callable[[S], None]) -> None:
        self._follow = follow
        self._forget = forget
        self._wanted: frozenset[S] = frozenset()
        self._changed = asyncio.Event()

    def want(self, sources: Iterable[S]) -> None:
        """Says which sources are needed from now on."""
        self._wanted = frozenset(sources)
        self._changed.set()

    async def run(self) -> None:
        """Works until cancelled."""
        tasks: dict[S, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for source in tasks.keys() - self._wanted:
                    tasks.pop(source).cancel()
                    self._forget(source)
                for source in self._wanted - tasks.keys():
                    tasks[source] = group.create_task(self._follow(source))
                await self._changed.wait()
                self._changed.clear()


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures in a row, with some jitter."""
    shortest, longest = BACKOFF_S
    return min(longest, shortest * 2 ** min(failures - 1, 30)) * uniform(0.75, 1.25)  # noqa: S311 (jitter)
