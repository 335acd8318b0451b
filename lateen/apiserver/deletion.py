"""The end of objects: finalizers, a Pod's grace, a namespace with what is in it, and owners with what they own.

What an object owns goes in the transaction in which the object goes (or is asked to go, in the foreground), so there
is never a moment at which a dependent is left over, and nothing has to look for garbage.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from lateen.api.struct import Json, list_at
from lateen.apiserver.errors import InvalidError
from lateen.apiserver.rows import Row, facts_of
from lateen.apiserver.transactions import Transaction, check_preconditions, existing, metadata_of
from lateen.lib.ids import Ref

ALWAYS_THERE: Final = ("default", "istio-system")
"""Namespaces that exist from the start and cannot be deleted."""

Propagation = Literal["Background", "Foreground", "Orphan"]
FOREGROUND: Final = "foregroundDeletion"
"""The finalizer of an object that waits for what it owns."""

_DEFAULT_GRACE_S: Final = 30
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer of a definition whose objects are on their way out."""
_DEFINITION: Final = ("apiextensions.k8s.io", "CustomResourceDefinition")
_NAMESPACE: Final = ("", "Namespace")
_POD: Final = ("", "Pod")


class Delete(msgspec.Struct, frozen=True):
    """The end of an object: at once, or after its finalizers, or (a Pod on a node) after its grace.

    `grace_s` None is the Pod's own, 0 is at once. `uid` and `revision`: only that very object or version.
    `propagation`: what it owns goes with it, goes before it, or stays without an owner.
    """

    ref: Ref
    grace_s: int | None = None
    uid: str = ""
    revision: int = 0
    propagation: Propagation = "Background"

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        wanted = {"uid": self.uid, "resourceVersion": str(self.revision) if self.revision else ""}
        check_preconditions(row, {"metadata": wanted})
        if self.ref.collection == _NAMESPACE:
            return self._namespace(tx, row)
        if self.ref.collection == _DEFINITION:
            return self._definition(tx, row)
        return end(tx, row, self.grace_s, self.propagation)

    def _definition(self, tx: Transaction, row: Row) -> Row | None:
        """A CustomResourceDefinition takes along the objects of its kind; it stays until the last of them is gone."""
        spec: Json = msgspec.json.decode(row.body)["spec"]
        collection = (spec["group"], spec["names"]["kind"])
        if not row.deleting:
            finalizers = [*metadata_of(row).get("finalizers", ()), CLEANUP]
            row = tx.put(_with_metadata(_marked(row, tx.now, 0), finalizers=finalizers))
        for ref in [each.ref for each in tx.rows() if each.ref.collection == collection]:
            still = tx.row(ref)
            if still is not None:
                end(tx, still)
        if any(each.ref.collection == collection for each in tx.rows()):
            return tx.row(row.ref)
        return end_definition(tx, row)

    def _namespace(self, tx: Transaction, row: Row) -> Row | None:
        if row.ref.name in ALWAYS_THERE:
            raise InvalidError(f"{row.ref.short} is part of every mesh", remedy="delete what is in it instead")
        if not row.deleting:
            status: Json = msgspec.json.decode(row.status)
            encoded = msgspec.json.encode({**status, "phase": "Terminating"})
            row = tx.put(msgspec.structs.replace(_marked(row, tx.now, None), status=encoded))
        for inside in [each.ref for each in tx.rows() if each.ref.namespace == row.ref.name]:
            still = tx.row(inside)
            if still is not None:
                end(tx, still, self.grace_s)
        _end_namespace(tx, row.ref.name)
        return tx.row(row.ref)


def end_definition(tx: Transaction, row: Row) -> Row | None:
    """Ends a definition without objects, as far as its other finalizers allow."""
    rest = [each for each in metadata_of(row).get("finalizers", ()) if each != CLEANUP]
    if rest:
        return tx.put(_with_metadata(row, finalizers=rest))
    remove(tx, row)
    return None


