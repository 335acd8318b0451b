"""What can be asked of the store, each as a value that runs inside one transaction.

An operation sees the objects as they are at that moment, so checks and changes are one step: compare-and-set by
`metadata.resourceVersion` or `metadata.uid`, generation when the body changes, finalizers, the grace a Pod is
given, a namespace that takes along what is in it. It raises an ApiError, and then nothing of its transaction
happened.
"""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError, ConflictError, ExistsError, InvalidError, NotFoundError
from lateen.apiserver.merge import three_way
from lateen.apiserver.rows import Held, Row, Version
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref

ALWAYS_THERE = ("default", "istio-system")
"""Namespaces that exist from the start and cannot be deleted."""

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
_DEFAULT_GRACE_S = 30


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
    def versions(self, ref: Ref) -> list[Version]:
        """The history of an object, newest first."""
        ...

    def condemn(self, ref: Ref, revision: int, *, condemned: bool) -> None:
        """Marks a version as refused by proxies, or takes the mark away."""
        ...


class Operation(Protocol):
    """One step of a transaction; returns the object as it is then, or None when it is gone."""

    def run(self, tx: Transaction) -> Row | None: ...


def ref_of(document: Json) -> Ref:
    """The Ref of a document that has apiVersion, kind and a name. BadRequestError without one of them."""
    metadata: Json = document.get("metadata") or {}
    api_version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
    namespace = metadata.get("namespace") or ""
    if not all(isinstance(each, str) and each for each in (api_version, kind, name)) or not isinstance(namespace, str):
        raise BadRequestError("an object needs apiVersion, kind and metadata.name, each a text", remedy="add them")
    return Ref(str(api_version).rpartition("/")[0], str(kind), namespace, str(name))


class Create(msgspec.Struct, frozen=True):
    """A new object; `metadata.generateName` gets five letters when there is no name."""

    document: Json

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
        return _create(tx, ref, document, {})


class Replace(msgspec.Struct, frozen=True):
    """The object as a whole. With resourceVersion or uid in its metadata: only that very version or object."""

    document: Json

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, ref_of(self.document))
        _check_preconditions(row, self.document)
        return _update(tx, row, self.document, {})


class Apply(msgspec.Struct, frozen=True):
    """Create, or merge with what is there (`merge.three_way`). `source` and `findings` go with the object."""

    document: Json
    source: bytes = b""
    findings: tuple[Finding, ...] = ()

    def run(self, tx: Transaction) -> Row | None:
        ref = ref_of(self.document)
        asked = {key: value for key, value in self.document.items() if key not in ("apiVersion", "kind", "status")}
        given: Json = self.document.get("metadata") or {}
        asked["metadata"] = {key: value for key, value in given.items() if key not in _OWNED}
        applied = msgspec.json.encode(asked)
        row = tx.row(ref)
        findings = {"check": msgspec.json.encode(self.findings)} if self.findings else {}
        said: dict[str, Any] = {"applied": applied, "source": self.source}
        if row is None:
            wanted = {key: value for key, value in self.document.items() if key != "status"}
            return _create(tx, ref, wanted, {**said, "findings": findings})
        kept = {origin: part for origin, part in row.findings.items() if origin != "check"}
        metadata: Json = msgspec.json.decode(row.metadata)
        current: Json = {"metadata": metadata, **msgspec.json.decode(row.body)}
        before: Json = msgspec.json.decode(row.applied) if row.applied else {}
        merged = three_way(before, current, asked)
        merged |= {"apiVersion": self.document["apiVersion"], "kind": ref.kind}
        return _update(tx, row, merged, {**said, "findings": {**findings, **kept}})


