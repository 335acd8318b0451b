"""Looking back and going back: history of all objects, the state at a revision or time, differences, rollback.

A rollback is a change like any other: worked out first, checked as a whole, written as one transaction on condition of
the state it was worked out from, so that it is a revision of its own. Of the whole mesh it
touches only what configures it; Pods and what controllers make follow from that or live their own lives.
"""

from __future__ import annotations

import datetime as dt
from itertools import takewhile
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lateen.api.struct import Json
from lateen.apiserver.errors import ApiError, BadRequestError, InvalidError, NotFoundError
from lateen.apiserver.operations import Restore
from lateen.apiserver.rows import Version
from lateen.apiserver.store import Store
from lateen.apiserver.validation import Check
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref, parse_ref
from lateen.lib.yaml import Document

MESH_CONFIG: Final = Ref("", "ConfigMap", "istio-system", "istio")
CONTROLLED: Final = frozenset({"Pod", "ReplicaSet", "EndpointSlice", "Node"})
"""Kinds that controllers make; their owners are what people change."""
_LIMIT: Final = 50


def _by_controllers(version: Version) -> bool:
    return version.ref.kind in CONTROLLED or version.author == "lateen"


def configures(ref: Ref) -> bool:
    """True for what a rollback of the mesh touches: kinds of istio.io, and the mesh's configuration."""
    return ref.group.endswith(".istio.io") or ref == MESH_CONFIG


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """What a rollback does to one object: `restored`, `created again` or `deleted`; to which revision of it."""

    ref: Ref
    action: str
    revision: int = 0


class Rollback(msgspec.Struct, frozen=True):
    """What a rollback did; `done` False: nothing, `findings` say why."""

    done: bool
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()


class Past:
    """History of one store."""

    def __init__(self, store: Store, check: Check) -> None:
        self._store = store
        self._check = check

    async def revision(self, word: str) -> int:
        """A revision by its number or a time (`2026-01-31T10:00:00Z`). ApiError when it is neither or unknown."""
        if word.isdecimal():
            number = int(word)
            if not 0 < number <= self._store.revision:
                raise NotFoundError(
                    f"there is no revision {word}: the newest is {self._store.revision}", remedy="lateen history"
                )
            return number
        try:
            at = dt.datetime.fromisoformat(word)
        except ValueError:
            raise BadRequestError(
                f"{word!r} is neither a revision nor a time", remedy="write 1234 or 2026-01-31T10:00:00Z"
            ) from None
        utc = at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = await self._store.past(lambda database: database.until(utc))
        if not found:
            raise NotFoundError(f"nothing is known of {word}: history begins later", remedy="lateen history")
        return found[0].revision

    async def state(self, revision: int) -> dict[Ref, Version]:
        """Every object as it was at a revision."""
        found = await self._store.past(lambda database: database.at(revision))
        return {each.ref: each for each in found if each.action != "delete"}

    async def changed(self, revision: int) -> dict[Ref, Version | None]:
        """What changed after a revision, each as it was then (None: it was not there). NotFoundError when that is
        known no more."""
        later = await self._store.past(lambda database: database.since(revision))
        before = await self.state(revision)
        first: dict[Ref, Version] = {}
        for each in later:
            first.setdefault(each.ref, each)
        for ref, each in first.items():
            if ref not in before and each.action == "update":
                raise NotFoundError(
                    f"what {ref.short} was at revision {revision} is not kept any more", remedy="lateen history"
                )
        return {ref: before.get(ref) for ref in first}

    async def previous(self, ref: Ref) -> Version:
        """The version to go back to: the newest good one that differs from what is there, or the last one of an
        object that was deleted."""
        versions = await self._store.history(ref)
        row = self._store.get(ref)
        if row is None:
            if not versions:
                raise NotFoundError(f"{ref.short} does not exist and never did", remedy="lateen history")
            return next((each for each in versions[1:] if each.good), versions[0])
        present = takewhile(lambda each: each.action != "delete", versions)
        for each in present:
            if each.good and bytes(each.body) != row.body:
                return each
        raise NotFoundError(
            f"there is no earlier good version of {ref.short}",
            remedy=f"lateen history {ref.kind}/{ref.name} shows all; lateen delete {ref.kind} {ref.name} ends it",
        )

    async def roll_back(self, targets: dict[Ref, Version | None], author: str, dry_run: bool) -> Rollback:
        """Brings objects to given versions: all of them, or none."""
        operations: list[Restore] = []
        steps: list[Step] = []
        findings: list[Finding] = []
        for ref, version in sorted(targets.items()):
            row = self._store.get(ref)
            if version is None and row is None:
                continue
            if version is None:
                steps.append(Step(ref, "deleted"))
                operations.append(Restore(ref, row.generation if row else 0, None))
                continue
            if row is not None and _same(row.metadata, row.body, version):
                continue
            said = self._check(Document(version.document(), ""))
            findings += said
            steps.append(Step(ref, "restored" if row is not None else "created again", version.revision))
            operations.append(Restore(ref, row.generation if row else 0, version, tuple(said)))
        if any(each.level is Level.ERROR for each in findings):
            return Rollback(False, (), tuple(each for each in findings if each.level is Level.ERROR))
        try:
            await self._store.write(operations, author=author, dry_run=dry_run)
        except ApiError as error:
            raise InvalidError(f"nothing was rolled back: {error}", remedy=error.remedy) from None
        return Rollback(True, tuple(steps), tuple(findings))


