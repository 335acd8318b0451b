"""What can be asked of the store, each as a value that runs inside one transaction.

An operation sees the objects as they are at that moment, so checks and changes are one step: compare-and-set by
`metadata.resourceVersion` or `metadata.uid`, generation when the body changes. It raises an ApiError, and then
nothing of its transaction happened. How objects end is in `deletion`.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from lateen.api.struct import Json
from lateen.apiserver.deletion import end, remove
from lateen.apiserver.errors import ConflictError, ExistsError, InvalidError, NotFoundError
from lateen.apiserver.jobs import with_selector
from lateen.apiserver.rows import Row, Version, facts_of
from lateen.apiserver.transactions import Transaction, check_preconditions, existing, metadata_of, ref_of
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref

CHECK = "check"
"""The origin of what an object's own checks say."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "generation",
    "managedFields",
    "selfLink",
)

_SAID_OF_VERSION = ("proxies", "traffic")
_JOB = ("batch", "Job")
_FIRST_STATUS: Mapping[tuple[str, str], Json] = {("", "Namespace"): {"phase": "Active"}}


class Operation(Protocol):
    """One step of a transaction; returns the object as it is then, or None when it is gone."""

    def run(self, tx: Transaction) -> Row | None: ...


class Create(msgspec.Struct, frozen=True):
    """A new object; `metadata.generateName` gets five letters when there is no name. `managed`, `source`: see `Row`;
    `checked`: what its checks say of it."""

    document: Json
    managed: bytes = b""
    source: bytes = b""
    checked: tuple[Finding, ...] = ()

    def run(self, tx: Transaction) -> Row | None:
        document = self.document
        metadata: Json = document.get("metadata") or {}
        prefix = metadata.get("generateName")
        while prefix and not metadata.get("name"):
            name = prefix + "".join(secrets.choice(_LETTERS) for _ in range(5))
            named = {**document, "metadata": {**metadata, "name": name}}
            if tx.row(ref_of(named)) is None:
                document, prefix = named, None
        ref = ref_of(document)
        if tx.row(ref) is not None:
            raise ExistsError(f"{ref.short} exists already", remedy="replace it, or use another name")
        said = {"managed": self.managed, "source": self.source, "findings": _with_checked(None, self.checked)}
        return _create(tx, ref, document, said)


class Replace(msgspec.Struct, frozen=True):
    """The object as a whole. With resourceVersion or uid in its metadata: only that very version or object.
    `managed` None leaves the managers of its fields as they are; `with_status`: the status is part of the object.
    `source` is where it was written; without one, what was known is void once the body changes. `checked`: see
    Create."""

    document: Json
    managed: bytes | None = None
    with_status: bool = False
    source: bytes = b""
    checked: tuple[Finding, ...] = ()

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, ref_of(self.document))
        check_preconditions(row, self.document)
        said: dict[str, Any] = {} if self.managed is None else {"managed": self.managed}
        said["findings"] = _with_checked(row.findings, self.checked)
        if self.source:
            said["source"] = self.source
        elif row.source and not _same(msgspec.json.encode(_body(self.document)), row.body):
            said["source"] = b""
        if self.with_status:
            said["status"] = msgspec.json.encode(self.document.get("status") or {})
        return _update(tx, row, self.document, said)


class Put(msgspec.Struct, frozen=True):
    """The object as it is given, whether or not it is there. `source`: see `Row`."""

    document: Json
    source: bytes = b""

    def run(self, tx: Transaction) -> Row | None:
        there = tx.row(ref_of(self.document)) is not None
        operation = Replace(self.document, source=self.source) if there else Create(self.document, source=self.source)
        return operation.run(tx)


class PutStatus(msgspec.Struct, frozen=True):
    """The status of an object as a whole: a new revision, no new generation. Compare-and-set like Replace."""

    document: Json
    managed: bytes | None = None

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, ref_of(self.document))
        check_preconditions(row, self.document)
        given: Json = self.document.get("status") or {}
        status = {key: value for key, value in given.items() if key != "findings"}
        encoded = msgspec.json.encode(status)
        if _same(encoded, row.status):
            return row
        managed = row.managed if self.managed is None else self.managed
        return tx.put(msgspec.structs.replace(row, status=encoded, managed=managed))


class Restore(msgspec.Struct, frozen=True):
    """An object as an earlier version of it was, or (None) its absence; a change like any other.

    `generation` is what the object has now, 0 when there is none: ConflictError when that has changed meanwhile. An
    object that comes back has its age again, since age decides who wins where objects disagree.
    """

    ref: Ref
    generation: int
    version: Version | None
    findings: tuple[Finding, ...] = ()

    def run(self, tx: Transaction) -> Row | None:
        row = tx.row(self.ref)
        if (row.generation if row is not None else 0) != self.generation:
            raise ConflictError(f"{self.ref.short} has changed meanwhile", remedy="look at its history again")
        if self.version is None:
            return end(tx, row) if row is not None else None
        document = self.version.document()
        findings = _with_checked(row.findings if row is not None else None, self.findings)
        said: dict[str, Any] = {"source": b"", "findings": findings}
        if row is not None:
            return _update(tx, row, document, said)
        return _create(tx, self.ref, document, said, document["metadata"])


