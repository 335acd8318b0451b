"""What the node knows of the API's objects: a copy of each, kept by watching, and who wants to hear of changes.

What this process writes itself is taken over from the API's answer at once, so that a controller never acts twice
because its own first act hasn't come round yet. Events that are older than what is known are ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d

Listener = Callable[[Json | None, Json | None], None]
"""Told of one object before and after a change; None where there is none."""


class Cluster:
    """Objects by kind and key. Every method returns at once; listeners are called before `put` or `remove` return."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = tuple(kinds)
        self._objects: dict[str, dict[d.Key, Json]] = {kind: {} for kind in self.kinds}
        self._gone: dict[tuple[str, d.Key], int] = {}
        self._listeners: dict[str, list[Listener]] = {kind: [] for kind in self.kinds}

    def get(self, kind: str, key: d.Key) -> Json | None:
        """The object, None when there is none."""
        return self._objects[kind].get(key)

    def all(self, kind: str) -> list[Json]:
        """All objects of a kind, by namespace and name."""
        objects = self._objects[kind]
        return [objects[key] for key in sorted(objects)]

    def namespace(self, kind: str, namespace: str) -> list[Json]:
        """The objects of a kind in one namespace, by name."""
        return [each for each in self.all(kind) if d.namespace(each) == namespace]

    def keys(self, kind: str) -> set[d.Key]:
        """The keys of all objects of a kind."""
        return set(self._objects[kind])

    def listen(self, kind: str, listener: Listener) -> None:
        """Tell of every change of that kind; at once of what there is already."""
        self._listeners[kind].append(listener)
        for each in self.all(kind):
            listener(None, each)

    def put(self, document: Json) -> None:
        """An object as it is now, from an event or an answer."""
        kind, key, revision = document["kind"], d.key(document), _revision(document)
        before = self._objects[kind].get(key)
        if revision <= self._gone.get((kind, key), 0) or (before is not None and revision <= _revision(before)):
            return
        self._objects[kind][key] = document
        self._gone.pop((kind, key), None)
        for listener in self._listeners[kind]:
            listener(before, document)

    def remove(self, document: Json) -> None:
        """An object that is gone; its document is the last one, with the revision of its end."""
        kind, key, revision = document["kind"], d.key(document), _revision(document)
        before = self._objects[kind].get(key)
        if before is None or revision < _revision(before):
            return
        del self._objects[kind][key]
        self._gone[kind, key] = revision
        for listener in self._listeners[kind]:
            listener(before, None)

    def replace(self, kind: str, documents: Iterable[Json], revision: int) -> None:
        """The whole of one kind as it was at a revision; what is missing is gone, unless it is newer."""
        found = {d.key(each): each for each in documents}
        for key, each in list(self._objects[kind].items()):
            if key not in found and _revision(each) <= revision:
                self.remove(each)
        for each in found.values():
            self.put(each)


def _revision(document: Json) -> int:
    return int(document["metadata"].get("resourceVersion") or 0)


Item = TypeVar("Item", bound=Hashable)


class Queue(Generic[Item]):
    """Things to look at, each once however often it was added, in the order they were first added."""

    def __init__(self) -> None:
        self._items: dict[Item, None] = {}
        self._filled = asyncio.Event()
        self._timers: dict[Item, tuple[float, asyncio.TimerHandle]] = {}

    def add(self, item: Item) -> None:
        """Look at it soon."""
        self._items[item] = None
        self._filled.set()

    def add_later(self, item: Item, delay_s: float) -> None:
        """Look at it after that time, or sooner if that was asked for already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if item in self._timers:
            if self._timers[item][0] <= due:
                return
            self._timers[item][1].cancel()
        self._timers[item] = (due, loop.call_later(delay_s, self._due, item))

    async def take(self) -> Item:
        """The next one, as soon as there is one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item = next(iter(self._items))
        del self._items[item]
        return item

    def close(self) -> None:
        """Cancel what was to come later."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, item: Item) -> None:
        del self._timers[item]
        self.add(item)
