"""Applying and deleting whole files: every document looked at first, then all of them in one transaction, or none.

What is wrong is collected over all files before anything is refused, each finding with file, line and column.
After the commit the caller hears what the whole mesh has to say about these objects (an unknown host, a selector
that means nobody): that is the `analyse` given by who composes the control plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from lateen.api import kinds
from lateen.api.struct import Json
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ApiError, BadRequestError
from lateen.apiserver.operations import Apply, Operation
from lateen.apiserver.positions import placed, source_of
from lateen.apiserver.results import Applied, ApplyResult
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.apiserver.transactions import ref_of
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.lib.yaml import Document, parse


class Check(Protocol):
    """All that is wrong with one document by itself; `namespace` is for a document that names none."""

    def __call__(self, document: Document, *, namespace: str = "default") -> list[Finding]: ...


Analyse = Callable[[Sequence[Ref]], Awaitable[Sequence[Finding]]]
"""What the mesh as it is now has to say about objects."""

TWICE = "LTN0010"
NO_NAMESPACE = "LTN0011"
REFUSED = "LTN0012"


class File(msgspec.Struct, frozen=True):
    """A file as the user named it, and its text."""

    name: str
    text: str


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """The body of an apply or delete. `namespace` is for objects that name none."""

    files: tuple[File, ...]
    namespace: str = "default"
    dry_run: bool = False
    author: str = ""


class _Item(msgspec.Struct, frozen=True):
    ref: Ref
    raw: Json
    document: Document
    source: bytes
    findings: tuple[Finding, ...]


async def apply(store: Store, request: Request, check: Check, analyse: Analyse) -> ApplyResult:
    """Applies the files; `applied` is False and nothing happened when a finding is an error."""
    items, findings = await asyncio.to_thread(_read, request, check)
    findings += _twice(items) + _without_namespace(store, items)
    if any(each.level is Level.ERROR for each in findings):
        return ApplyResult(False, (), _sorted(findings))
    items.sort(key=lambda item: item.ref.kind != "Namespace" or item.ref.group != "")
    before = [store.get(item.ref) for item in items]
    operations = [Apply(item.raw, item.source, item.findings) for item in items]
    try:
        rows = await store.write(operations, author=request.author, dry_run=request.dry_run)
    except ApiError as error:
        return ApplyResult(False, (), _sorted([*findings, _refusal(error)]))
    if not request.dry_run:
        sources = {item.ref: item.source for item in items}
        said = await analyse([item.ref for item in items])
        findings += [placed(each, sources.get(each.ref, b"") if each.ref else b"") for each in said]
    done = [_applied(item.ref, _action(old, new)) for item, old, new in zip(items, before, rows, strict=True)]
    return ApplyResult(True, tuple(done), _sorted(findings))


async def delete(store: Store, request: Request) -> ApplyResult:
    """Deletes what the files name and what is there of it; their specs are not looked at."""
    items, findings = await asyncio.to_thread(_read, request, None)
    if any(each.level is Level.ERROR for each in findings):
        return ApplyResult(False, (), _sorted(findings))
    there = [item.ref for item in items if store.get(item.ref) is not None]
    there.sort(key=lambda ref: ref.kind == "Namespace" and ref.group == "")
    operations: list[Operation] = [Delete(ref) for ref in there]
    try:
        await store.write(operations, author=request.author, dry_run=request.dry_run)
    except ApiError as error:
        return ApplyResult(False, (), (_refusal(error),))
    done = [_applied(item.ref, "deleted" if item.ref in there else "not there") for item in items]
    return ApplyResult(True, tuple(done), _sorted(findings))


def _read(request: Request, check: Check | None) -> tuple[list[_Item], list[Finding]]:
    items: list[_Item] = []
    findings: list[Finding] = []
    for file in request.files:
        documents, broken = parse(file.text, file.name)
        findings += broken
        for document in documents:
            found = check(document, namespace=request.namespace) if check is not None else []
            findings += found
            if any(each.level is Level.ERROR for each in found):
                continue
            try:
                raw = in_namespace(document.raw, request.namespace)
                ref = ref_of(raw)
            except ApiError as error:
                findings.append(
                    Finding(code=REFUSED, level=Level.ERROR, message=str(error), position=document.position())
                )
                continue
            items.append(_Item(ref, raw, document, source_of(document), tuple(found)))
    return items, findings


def in_namespace(raw: Json, namespace: str) -> Json:
    """The document in the namespace it lives in: its own, else the given one; none for cluster-scoped kinds."""
    if not isinstance(raw, dict) or not isinstance(raw.get("metadata"), dict):  # pyright: ignore[reportUnnecessaryIsInstance] (from a file)
        raise BadRequestError("a document must be an object with apiVersion, kind and metadata")
    kind = kinds.by_api(str(raw.get("apiVersion")), str(raw.get("kind")))
    metadata: Json = raw["metadata"]
    if kind is not None and not kind.namespaced:
        return {**raw, "metadata": {key: value for key, value in metadata.items() if key != "namespace"}}
    return {**raw, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}


def _twice(items: Sequence[_Item]) -> list[Finding]:
    seen: dict[Ref, _Item] = {}
    found: list[Finding] = []
    for item in items:
        first = seen.setdefault(item.ref, item)
        if first is not item:
            found.append(
                Finding(
                    code=TWICE,
                    level=Level.ERROR,
                    message=f"{item.ref.short} is given twice, first at {first.document.position()}",
                    ref=item.ref,
                    position=item.document.position(),
                    remedy="keep one of them",
                )
            )
    return found


def _without_namespace(store: Store, items: Sequence[_Item]) -> list[Finding]:
    made = {item.ref.name for item in items if item.ref.kind == "Namespace" and not item.ref.group}
    return [
        Finding(
            code=NO_NAMESPACE,
            level=Level.ERROR,
            message=f"there is no namespace {item.ref.namespace}",
            ref=item.ref,
            path="metadata.namespace",
            position=item.document.position("metadata.namespace"),
            remedy=f"apply the Namespace {item.ref.namespace} first, or in the same call",
        )
        for item in items
        if item.ref.namespace
        and item.ref.namespace not in made
        and store.get(Ref("", "Namespace", "", item.ref.namespace)) is None
    ]


def _refusal(error: ApiError) -> Finding:
    return Finding(code=REFUSED, level=Level.ERROR, message=str(error), remedy=error.remedy)


def _action(before: Row | None, after: Row | None) -> str:
    if before is None or after is None:
        return "created"
    return "unchanged" if before.body == after.body and before.metadata == after.metadata else "configured"


def _applied(ref: Ref, action: str) -> Applied:
    return Applied(ref.kind, ref.namespace, ref.name, action)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    order = {Level.ERROR: 0, Level.WARNING: 1, Level.INFO: 2}

    def key(finding: Finding) -> tuple[object, ...]:
        place = finding.position
        return (order[finding.level], *(msgspec.structs.astuple(place) if place else ("", 0, 0)), finding.path)

    return tuple(sorted(findings, key=key))