class SetConditions(msgspec.Struct, frozen=True):
    """Conditions of an object by their types; others, and the rest of its status, stay. `lastTransitionTime` moves
    when a condition's `status` does. Nothing happens when the object is gone or of another generation by now."""

    ref: Ref
    generation: int
    conditions: tuple[Json, ...]

    def run(self, tx: Transaction) -> Row | None:
        row = tx.row(self.ref)
        if row is None or row.generation != self.generation:
            return row
        status: Json = msgspec.json.decode(row.status)
        there: list[Json] = status.get("conditions") or []
        before = {each.get("type"): each for each in there}
        after = dict(before)
        for each in self.conditions:
            old = before.get(each["type"])
            same = old is not None and old.get("status") == each["status"]
            after[each["type"]] = {**each, "lastTransitionTime": old["lastTransitionTime"] if same and old else tx.now}
        if after == before:
            return row
        status["conditions"] = list(after.values())
        return tx.put(msgspec.structs.replace(row, status=msgspec.json.encode(status)))


class SetFindings(msgspec.Struct, frozen=True):
    """What one origin (`check`, `analysis`, `node`, `proxies`) has to say about an object; replaces what it said."""

    ref: Ref
    origin: str
    findings: tuple[Finding, ...]

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        encoded = msgspec.json.encode(self.findings)
        if row.findings.get(self.origin, b"[]") == encoded:
            return row
        findings = {origin: part for origin, part in row.findings.items() if origin != self.origin}
        if self.findings:
            findings[self.origin] = encoded
        return tx.put(msgspec.structs.replace(row, findings=findings))


def _with_checked(findings: Mapping[str, bytes] | None, checked: tuple[Finding, ...]) -> dict[str, bytes]:
    """An object's findings by origin, with these of its checks."""
    others = {origin: part for origin, part in (findings or {}).items() if origin != CHECK}
    return {CHECK: msgspec.json.encode(checked), **others} if checked else others


def _create(tx: Transaction, ref: Ref, document: Json, said: dict[str, Any], before: Json | None = None) -> Row:
    if ref.namespace:
        namespace = tx.row(Ref("", "Namespace", "", ref.namespace))
        if namespace is None:
            raise NotFoundError(
                f"{ref.short}: there is no namespace {ref.namespace}",
                remedy=f"create the Namespace {ref.namespace} first, or with it",
            )
        if namespace.deleting:
            raise InvalidError(
                f"{ref.short}: the namespace {ref.namespace} is being deleted", remedy="wait for its end"
            )
    given: Json = document.get("metadata") or {}
    metadata = {key: value for key, value in given.items() if key not in _OWNED}
    created = (before or {}).get("creationTimestamp", tx.now)
    metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": created}
    if ref.collection == _JOB:
        document = with_selector(document, metadata["uid"], ref.name)
    facts = facts_of(metadata)
    return tx.put(
        Row(
            ref=ref,
            api_version=document["apiVersion"],
            metadata=msgspec.json.encode(metadata),
            body=msgspec.json.encode(_body(document)),
            status=msgspec.json.encode(document.get("status") or _FIRST_STATUS.get(ref.collection, {})),
            revision=0,
            generation=1,
            author=tx.author,
            labels=facts.labels,
            owners=facts.owners,
            **said,
        )
    )


def _update(tx: Transaction, row: Row, document: Json, said: dict[str, Any]) -> Row | None:
    there = metadata_of(row)
    given: Json = document.get("metadata") or {}
    metadata = {key: value for key, value in given.items() if key not in _OWNED}
    metadata |= {key: there[key] for key in _OWNED if key in there}
    encoded, body = msgspec.json.encode(metadata), msgspec.json.encode(_body(document))
    same_body = _same(body, row.body)
    same = same_body and _same(encoded, row.metadata) and document["apiVersion"] == row.api_version
    last_finalizer = bool(there.get("finalizers")) and not metadata.get("finalizers")
    if row.deleting and last_finalizer and not there.get("deletionGracePeriodSeconds"):
        remove(tx, row)
        return None
    if same and all(getattr(row, name) == value for name, value in said.items()):
        return row
    facts = facts_of(metadata)
    if not same:  # what proxies said was about another version
        findings = said.get("findings", row.findings)
        said["findings"] = {origin: part for origin, part in findings.items() if origin not in _SAID_OF_VERSION}
    return tx.put(
        msgspec.structs.replace(
            row,
            api_version=document["apiVersion"],
            metadata=row.metadata if same else encoded,
            body=row.body if same_body else body,
            generation=row.generation if same_body else row.generation + 1,
            author=row.author if same else tx.author,
            labels=facts.labels,
            owners=facts.owners,
            held=row.held if same else None,
            **said,
        )
    )


def _body(document: Json) -> Json:
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def _same(one: bytes, other: bytes) -> bool:
    return one == other or (
        len(one) == len(other) and msgspec.json.decode(one) == msgspec.json.decode(other)  # another order of keys
    )
