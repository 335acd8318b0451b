"""Who owns whom: objects by uid, and what refers to each uid as its owner. The writer's, kept with its rows."""

from __future__ import annotations

import msgspec

from lateen.apiserver.rows import Row
from lateen.lib.ids import Ref


class _Uid(msgspec.Struct):
    uid: str = ""


class Owners:
    """An index over rows."""

    def __init__(self) -> None:
        self._refs: dict[str, Ref] = {}
        self._dependents: dict[str, dict[Ref, None]] = {}

    def ref(self, uid: str) -> Ref | None:
        """The object with that uid."""
        return self._refs.get(uid)

    def dependents(self, uid: str) -> list[Ref]:
        """The objects that have it among their owners, oldest first."""
        return list(self._dependents.get(uid, ()))

    def change(self, before: Row | None, after: Row | None) -> None:
        """One object before and after a change."""
        if before is not None and after is not None and before.metadata is after.metadata:
            return
        if before is not None:
            self._refs.pop(_uid(before), None)
            for owner in before.owners:
                there = self._dependents.get(owner, {})
                there.pop(before.ref, None)
                if not there:
                    self._dependents.pop(owner, None)
        if after is not None:
            self.add(after)

    def add(self, row: Row) -> None:
        """One more object."""
        self._refs[_uid(row)] = row.ref
        for owner in row.owners:
            self._dependents.setdefault(owner, {})[row.ref] = None


def _uid(row: Row) -> str:
    return msgspec.json.decode(row.metadata, type=_Uid).uid
