"""From the store to the graph: every object that is accepted, typed, as soon as it is committed.

The graph sees an object's accepted parts only, and its status only where the type reads it, so that a status write
costs nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog

from lateen.api import kinds
from lateen.api.codec import DecodeError, decode
from lateen.api.struct import Object
from lateen.apiserver.rows import Change, Row
from lateen.engine import Transaction
from lateen.lib.ids import Ref

_log = structlog.stdlib.get_logger("lateen.inputs")


def typed(row: Row) -> Object | None:
    """The object as queries see it; None when no version of it is good, or this lateen cannot read it."""
    document = row.accepted()
    if document is None:
        return None
    try:
        return decode(msgspec.json.decode(document))
    except DecodeError as error:
        _log.error("stored object not understood", object=str(row.ref), error=str(error))
        return None


def initial(rows: Iterable[Row]) -> Transaction:
    """Everything that is there."""
    objects = [(row.ref, typed(row)) for row in rows]
    return Transaction(put=[(ref, each) for ref, each in objects if each is not None])


class Inputs:
    """A subscriber of the store that submits what changes for queries."""

    def __init__(self, submit: Callable[[Transaction], object]) -> None:
        self._submit = submit

    def __call__(self, changes: Sequence[Change]) -> None:
        put: list[tuple[Ref, Object]] = []
        delete: list[Ref] = []
        for change in changes:
            if not _matters(change):
                continue
            each = typed(change.after) if change.after is not None else None
            if each is None:
                delete.append(change.row.ref)
            else:
                put.append((each.ref, each))
        if put or delete:
            self._submit(Transaction(put=put, delete=delete))


def _matters(change: Change) -> bool:
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    same = before.metadata == after.metadata and before.body == after.body and before.held == after.held
    if not same or before.api_version != after.api_version:
        return True
    kind = kinds.by_group(*after.ref.collection)
    return before.status != after.status and kind is not None and "status" in kind.type.__struct_fields__
