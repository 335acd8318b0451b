"""Field management: who set which field last, and server-side apply, which rests on it.

Every write leaves an entry with its manager: an apply owns what it says, an update what it changed. An apply that
would change what somebody else owns is a conflict unless it is forced; what an apply no longer says, and nobody else
owns, goes.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lateen.api.codec import drop_nulls
from lateen.api.struct import Json, map_at
from lateen.apiserver import fields
from lateen.apiserver.errors import FieldConflict, FieldConflictError, InvalidError
from lateen.apiserver.fields import Fields
from lateen.apiserver.rows import Row

_METADATA: Final = ("annotations", "labels", "finalizers", "ownerReferences")
"""What of the metadata has owners; the rest is the server's, or the object's name."""


class Writer(msgspec.Struct, frozen=True):
    """Who writes, as which version, at which part of the object, when."""

    manager: str
    api_version: str
    subresource: str
    now: str


class Entry(msgspec.Struct, frozen=True, rename={"fields_v1": "fieldsV1", "api_version": "apiVersion"}):
    """One manager's fields."""

    manager: str = ""
    operation: str = "Update"
    api_version: str = ""
    time: str | None = None
    fields_v1: Mapping[str, Any] = {}
    subresource: str = ""

    @property
    def fields(self) -> Fields:
        return fields.from_json(self.fields_v1)

    def document(self) -> Json:
        """The entry as the API shows it."""
        said: Json = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            said["time"] = self.time
        said |= {"fieldsType": "FieldsV1", "fieldsV1": self.fields_v1}
        if self.subresource:
            said["subresource"] = self.subresource
        return said


def read(entries: Sequence[Json]) -> list[Entry]:
    """Entries of a document; those that say nothing are left out."""
    return [each for each in msgspec.convert(entries, list[Entry]) if each.fields_v1]


def managed_part(document: Json) -> Json:
    """The part of a document that has owners."""
    part = {name: each for name, each in document.items() if name not in ("apiVersion", "kind", "metadata")}
    metadata: Json = map_at(document, "metadata")
    own = {name: metadata[name] for name in _METADATA if metadata.get(name)}
    return {**part, "metadata": own} if own else part


def updated(entries: Sequence[Entry], before: Json, after: Json, schema: Json, by: Writer) -> list[Entry]:
    """The entries after an update: the manager owns what changed, the others lose it. `before` is empty at first."""
    found = fields.difference(managed_part(before), managed_part(after), schema)
    found.changed.discard(())
    if not found.changed and not found.removed:
        return list(entries)
    own: Entry | None = None
    others: list[Entry] = []
    touched = found.changed | found.removed
    for each in entries:
        same = each.manager == by.manager and each.operation == "Update" and each.subresource == by.subresource
        if same and each.api_version == by.api_version:
            own = each
            continue
        theirs = each.fields
        if not theirs & touched:
            others.append(each)
        elif left := theirs - touched:
            others.append(msgspec.structs.replace(each, fields_v1=fields.to_json(left)))
    had: Fields = own.fields if own is not None else set()
    mine = (had | found.changed) - found.removed
    if own is not None and mine == had:
        others.append(msgspec.structs.replace(own, time=by.now))
    elif mine:
        others.append(_entry(by, "Update", mine))
    return others


def applied(
    entries: Sequence[Entry], live: Json, config: Json, schema: Json, by: Writer, *, force: bool
) -> tuple[Json, list[Entry]]:
    """A document with an apply's configuration merged in, and the entries then. FieldConflictError when others own
    what would change."""
    config = drop_nulls(config)
    part, wanted = managed_part(live), managed_part(config)
    fresh = fields.fields_of(wanted, schema)
    fresh.discard(())
    mine = _mine(entries, by)
    others = [each for each in entries if each is not mine]
    merged = fields.merge(part, wanted, schema)
    theirs: Fields = set()
    for each in others:
        theirs |= each.fields
    if mine is not None:
        merged = fields.without(merged, mine.fields - fresh - theirs, fresh | theirs, schema)
    found = fields.difference(part, merged, schema)
    clashes = [
        FieldConflict(path=fields.shown(path), manager=_words(each))
        for each in others
        for path in sorted(each.fields & found.changed & fresh)
    ]
    if clashes and not force:
        raise FieldConflictError(clashes)
    kept: list[Entry] = []
    for each in others:
        left = each.fields - (found.changed & fresh) - found.removed if clashes or found.removed else each.fields
        if left:
            kept.append(msgspec.structs.replace(each, fields_v1=fields.to_json(left)))
    unchanged = mine is not None and not found.changed and not found.removed and mine.fields == fresh
    kept.append(mine if unchanged and mine is not None else _entry(by, "Apply", fresh))
    metadata: Json = {name: each for name, each in map_at(live, "metadata").items() if name not in _METADATA}
    document = {**merged, "metadata": {**map_at(config, "metadata"), **metadata, **merged.get("metadata", {})}}
    for name in _METADATA:
        if name not in merged.get("metadata", {}):
            document["metadata"].pop(name, None)
    return {"apiVersion": config["apiVersion"], "kind": config["kind"], **document}, kept


def encoded(entries: list[Entry]) -> bytes:
    """Entries as rows keep them."""
    return msgspec.json.encode([each.document() for each in entries]) if entries else b""


def of_row(row: Row) -> list[Entry]:
    """The entries of an object."""
    return read(msgspec.json.decode(row.managed)) if row.managed else []


def given(metadata: Json, before: Json, row: Row) -> list[Entry]:
    """The entries that a client put into the document, when it changed them; else those that are there."""
    said = metadata.get("managedFields")
    if said is None or said == before["metadata"].get("managedFields"):
        return of_row(row)
    try:
        return read(said)
    except (msgspec.ValidationError, AttributeError) as error:
        raise InvalidError(f"metadata.managedFields: {error}", remedy="leave the field as it was") from None


def _mine(entries: Sequence[Entry], by: Writer) -> Entry | None:
    return next(
        (
            each
            for each in entries
            if (each.manager, each.operation, each.subresource) == (by.manager, "Apply", by.subresource)
        ),
        None,
    )


def _entry(by: Writer, operation: str, owned: Fields) -> Entry:
    return Entry(by.manager, operation, by.api_version, by.now, fields.to_json(owned), by.subresource)


def _words(entry: Entry) -> str:
    part = f" with subresource {entry.subresource}" if entry.subresource else ""
    how = f" using {entry.api_version}" if entry.operation == "Update" else ""
    return f'"{entry.manager}"{part}{how}'