class PutStatus(msgspec.Struct, frozen=True):
    """The status of an object as a whole: a new revision, no new generation. Compare-and-set like Replace."""

    document: Json

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, ref_of(self.document))
        _check_preconditions(row, self.document)
        given: Json = self.document.get("status") or {}
        status = {key: value for key, value in given.items() if key != "findings"}
        encoded = msgspec.json.encode(status)
        if _same(encoded, row.status):
            return row
        return tx.put(msgspec.structs.replace(row, status=encoded))


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
            return _delete(tx, row, None) if row is not None else None
        document = self.version.document()
        asked = {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
        asked["metadata"] = {key: value for key, value in document["metadata"].items() if key not in _OWNED}
        findings = {"check": msgspec.json.encode(self.findings)} if self.findings else {}
        said: dict[str, Any] = {"applied": msgspec.json.encode(asked), "source": b""}
        if row is not None:
            kept = {origin: part for origin, part in row.findings.items() if origin != "check"}
            return _update(tx, row, document, {**said, "findings": {**findings, **kept}})
        return _create(tx, self.ref, document, {**said, "findings": findings}, document["metadata"])


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


class Delete(msgspec.Struct, frozen=True):
    """The end of an object: at once, or after its finalizers, or (a Pod on a node) after its grace.

    `grace_s` None is the Pod's own, 0 is at once. `uid` and `revision`: only that very object or version.
    """

    ref: Ref
    grace_s: int | None = None
    uid: str = ""
    revision: int = 0

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, self.ref)
        wanted = {"uid": self.uid, "resourceVersion": str(self.revision) if self.revision else ""}
        _check_preconditions(row, {"metadata": wanted})
        if self.ref.kind == "Namespace" and not self.ref.group:
            return self._namespace(tx, row)
        return _delete(tx, row, self.grace_s)

    def _namespace(self, tx: Transaction, row: Row) -> Row | None:
        if row.ref.name in ALWAYS_THERE:
            raise InvalidError(f"{row.ref.short} is part of every mesh", remedy="delete what is in it instead")
        if not row.deleting:
            row = tx.put(_marked(row, tx.now, None))
        for inside in [each for each in tx.rows() if each.ref.namespace == row.ref.name]:
            _delete(tx, inside, self.grace_s)
        return tx.row(row.ref)


class SetFindings(msgspec.Struct, frozen=True):
    """What one origin (`check`, `analysis`, `node`, `proxies`) has to say about an object; replaces what it said."""

    ref: Ref
    origin: str
    findings: tuple[Finding, ...]

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, self.ref)
        encoded = msgspec.json.encode(self.findings)
        if row.findings.get(self.origin, b"[]") == encoded:
            return row
        findings = {origin: part for origin, part in row.findings.items() if origin != self.origin}
        if self.findings:
            findings[self.origin] = encoded
        return tx.put(msgspec.structs.replace(row, findings=findings))


class Hold(msgspec.Struct, frozen=True):
    """Proxies refused what came of this object: queries go back to its newest version that was never refused."""

    ref: Ref
    reason: str

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, self.ref)
        # A version before the object was last deleted belongs to another object of the same name.
        versions = itertools.takewhile(lambda each: each.action != "delete", tx.versions(self.ref))
        candidates = [each for each in versions if not each.condemned]
        if candidates and (row.held is None or row.held.metadata is not None):
            tx.condemn(self.ref, candidates.pop(0).revision, condemned=True)
        good = candidates[0] if candidates else None
        held = Held(self.reason) if good is None else Held(self.reason, bytes(good.metadata), bytes(good.body))
        return tx.put(msgspec.structs.replace(row, held=held))


class Release(msgspec.Struct, frozen=True):
    """The end of a hold without a change of the object."""

    ref: Ref

    def run(self, tx: Transaction) -> Row | None:
        row = _existing(tx, self.ref)
        if row.held is None:
            return row
        versions = tx.versions(self.ref)
        if versions:
            tx.condemn(self.ref, versions[0].revision, condemned=False)
        return tx.put(msgspec.structs.replace(row, held=None))


def _existing(tx: Transaction, ref: Ref) -> Row:
    row = tx.row(ref)
    if row is None:
        raise NotFoundError(f"{ref.short} does not exist", remedy=f"lateen get {ref.kind.lower()} -A shows what does")
    return row


