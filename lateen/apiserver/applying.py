"""Whole files over the API: every object tried first, then all of them written, in an order that breaks nothing.

This is the client's side and uses nothing but the API (docs/decisions/0027). What is wrong is collected over all files
before anything is written, each finding with its place in the file; what the mesh says of the result comes from a
`FindingsReview`. When a write fails although its trial went well, those before it are rolled back.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Final, TypeVar, cast

import msgspec

from lateen.api import kinds
from lateen.api.check import about_unknown_field, check
from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.client import Client, Listing, place
from lateen.apiserver.errors import ApiError, NotFoundError
from lateen.apiserver.positions import source_of
from lateen.apiserver.results import Applied, ApplyResult
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.lib.yaml import Document, parse

TWICE: Final = "LTN0010"
NO_NAMESPACE: Final = "LTN0011"
REFUSED: Final = "LTN0012"

_RANKS: Final[tuple[frozenset[str], ...]] = (
    frozenset({"Namespace", "CustomResourceDefinition"}),
    frozenset({"ServiceAccount", "Secret", "ConfigMap", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"}),
    frozenset({"Service", "ServiceEntry", "WorkloadGroup", "WorkloadEntry", "DestinationRule", "EndpointSlice"}),
)
"""What others refer to comes before them; kinds not named follow, and VirtualServices, which use it all, come last."""
_LAST: Final = "VirtualService"
_AT_ONCE: Final = 16
_HEADER_BYTES: Final = 16_000
_ESTABLISHED_S: Final = 10.0
_POLL_S: Final = 0.02

T = TypeVar("T")
U = TypeVar("U")


class _Item(msgspec.Struct, frozen=True):
    """One object of a file; `path` is where the API has it."""

    ref: Ref
    raw: Json
    document: Document
    path: str

    @property
    def rank(self) -> int:
        for number, names in enumerate(_RANKS):
            if self.ref.kind in names:
                return number
        return len(_RANKS) + (self.ref.kind == _LAST)


async def apply_files(
    client: Client, files: Sequence[tuple[str, str]], *, namespace: str = "default", dry_run: bool = False
) -> ApplyResult:
    """Applies files (name, text): all of their objects, or none with the reasons."""
    items, findings = await _read(client, files, namespace)
    spaces = await client.listing("Namespace")
    findings += _twice(items) + _without_namespace(spaces, items)
    homeless = {each.ref for each in findings if each.code == NO_NAMESPACE}
    made = {item.ref for item in items if item.rank == 0}
    tried = await _each(items, lambda item: _try(client, item, made, homeless))
    findings += [each for one in tried if isinstance(one, list) for each in one]
    for item in items:
        findings += [each for each in check(item.document, namespace=namespace) if each.level is not Level.ERROR]
    if any(each.level is Level.ERROR for each in findings):
        return ApplyResult(False, (), _sorted(findings))
    actions = [each if isinstance(each, str) else "created" for each in tried]
    if not dry_run:
        written: list[_Item] = []
        try:
            await _write(client, items, written)
        except ApiError as error:
            failed = await _undo(client, written, spaces.revision)
            return ApplyResult(False, (), (_refusal(error), *failed))
        findings += await _said(client, items)
    done = [_applied(item.ref, action) for item, action in zip(items, actions, strict=True)]
    return ApplyResult(True, tuple(done), _sorted(findings))


async def delete_files(
    client: Client, files: Sequence[tuple[str, str]], *, namespace: str = "default", dry_run: bool = False
) -> ApplyResult:
    """Deletes what the files name and what is there of it; their specs are not looked at."""
    items, findings = await _read(client, files, namespace)
    if any(each.level is Level.ERROR for each in findings):
        return ApplyResult(False, (), _sorted(findings))

    async def end(item: _Item, *, trial: bool) -> str:
        try:
            await client.send("DELETE", item.path, params={"dryRun": "All"} if trial else {})
        except NotFoundError:
            return "not there"
        return "deleted"

    async def refused(item: _Item) -> str | Finding:
        try:
            return await end(item, trial=True)
        except ApiError as error:
            return _refusal(error, item.document)

    tried = await _each(items, refused)
    wrong = [each for each in tried if isinstance(each, Finding)]
    if wrong:
        return ApplyResult(False, (), _sorted([*findings, *wrong]))
    if not dry_run:
        for wave in _waves(items, backwards=True):
            await _each(wave, lambda item: end(item, trial=False))
    done = [_applied(item.ref, str(action)) for item, action in zip(items, tried, strict=True)]
    return ApplyResult(True, tuple(done), _sorted(findings))


# -- reading files -------------------------------------------------------------------------------------


async def _read(client: Client, files: Sequence[tuple[str, str]], namespace: str) -> tuple[list[_Item], list[Finding]]:
    items: list[_Item] = []
    findings: list[Finding] = []
    documents: list[Document] = []
    for name, text in files:
        found, broken = await asyncio.to_thread(parse, text, name)
        documents += found
        findings += broken
    made = _defined(documents)
    for document in documents:
        raw = document.raw
        if not isinstance(raw, dict) or not isinstance(cast("Json", raw).get("metadata"), dict):
            findings += check(document) or [_bad(document, "a document must be an object with metadata")]
            continue
        item = await _item(client, document, cast("Json", raw), namespace, made)
        if item is None:
            findings += [each for each in check(document, namespace=namespace) if each.level is Level.ERROR]
        else:
            items.append(item)
    items.sort(key=lambda item: item.rank)
    return items, findings


def _defined(documents: Iterable[Document]) -> dict[tuple[str, str], tuple[str, bool]]:
    """Plural and whether in namespaces, by version and kind, of what definitions among the documents add."""
    found: dict[tuple[str, str], tuple[str, bool]] = {}
    for each in documents:
        spec = map_at(each.raw, "spec")
        if map_at({"_": each.raw}, "_").get("kind") != "CustomResourceDefinition":
            continue
        names = map_at(spec, "names")
        for version in list_at(spec, "versions"):
            api_version = f"{spec.get('group')}/{map_at({'_': version}, '_').get('name')}"
            found[api_version, str(names.get("kind"))] = str(names.get("plural")), spec.get("scope") == "Namespaced"
    return found


async def _item(
    client: Client,
    document: Document,
    raw: Json,
    namespace: str,
    made: dict[tuple[str, str], tuple[str, bool]],
) -> _Item | None:
    """The object with its place in the API; None for a kind that there is not, or without a name."""
    api_version, kind = str(raw.get("apiVersion")), str(raw.get("kind"))
    known = kinds.by_api(api_version, kind)
    found = (known.plural, known.namespaced) if known is not None else made.get((api_version, kind))
    found = found or await client.resource(api_version, kind)
    metadata: Json = raw["metadata"]
    name = metadata.get("name")
    if found is None or not isinstance(name, str) or not name:
        return None
    plural, namespaced = found
    space = str(metadata.get("namespace") or namespace) if namespaced else ""
    own = {key: value for key, value in metadata.items() if key != "namespace"}
    raw = {**raw, "metadata": {**own, "namespace": space} if space else own}
    group = known.group if known is not None else api_version.rpartition("/")[0]
    path = place(api_version, plural, space, name)
    return _Item(Ref(group, kind, space, name), raw, document, path)


def _bad(document: Document, message: str) -> Finding:
    return Finding(code=REFUSED, level=Level.ERROR, message=message, position=document.position())


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


def _without_namespace(spaces: Listing, items: Sequence[_Item]) -> list[Finding]:
    there = {each["metadata"]["name"] for each in spaces.items}
    there |= {item.ref.name for item in items if item.ref.kind == "Namespace" and not item.ref.group}
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
        if item.ref.namespace and item.ref.namespace not in there
    ]


# -- writing -------------------------------------------------------------------------------------------


async def _try(client: Client, item: _Item, made: set[Ref], homeless: set[Ref | None]) -> str | list[Finding]:
    """What applying the object would do (`created`, `configured`, `unchanged`), or all that is wrong with it. `made`:
    namespaces and definitions that come with it; `homeless`: what has no namespace, which is said already."""
    before, after = await asyncio.gather(
        client.send("GET", item.path), client.apply(item.path, item.raw, dry_run=True), return_exceptions=True
    )
    try:
        if isinstance(before, BaseException) and not isinstance(before, NotFoundError):
            raise before
        if isinstance(after, BaseException):
            raise after
    except NotFoundError as error:
        if item.ref in homeless:
            return []
        space = Ref("", "Namespace", "", item.ref.namespace)
        if space in made or any(each.kind == "CustomResourceDefinition" for each in made):
            return "created"  # in a namespace, or of a kind, that comes with it
        return [_refusal(error, item.document)]
    except ApiError as error:
        placed = [
            msgspec.structs.replace(
                each,
                ref=item.ref,
                position=item.document.position(each.path, key=_of_key(each)),
            )
            for each in error.causes
        ]
        return placed or [_refusal(error, item.document)]
    if isinstance(before, BaseException):
        return "created"
    return "unchanged" if _bare(after) == _bare(before) else "configured"


def _bare(said: Json) -> Json:
    """An object without who manages which field, and the version that a change of that makes."""
    metadata = {
        key: value for key, value in said["metadata"].items() if key not in ("managedFields", "resourceVersion")
    }
    return {**said, "metadata": metadata}


def _of_key(finding: Finding) -> bool:
    """Whether a finding is about a field as such, not about its value."""
    return about_unknown_field(finding) or finding.message.endswith("exclude each other")


async def _write(client: Client, items: Sequence[_Item], written: list[_Item]) -> None:
    async def one(item: _Item) -> None:
        await client.apply(item.path, item.raw, source=_source(item.document))
        written.append(item)
        if item.ref.kind == "CustomResourceDefinition":
            await _established(client, item.path)

    for wave in _waves(items):
        await _each(wave, one)


async def _established(client: Client, path: str) -> None:
    """Returns when the objects of a definition can be written."""
    async with asyncio.timeout(_ESTABLISHED_S):
        while True:
            conditions = map_at(await client.send("GET", path), "status").get("conditions") or ()
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return
            await asyncio.sleep(_POLL_S)


async def _undo(client: Client, written: Sequence[_Item], revision: str) -> list[Finding]:
    """Brings back what was, the last first; what that fails for."""
    failed: list[Finding] = []
    for item in reversed(written):
        try:
            asked = {"ref": str(item.ref), "to": revision, "author": "lateen"}
            await client.post("/lateen/v1/rollback", asked)
        except ApiError as error:
            message = f"{item.ref.short} stays changed: {error}"
            failed.append(_bad(item.document, message))
    return failed


async def _said(client: Client, items: Sequence[_Item]) -> list[Finding]:
    """What the mesh has to say about the objects as they are now."""
    objects = [msgspec.to_builtins(item.ref) for item in items]
    asked: Json = {"apiVersion": "lateen.io/v1", "kind": "FindingsReview", "spec": {"objects": objects}}
    answer = await client.post("/apis/lateen.io/v1/findingsreviews", asked)
    places = {item.ref: item.document for item in items}
    found = msgspec.convert(answer["status"]["findings"], list[Finding])
    return [
        msgspec.structs.replace(each, position=places[each.ref].position(each.path))
        if each.position is None and each.ref in places
        else each
        for each in found
    ]


def _source(document: Document) -> str:
    """Where each field stands in its file, as a header; where the object stands, when that is too long."""
    for each in (source_of(document), source_of(Document({}, document.file))):
        text = base64.b64encode(zlib.compress(each)).decode()
        if each and len(text) <= _HEADER_BYTES:
            return text
    return ""


def _waves(items: Sequence[_Item], *, backwards: bool = False) -> list[list[_Item]]:
    ordered = sorted(items, key=lambda item: item.rank, reverse=backwards)
    return [list(group) for _, group in groupby(ordered, key=lambda item: item.rank)]


async def _each(things: Sequence[T], do: Callable[[T], Awaitable[U]]) -> list[U]:
    """The results for all, several at once. When one fails the others are waited for, then it is raised."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: T) -> U:
        async with turn:
            return await do(thing)

    done = await asyncio.gather(*map(one, things), return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return cast("list[U]", done)


def _refusal(error: ApiError, document: Document | None = None) -> Finding:
    position = document.position() if document is not None else None
    return Finding(code=REFUSED, level=Level.ERROR, message=str(error), remedy=error.remedy, position=position)


def _applied(ref: Ref, action: str) -> Applied:
    return Applied(ref.kind, ref.namespace, ref.name, action)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {Level.ERROR: 0, Level.WARNING: 1, Level.INFO: 2}

    def key(finding: Finding) -> tuple[object, ...]:
        place = finding.position
        return (order[finding.level], *(msgspec.structs.astuple(place) if place else ("", 0, 0)), finding.path)

    return tuple(sorted(findings, key=key))
