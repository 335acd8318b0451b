"""What operations on the store work with: the transaction they run in, and the conditions they are under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError, ConflictError, NotFoundError
from lateen.apiserver.rows import Mark, Row, Version
from lateen.lib.ids import Ref


class Transaction(Protocol):
    """What an operation works on."""

    @property
    def now(self) -> str: ...
    @property
    def author(self) -> str: ...
    def row(self, ref: Ref) -> Row | None: ...
    def rows(self) -> Iterable[Row]: ...
    def put(self, row: Row) -> Row:
        """Stores the row under a new revision and returns it with that."""
        ...

    def remove(self, row: Row) -> None: ...
    def owned_by(self, uid: str) -> list[Row]:
        """The objects that have that one among their owners."""
        ...

    def with_uid(self, uid: str) -> Row | None: ...
    def versions(self, ref: Ref) -> list[Version]:
        """The history of an object, newest first."""
        ...

    def mark(self, ref: Ref, revision: int, marks: tuple[Mark, ...]) -> None:
        """Says of a version that errors jumped after it."""
        ...

    def condemn(self, ref: Ref, revision: int, *, condemned: bool) -> None:
        """Marks a version as refused by proxies, or takes the mark away."""
        ...


def ref_of(document: Json) -> Ref:
    """The Ref of a document that has apiVersion, kind and a name. BadRequestError without one of them."""
    metadata: Json = document.get("metadata") or {}
    api_version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
    namespace = metadata.get("namespace") or ""
    if not all(isinstance(each, str) and each for each in (api_version, kind, name)) or not isinstance(namespace, str):
        raise BadRequestError("an object needs apiVersion, kind and metadata.name, each a text", remedy="add them")
    return Ref(str(api_version).rpartition("/")[0], str(kind), namespace, str(name))


def existing(tx: Transaction, ref: Ref) -> Row:
    row = tx.row(ref)
    if row is None:
        raise NotFoundError(f"{ref.short} does not exist", remedy=f"lateen get {ref.kind.lower()} -A shows what does")
    return row


def check_preconditions(row: Row, document: Json) -> None:
    metadata: Json = document.get("metadata") or {}
    wanted = metadata.get("resourceVersion", "")
    if wanted and wanted != str(row.revision):
        raise ConflictError(
            f"{row.ref.short} has changed: it is at revision {row.revision}, not {wanted}",
            remedy="read it again and repeat the change",
        )
    uid = metadata.get("uid", "")
    if uid and uid != metadata_of(row).get("uid"):
        raise ConflictError(f"{row.ref.short} is another object than that with uid {uid}", remedy="read it again")


def metadata_of(row: Row) -> Json:
    return msgspec.json.decode(row.metadata)