def _check_preconditions(row: Row, document: Json) -> None:
    metadata: Json = document.get("metadata") or {}
    wanted = metadata.get("resourceVersion", "")
    if wanted and wanted != str(row.revision):
        raise ConflictError(
            f"{row.ref.short} has changed: it is at revision {row.revision}, not {wanted}",
            remedy="read it again and repeat the change",
        )
    uid = metadata.get("uid", "")
    if uid and uid != _metadata(row).get("uid"):
        raise ConflictError(f"{row.ref.short} is another object than that with uid {uid}", remedy="read it again")


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
    return tx.put(
        Row(
            ref=ref,
            api_version=document["apiVersion"],
            metadata=msgspec.json.encode(metadata),
            body=msgspec.json.encode(_body(document)),
            status=msgspec.json.encode(document.get("status") or {}),
            revision=0,
            generation=1,
            author=tx.author,
            labels=metadata.get("labels") or {},
            **said,
        )
    )


def _update(tx: Transaction, row: Row, document: Json, said: dict[str, Any]) -> Row | None:
    there = _metadata(row)
    given: Json = document.get("metadata") or {}
    metadata = {key: value for key, value in given.items() if key not in _OWNED}
    metadata |= {key: there[key] for key in _OWNED if key in there}
    encoded, body = msgspec.json.encode(metadata), msgspec.json.encode(_body(document))
    same_body = _same(body, row.body)
    same = same_body and _same(encoded, row.metadata) and document["apiVersion"] == row.api_version
    last_finalizer = bool(there.get("finalizers")) and not metadata.get("finalizers")
    if row.deleting and last_finalizer and not there.get("deletionGracePeriodSeconds"):
        tx.remove(row)
        _end_namespace(tx, row.ref.namespace)
        return None
    if same and all(getattr(row, name) == value for name, value in said.items()):
        return row
    if not same:  # what proxies said was about another version
        findings = said.get("findings", row.findings)
        said["findings"] = {origin: part for origin, part in findings.items() if origin != "proxies"}
    return tx.put(
        msgspec.structs.replace(
            row,
            api_version=document["apiVersion"],
            metadata=row.metadata if same else encoded,
            body=row.body if same_body else body,
            generation=row.generation if same_body else row.generation + 1,
            author=row.author if same else tx.author,
            labels=metadata.get("labels") or {},
            held=row.held if same else None,
            **said,
        )
    )


def _delete(tx: Transaction, row: Row, grace_s: int | None) -> Row | None:
    metadata = _metadata(row)
    if row.ref.kind == "Pod" and not row.ref.group:
        spec: Json = msgspec.json.decode(row.body).get("spec") or {}
        finished = msgspec.json.decode(row.status).get("phase") in ("Succeeded", "Failed")
        own = spec.get("terminationGracePeriodSeconds")
        grace = grace_s if grace_s is not None else (_DEFAULT_GRACE_S if own is None else own)
        if grace > 0 and spec.get("nodeName") and not finished:
            earlier = metadata.get("deletionGracePeriodSeconds")
            if earlier is not None and earlier <= grace:
                return row
            return tx.put(_marked(row, tx.now, grace))
    if metadata.get("finalizers"):
        return row if row.deleting else tx.put(_marked(row, tx.now, 0))
    tx.remove(row)
    _end_namespace(tx, row.ref.namespace)
    return None


def _end_namespace(tx: Transaction, name: str) -> None:
    """Removes a namespace that is being deleted once nothing is in it."""
    row = tx.row(Ref("", "Namespace", "", name)) if name else None
    if row is None or not row.deleting:
        return
    if any(each.ref.namespace == name for each in tx.rows()):
        return
    if not _metadata(row).get("finalizers"):
        tx.remove(row)


def _marked(row: Row, now: str, grace_s: int | None) -> Row:
    metadata = {"deletionTimestamp": now} | _metadata(row)
    if grace_s is not None:
        metadata["deletionGracePeriodSeconds"] = grace_s
    return msgspec.structs.replace(row, metadata=msgspec.json.encode(metadata), deleting=True)


def _body(document: Json) -> Json:
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def _metadata(row: Row) -> Json:
    return msgspec.json.decode(row.metadata)


def _same(one: bytes, other: bytes) -> bool:
    return one == other or (
        len(one) == len(other) and msgspec.json.decode(one) == msgspec.json.decode(other)  # another order of keys
    )