def past_routes(store: Store, check: Check) -> list[BaseRoute]:
    """`GET /lateen/v1/revisions?ref=&limit=&all=`, `GET /lateen/v1/at?revision=`, `GET /lateen/v1/diff?from=&to=&ref=`,
    `POST /lateen/v1/rollback` with `{"to", "ref", "author", "dryRun"}`."""
    past = Past(store, check)

    async def revisions(request: Request) -> Response:
        query = request.query_params
        ref = _ref(query.get("ref", ""))
        everything = query.get("all") == "1"
        limit = int(query.get("limit", _LIMIT))
        if ref is not None:
            found = await store.history(ref)
            if not found:
                raise NotFoundError(f"{ref.short} never existed", remedy="lateen history shows what did")
        else:
            found = await store.past(lambda database: database.recent(limit if everything else limit * 20))
            found = [each for each in found if everything or not _by_controllers(each)]
        return _json({"revision": store.revision, "versions": [_entry(each) for each in found[:limit]]})

    async def at(request: Request) -> Response:
        revision = await past.revision(request.query_params.get("revision", ""))
        state = await past.state(revision)
        return _json({"revision": revision, "items": [_dated(each) for _, each in sorted(state.items())]})

    async def diff(request: Request) -> Response:
        query = request.query_params
        first, second = [await past.revision(query.get(key, "")) for key in ("from", "to")]
        ref = _ref(query.get("ref", ""))
        before, after = await past.state(first), await past.state(second)
        refs = [each for each in sorted(before.keys() | after.keys()) if before.get(each) != after.get(each)]
        wanted = [each for each in refs if (each == ref if ref is not None else each.kind not in CONTROLLED)]
        pairs = [(each, *_masked(_document(before.get(each)), _document(after.get(each)))) for each in wanted]
        listed = [{"ref": str(each), "before": one, "after": other} for each, one, other in pairs]
        return _json({"from": first, "to": second, "objects": listed})

    async def rollback(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_Asked)
        except msgspec.DecodeError as error:
            raise BadRequestError(f"the request cannot be read: {error}") from None
        ref = _ref(asked.ref)
        targets: dict[Ref, Version | None]
        if asked.to:
            changed = await past.changed(await past.revision(asked.to))
            if ref is not None and ref not in changed and store.get(ref) is None:
                raise NotFoundError(f"{ref.short} does not exist and did not at {asked.to}", remedy="lateen history")
            targets = {each: was for each, was in changed.items() if (each == ref if ref else configures(each))}
        elif ref is not None:
            targets = {ref: await past.previous(ref)}
        else:
            raise BadRequestError("a rollback needs a revision, a time or an object", remedy="lateen history")
        if any(each.kind in CONTROLLED for each in targets):
            raise BadRequestError(
                "Pods, ReplicaSets, EndpointSlices and Nodes are made by controllers", remedy="roll back the owner"
            )
        result = await past.roll_back(targets, asked.author, asked.dry_run)
        answer = {**msgspec.to_builtins(result), "revision": store.revision}
        answer["steps"] = [
            {"object": each.ref.short, "action": each.action, "revision": each.revision} for each in result.steps
        ]
        return _json(answer)

    return [
        Route("/lateen/v1/revisions", revisions),
        Route("/lateen/v1/at", at),
        Route("/lateen/v1/diff", diff),
        Route("/lateen/v1/rollback", rollback, methods=["POST"]),
    ]


class _Asked(msgspec.Struct, frozen=True, rename="camel"):
    to: str = ""
    ref: str = ""
    author: str = ""
    dry_run: bool = False


_OWN: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields")


def _same(metadata: bytes, body: bytes, version: Version) -> bool:
    def meaning(raw: bytes | msgspec.Raw) -> Json:
        decoded: Json = msgspec.json.decode(raw)
        return {key: value for key, value in decoded.items() if key not in _OWN}

    return meaning(metadata) == meaning(version.metadata) and msgspec.json.decode(body) == msgspec.json.decode(
        version.body
    )


def _ref(text: str) -> Ref | None:
    try:
        return parse_ref(text) if text else None
    except ValueError as error:
        raise BadRequestError(str(error), remedy="write ref=KIND.GROUP/NAMESPACE/NAME") from None


def _entry(each: Version) -> Json:
    return {
        "revision": each.revision,
        "object": each.ref.short,
        "at": each.at,
        "author": each.author,
        "action": each.action,
        "refused": each.condemned,
        "errors": [{**msgspec.to_builtins(mark), "message": str(mark)} for mark in each.marks],
    }


def _dated(each: Version) -> Json:
    document = each.document()
    document["metadata"]["resourceVersion"] = str(each.revision)
    return document


def _document(each: Version | None) -> Json | None:
    if each is None:
        return None
    document = each.document()
    document["metadata"] = {key: value for key, value in document["metadata"].items() if key not in _OWN}
    return document


def _masked(before: Json | None, after: Json | None) -> tuple[Json | None, Json | None]:
    """Both without what is secret in them; where it differs that is still to be seen."""
    documents = [each for each in (before, after) if each is not None]
    if any(each["kind"] == "Secret" for each in documents):
        for key in ("data", "stringData"):
            values_of: list[Json] = [(each or {}).get(key) or {} for each in (before, after)]
            one, other = values_of
            for name in {*one, *other}:
                same = one.get(name) == other.get(name)
                for values, word in ((one, "before"), (other, "after")):
                    if name in values:
                        values[name] = "***" if same else f"*** ({word})"
    return before, after


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