def end(tx: Transaction, row: Row, grace_s: int | None = None, propagation: Propagation = "Background") -> Row | None:
    """Ends an object as far as may be now; what is left of it, or None."""
    metadata = metadata_of(row)
    uid = metadata["uid"]
    if propagation == "Orphan":
        for each in tx.owned_by(uid):
            tx.put(_without_owner(each, uid))
    if row.ref.collection == _POD:
        spec: Json = msgspec.json.decode(row.body).get("spec") or {}
        finished = msgspec.json.decode(row.status).get("phase") in ("Succeeded", "Failed")
        own = spec.get("terminationGracePeriodSeconds")
        grace = grace_s if grace_s is not None else (_DEFAULT_GRACE_S if own is None else own)
        if grace > 0 and spec.get("nodeName") and not finished:
            earlier = metadata.get("deletionGracePeriodSeconds")
            if earlier is not None and earlier <= grace:
                return row
            return tx.put(_marked(row, tx.now, grace))
    if propagation == "Foreground" and not row.deleting and tx.owned_by(uid):
        finalizers = [*metadata.get("finalizers", ()), FOREGROUND]
        row = tx.put(_with_metadata(_marked(row, tx.now, 0), finalizers=finalizers))
        for each in tx.owned_by(uid):
            end(tx, each, None, "Foreground")
        _end_waiting(tx, row.ref)
        return tx.row(row.ref)
    if metadata.get("finalizers"):
        return row if row.deleting else tx.put(_marked(row, tx.now, 0))
    remove(tx, row)
    return None


def remove(tx: Transaction, row: Row) -> None:
    """The object is gone, and with it what nobody else owns; what waited for its end goes on."""
    uid = metadata_of(row)["uid"]
    tx.remove(row)
    for each in tx.owned_by(uid):
        if not any(tx.with_uid(owner) for owner in each.owners):
            end(tx, each)
    for owner in row.owners:
        waiting = tx.with_uid(owner)
        if waiting is not None:
            _end_waiting(tx, waiting.ref)
    _end_namespace(tx, row.ref.namespace)


def _end_waiting(tx: Transaction, ref: Ref) -> None:
    """Ends an object that waited for what it owns, once nothing is left that it must wait for."""
    row = tx.row(ref)
    if row is None or not row.deleting:
        return
    metadata = metadata_of(row)
    finalizers: list[str] = list_at(metadata, "finalizers")
    if FOREGROUND not in finalizers or any(_blocks(each, metadata["uid"]) for each in tx.owned_by(metadata["uid"])):
        return
    rest = [each for each in finalizers if each != FOREGROUND]
    if rest:
        tx.put(_with_metadata(row, finalizers=rest))
    else:
        remove(tx, row)


def _blocks(row: Row, owner: str) -> bool:
    references: list[Json] = metadata_of(row).get("ownerReferences") or []
    return any(each.get("uid") == owner and each.get("blockOwnerDeletion") for each in references)


def _end_namespace(tx: Transaction, name: str) -> None:
    """Removes a namespace that is being deleted once nothing is in it."""
    row = tx.row(Ref("", "Namespace", "", name)) if name else None
    if row is None or not row.deleting:
        return
    if any(each.ref.namespace == name for each in tx.rows()):
        return
    if not metadata_of(row).get("finalizers"):
        tx.remove(row)


def _marked(row: Row, now: str, grace_s: int | None) -> Row:
    metadata = {"deletionTimestamp": now} | metadata_of(row)
    if grace_s is not None:
        metadata["deletionGracePeriodSeconds"] = grace_s
    return _with(row, metadata)


def _with_metadata(row: Row, *, finalizers: list[str]) -> Row:
    return _with(row, {**metadata_of(row), "finalizers": finalizers})


def _without_owner(row: Row, uid: str) -> Row:
    metadata = metadata_of(row)
    left = [each for each in metadata["ownerReferences"] if each.get("uid") != uid]
    metadata["ownerReferences"] = left
    return _with(row, metadata if left else {key: part for key, part in metadata.items() if key != "ownerReferences"})


def _with(row: Row, metadata: Json) -> Row:
    facts = facts_of(metadata)
    return msgspec.structs.replace(
        row,
        metadata=msgspec.json.encode(metadata),
        labels=facts.labels,
        owners=facts.owners,
        deleting=facts.deleting,
    )


class Cleaned(msgspec.Struct, frozen=True):
    """Says that a definition on its way out has no objects any more."""

    ref: Ref

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        return end_definition(tx, row) if row.deleting else row
