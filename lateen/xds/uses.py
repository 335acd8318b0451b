"""Which resources an object is in: the inverse of a resource's origins, kept up to date as resources change.

One entry per resource and Scope, however many proxies share them. `take` answers whose users may have changed since
it was last asked: that is all that has to be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from lateen.lib.ids import Ref

Entry = TypeVar("Entry")


class Uses(Generic[Entry]):
    """`tracked` says of which objects somebody will ask."""

    def __init__(self, tracked: Callable[[Ref], bool]) -> None:
        self._tracked = tracked
        self._entries: dict[Ref, dict[Entry, None]] = {}
        self._touched: set[Ref] = set()

    def of(self, ref: Ref) -> Collection[Entry]:
        """The resources made from an object."""
        return self._entries.get(ref, {})

    def touch(self, refs: Iterable[Ref]) -> None:
        """Somebody began or ceased to get a resource made from these."""
        self._touched.update(refs)

    def take(self) -> set[Ref]:
        """The objects whose users may have changed since the last time."""
        touched, self._touched = self._touched, set()
        return {ref for ref in touched if self._tracked(ref)}

    def put(self, entry: Entry, before: Mapping[Ref, Any], after: Mapping[Ref, Any]) -> None:
        """A resource is made from other objects than before."""
        if before.keys() == after.keys():
            return
        for ref in before.keys() - after.keys():
            self._drop(ref, entry)
        for ref in after.keys() - before.keys():
            if self._tracked(ref):
                self._entries.setdefault(ref, {})[entry] = None
        self._touched |= before.keys() ^ after.keys()

    def forget(self, entry: Entry, before: Mapping[Ref, Any]) -> None:
        """A resource that nobody gets any more."""
        self._touched |= before.keys()
        for ref in before:
            self._drop(ref, entry)

    def _drop(self, ref: Ref, entry: Entry) -> None:
        there = self._entries.get(ref)
        if there is not None:
            there.pop(entry, None)
            if not there:
                del self._entries[ref]
