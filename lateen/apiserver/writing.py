"""Writing: create, replace, patch, server-side apply, delete, and the parts `status` and `scale`.

A change is read, made, checked and written with the version that was read as its condition; when somebody was
faster it is made again, unless the client named the version itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.responses import Response

from lateen.api.struct import Json, map_at
from lateen.apiserver import managed
from lateen.apiserver.access import Guard
from lateen.apiserver.admission import Admission, Admitting
from lateen.apiserver.bodies import OBJECT_BYTES, body, decoded, document, media_type, number
from lateen.apiserver.calls import Call, deletion_of, located, named, patch_of, with_warnings
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import BadRequestError, ConflictError, InvalidError, NotFoundError
from lateen.apiserver.managed import Entry, Writer
from lateen.apiserver.operations import Create, Operation, PutStatus, Replace, SetFindings
from lateen.apiserver.positions import placed
from lateen.apiserver.reading import Reader, not_found, selector_of
from lateen.apiserver.resources import Resources, Scale, value_at
from lateen.apiserver.rows import Row
from lateen.apiserver.scale import scale_document, with_replicas
from lateen.apiserver.shown import Shown, json_response
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Target
from lateen.apiserver.validation import Validated, Validator
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref

_TRIES: Final = 20
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_APPLY: Final = "application/apply-patch+yaml"

Make = Callable[[Row | None], Json]
"""The wanted document, from what is there."""


class Editor:
    """Carries out writes on one store."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        resources: Resources,
        validate: Validator,
        admission: Admission,
        guard: Guard,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._store = store
        self._reader = reader
        self._resources = resources
        self._validate = validate
        self._admission = admission
        self._guard = guard
        self._now = now

    # -- one object ------------------------------------------------------------------------------------

    async def create(self, call: Call) -> Response:
        """A new object."""
        asked = located(await document(call.request), call.target)
        if map_at(asked, "metadata").get("resourceVersion"):
            raise BadRequestError("resourceVersion should not be set on objects to be created")
        asked, heard = self._read(call, asked)
        row, warnings = await self._create(call.stored, asked)
        return self._answer(call, row, heard + warnings, 201)

    async def replace(self, call: Call) -> Response:
        """The object, or its status, as a whole."""
        asked = named(await document(call.request), call.target)
        pinned = map_at(asked, "metadata").get("resourceVersion", "")

        def make(row: Row | None) -> Json:
            return asked

        return await self._change(call, make, pinned=bool(pinned))

    async def patch(self, call: Call) -> Response:
        """Changes of the object, or of its status."""
        kind = media_type(call.request)
        if kind == _APPLY:
            return await self._apply(call)
        content = await body(call.request, OBJECT_BYTES)
        change = patch_of(kind, content, call.target)
        pinned = False

        def make(row: Row | None) -> Json:
            nonlocal pinned
            assert row is not None
            current = _shown(row, call.target)
            wanted = change(current)
            given = map_at(wanted, "metadata").get("resourceVersion")
            pinned = given is not None and given != current["metadata"]["resourceVersion"]
            return named(wanted, call.target)

        return await self._change(call, make, pinned=lambda: pinned)

    async def _change(self, call: Call, make: Make, *, pinned: bool | Callable[[], bool]) -> Response:
        for _ in range(_TRIES):
            row = self._reader.existing(call.target)
            wanted, heard = self._read(call, make(row))
            fixed = pinned if isinstance(pinned, bool) else pinned()
            try:
                after, warnings = await self._update(call.stored, row, wanted, pinned=fixed)
            except ConflictError:
                if fixed or self._store.get(row.ref) == row:
                    raise
                continue
            return self._answer(call, after, heard + warnings)
        raise ConflictError(f"{call.target.ref.short} changes too fast", remedy="try again")

    def _read(self, call: Call, asked: Json) -> tuple[Json, list[str]]:
        """A document in the version that is stored, and what its author should hear."""
        target = call.target
        if target.form.view is None:
            return asked, []
        seen = self._validate(target.resource, target.form, asked, None, call.unknown)
        return target.form.view.read(seen.document), list(seen.warnings)

    async def _apply(self, asked: Call) -> Response:
        call = asked.stored
        if not call.request.query_params.get("fieldManager"):
            raise BadRequestError("fieldManager is required for apply patch", remedy="set fieldManager")
        force = call.request.query_params.get("force", "").lower() in ("1", "true")
        config, heard = self._read(asked, named(await document(call.request), asked.target))
        if map_at(config, "metadata").get("managedFields"):
            raise BadRequestError("metadata.managedFields must be nil", remedy="leave it out of what is applied")
        given = map_at(config, "metadata").get("resourceVersion")
        by = self._writer(call)
        schema = call.target.form.schema
        for _ in range(_TRIES):
            row = self._store.get(call.target.ref)
            if row is None:
                if call.target.part:
                    raise NotFoundError(not_found(call.target))
                wanted, entries = managed.applied((), {}, config, schema, by, force=force)
                made, warnings = await self._create(call, wanted, entries=entries)
                return self._answer(asked, made, heard + warnings, 201)
            live = row.decode(call.target.api_version)
            part = _part(live, call.target)
            wanted, entries = managed.applied(
                managed.of_row(row), part, _part(config, call.target), schema, by, force=force
            )
            wanted["metadata"]["resourceVersion"] = given or str(row.revision)
            if call.target.part == "status":
                wanted = {**live, "status": map_at(wanted, "status")}
            elif call.target.form.status:
                wanted |= {"status": live["status"]} if "status" in live else {}
            try:
                after, warnings = await self._update(call, row, wanted, pinned=bool(given), entries=entries)
            except ConflictError:
                if given or self._store.get(row.ref) == row:
                    raise
                continue
            return self._answer(asked, after, heard + warnings)
        raise ConflictError(f"{call.target.ref.short} changes too fast", remedy="try again")

    async def _create(
        self, call: Call, asked: Json, entries: list[Entry] | None = None
    ) -> tuple[Row | Json, list[str]]:
        target = call.target
        if target.form.status:
            asked = {name: part for name, part in asked.items() if name != "status"}
        asked = self._stored(asked, target)
        asking = Admitting("CREATE", target, call.user, call.dry_run, asked, None, call.manager)
        found = await self._admitted(call, asking)
        seen, warnings = found.document, list(found.warnings)
        self._guard.check(call.user, seen, None)
        if entries is None:
            entries = managed.updated((), {}, seen, target.form.schema, self._writer(call))
        said = _said(seen, found, call.source)
        rows = await self._write(call, Create(seen, managed.encoded(entries), call.source, said))
        row = rows[0]
        assert row is not None
        if row.owners and not call.dry_run:
            await self._end_orphan(row)
        return row, warnings

    async def _update(
        self, call: Call, row: Row, wanted: Json, *, pinned: bool, entries: list[Entry] | None = None
    ) -> tuple[Row | Json, list[str]]:
        target = call.target
        before = row.decode(target.api_version)
        given = map_at(wanted, "metadata")
        wanted = self._stored(wanted, target)
        if given.get("uid") and given["uid"] != before["metadata"]["uid"]:
            raise ConflictError(f"{row.ref.short} is another object than that with uid {given['uid']}")
        if target.part == "status":
            wanted = {**before, "apiVersion": wanted["apiVersion"], "status": map_at(wanted, "status")}
        elif target.form.status:
            wanted = {name: part for name, part in wanted.items() if name != "status"}
            wanted |= {"status": before["status"]} if "status" in before else {}
        version = given.get("resourceVersion") if pinned else str(row.revision)
        asking = Admitting("UPDATE", target, call.user, call.dry_run, wanted, before, call.manager)
        found = await self._admitted(call, asking)
        seen, warnings = found.document, list(found.warnings)
        self._guard.check(call.user, seen, before)
        seen = {**seen, "metadata": {**seen["metadata"], "resourceVersion": version}}
        if entries is None:
            entries = managed.updated(
                managed.given(given, before, row),
                _part(before, target),
                _part(seen, target),
                target.form.schema,
                self._writer(call),
            )
        content = managed.encoded(entries)
        if target.part == "status":
            operation: Operation = PutStatus(seen, content)
        else:
            said = _said(seen, found, call.source or row.source)
            operation = Replace(seen, content, not target.form.status, call.source, said)
        rows = await self._write(call, operation)
        return rows[0] or seen, warnings

    async def _admitted(self, call: Call, asking: Admitting) -> Validated:
        """The document after all webhooks and checks, and what they say."""
        changed, warnings = await self._admission.mutate(asking)
        target = call.target
        if target.part == "status" and target.resource.kind_of is not None:
            found = Validated(changed)
        else:
            found = self._validate(target.resource, target.form, changed, asking.before, call.unknown)
        more = await self._admission.validate(msgspec.structs.replace(asking, document=found.document))
        return msgspec.structs.replace(found, warnings=[*warnings, *found.warnings, *more])

    async def _end_orphan(self, row: Row) -> None:
        """Ends an object whose owners were gone before it was made."""
        references: list[Json] = row.decode()["metadata"].get("ownerReferences") or []
        for each in references:
            group = str(each.get("apiVersion", "")).rpartition("/")[0]
            resource = self._resources.of((group, str(each.get("kind"))))
            if resource is None:
                return
            name = str(each.get("name"))
            owner = self._store.get(Ref(*resource.collection, row.ref.namespace, name))
            owner = owner or self._store.get(Ref(*resource.collection, "", name))
            if owner is not None and owner.decode()["metadata"]["uid"] == each.get("uid"):
                return
        await self._store.write([Delete(row.ref)], author="owner references")

    # -- scale -----------------------------------------------------------------------------------------

    def scale(self, target: Target) -> Response:
        """The number of replicas."""
        return json_response(scale_document(self._reader.existing(target), _scale(target)))

    async def rescale(self, call: Call) -> Response:
        """Sets the number of replicas."""
        scale = _scale(call.target)
        content = await body(call.request, OBJECT_BYTES)
        kind = media_type(call.request)
        replacing = call.request.method == "PUT"
        whole = msgspec.structs.replace(call.target, part="")
        inner = msgspec.structs.replace(call, target=whole)

        def make(row: Row | None) -> Json:
            assert row is not None
            there = scale_document(row, scale)
            asked = decoded(content, dict[str, Any]) if replacing else patch_of(kind, content, None)(there)
            given = map_at(asked, "metadata").get("resourceVersion")
            if given and given != str(row.revision):
                raise ConflictError(f"{row.ref.short} has changed", remedy="read it again")
            wanted = value_at(asked, ("spec", "replicas"))
            if not isinstance(wanted, int) or wanted < 0:
                raise InvalidError("spec.replicas is no number from 0", remedy="set spec.replicas")
            return with_replicas(row.decode(call.target.api_version), scale, wanted)

        answer = await self._change(inner, make, pinned=False)
        row = self._store.get(call.target.ref)
        return answer if row is None else json_response(scale_document(row, scale))

    # -- deletion --------------------------------------------------------------------------------------

    async def delete(self, call: Call) -> Response:
        """The end of one object."""
        row = self._reader.existing(call.target)
        left, warnings = await self._end(call, row, await document(call.request))
        if left is not None:
            return self._answer(call, left, warnings)
        details = {
            "name": row.ref.name,
            "group": row.ref.group,
            "kind": call.target.resource.plural,
            "uid": row.decode()["metadata"]["uid"],
        }
        return with_warnings(json_response(_success(details)), warnings)

    async def evict(self, call: Call) -> Response:
        """The end of a Pod for the sake of its node (policy/v1 Eviction): nothing here forbids one."""
        asked = await document(call.request)
        if asked.get("kind") != "Eviction":
            raise BadRequestError("the body is no Eviction", remedy="send apiVersion policy/v1, kind Eviction")
        _, warnings = await self._end(call, self._reader.existing(call.target), map_at(asked, "deleteOptions"))
        return with_warnings(json_response(_success({}), 201), warnings)

    async def _end(self, call: Call, row: Row, options: Json) -> tuple[Row | None, list[str]]:
        conditions: Json = map_at(options, "preconditions")
        warnings = await self._admit_end(call, row)
        operation = deletion_of(call.request, options, row)
        operation = msgspec.structs.replace(
            operation,
            uid=conditions.get("uid") or "",
            revision=number("resourceVersion", conditions.get("resourceVersion") or 0),
        )
        left = await self._write(call, operation, dry_run=call.dry_run or bool(options.get("dryRun")))
        return left[0], warnings

    async def delete_all(self, call: Call) -> Response:
        """The end of all that a selector means, in one transaction."""
        options = await document(call.request)
        rows = self._reader.matching(call.target, selector_of(call.request, call.target))
        for row in rows:
            await self._admit_end(call, row)
        operations = [deletion_of(call.request, options, row) for row in rows]
        await self._store.write(operations, author=call.author, dry_run=call.dry_run)
        metadata = {"resourceVersion": str(self._store.revision)}
        return json_response(await Shown(call.request, call.target, self._now()).list(rows, metadata))

    async def _admit_end(self, call: Call, row: Row) -> list[str]:
        target = msgspec.structs.replace(call.target.stored, name=row.ref.name, namespace=row.ref.namespace)
        before = row.decode(target.api_version)
        asking = Admitting("DELETE", target, call.user, call.dry_run, None, before, call.manager)
        return await self._admission.validate(asking)

    # -- lateen's own ----------------------------------------------------------------------------------

    async def set_findings(self, call: Call) -> Response:
        """What one origin has to say about an object."""
        found = decoded(await body(call.request, OBJECT_BYTES), tuple[Finding, ...])
        row = (await self._write(call, SetFindings(call.target.ref, call.target.rest, found)))[0]
        assert row is not None
        return self._answer(call, row, [])

    # -- inside ----------------------------------------------------------------------------------------

    async def _write(self, call: Call, operation: Operation, *, dry_run: bool = False) -> list[Row | None]:
        return await self._store.write([operation], author=call.author, dry_run=dry_run or call.dry_run)

    def _writer(self, call: Call) -> Writer:
        part = call.target.part
        return Writer(call.manager, call.target.api_version, part, self._now().strftime(_TIME))

    def _stored(self, asked: Json, target: Target) -> Json:
        """The document in the version that is stored."""
        return {**asked, "apiVersion": target.api_version, "kind": target.resource.kind}

    def _answer(self, call: Call, row: Row | Json, warnings: list[str], status: int = 200) -> Response:
        shown = Shown(call.request, call.target, self._now())
        view = call.target.form.view
        content = shown.object(row) if isinstance(row, Row) else msgspec.json.encode(view.show(row) if view else row)
        return with_warnings(json_response(content, status), warnings)


def _success(details: Json) -> Json:
    head: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**head, "details": details} if details else head


def _said(document: Json, found: Validated, source: bytes) -> tuple[Finding, ...]:
    """What is kept of the checks' findings: nothing about what a controller made, since its template says it."""
    owners: list[Json] = map_at(document, "metadata").get("ownerReferences") or []
    if any(each.get("controller") for each in owners):
        return ()
    return tuple(placed(each, source) for each in found.findings)


def _shown(row: Row, target: Target) -> Json:
    """An object in the version that was asked for."""
    view = target.form.view
    return row.decode(target.api_version) if view is None else view.show(row.decode(view.api_version))


def _scale(target: Target) -> Scale:
    assert target.form.scale is not None
    return target.form.scale


def _part(of: Json, target: Target) -> Json:
    """What of a document the part that is written owns."""
    if target.part == "status":
        kept = {name: each for name, each in of.items() if name in ("apiVersion", "kind", "status")}
        metadata: Json = map_at(of, "metadata")
        return {**kept, "metadata": {name: metadata[name] for name in ("name", "namespace") if name in metadata}}
    return {name: each for name, each in of.items() if name != "status"} if target.form.status else of
