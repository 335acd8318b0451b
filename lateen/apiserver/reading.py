"""Reading: one object, lists with selectors and pages, watches.

A page's `continue` names a snapshot that the server keeps for a while, so all pages are of one revision; when it is
forgotten the answer is 410 with a token to go on with what is there now.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import datetime as dt
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lateen.api.struct import Json
from lateen.apiserver.bodies import number
from lateen.apiserver.errors import BadRequestError, GoneError, InvalidError, NotFoundError, to_status
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.selectors import Match, selector
from lateen.apiserver.shown import Lines, Shown, json_response
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Target
from lateen.lib.ids import Ref

_BOOKMARK_S: Final = 10.0
_GATHER_S: Final = 0.01
"""A watcher that has just been told something is told the next things after so long, together: a change that comes
alone goes at once, and many cost each watcher a hundred answers a second at most."""
_SNAPSHOTS: Final = 32
_SNAPSHOT_S: Final = 300.0


class Reader:
    """Answers reads from one store."""

    def __init__(self, store: Store, now: Callable[[], dt.datetime]) -> None:
        self._store = store
        self._now = now
        self._told = Lines()
        self._snapshots: collections.OrderedDict[str, _Snapshot] = collections.OrderedDict()

    def get(self, request: Request, target: Target) -> Response:
        """One object."""
        return json_response(Shown(request, target, self._now()).object(self.existing(target)))

    def existing(self, target: Target) -> Row:
        """The object a request names. NotFoundError."""
        row = self._store.get(target.ref)
        if row is None:
            raise NotFoundError(not_found(target), remedy="kubectl get shows what there is")
        return row

    async def list(self, request: Request, target: Target) -> Response:
        """Objects as they are now, or one page of them."""
        query = request.query_params
        match = selector_of(request, target)
        limit = number("limit", query.get("limit") or 0)
        metadata: Json = {"resourceVersion": str(self._store.revision)}
        if query.get("continue"):
            if query.get("resourceVersion", "") not in ("", "0"):
                raise BadRequestError("specifying resource version is not allowed when using continue")
            token, after = _decoded(query["continue"])
            rows, metadata["resourceVersion"] = self._continued(target, match, token, after)
        else:
            rows, token = self.matching(target, match), ""
            _check_revision(query.get("resourceVersion", ""), query.get("resourceVersionMatch", ""), self._store)
        if limit and len(rows) > limit:
            if not token:
                token = self._keep(rows, metadata["resourceVersion"])
            metadata |= {
                "continue": _encoded(token, rows[limit - 1].ref),
                "remainingItemCount": len(rows) - limit,
            }
            rows = rows[:limit]
        return json_response(await Shown(request, target, self._now()).list(rows, metadata))

    def matching(self, target: Target, match: Match) -> list[Row]:
        """What there is of a collection, by namespace and name."""
        return [row for row in self._store.list(target.resource.collection, target.namespace) if match(row)]

    def _keep(self, rows: list[Row], revision: str) -> str:
        token = secrets.token_hex(8)
        self._snapshots[token] = _Snapshot(rows, revision, time.monotonic() + _SNAPSHOT_S)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)
        return token

    def _continued(self, target: Target, match: Match, token: str, after: Ref) -> tuple[list[Row], str]:
        kept = self._snapshots.get(token)
        if token and (kept is None or kept.until < time.monotonic()):
            self._snapshots.pop(token, None)
            error = GoneError(
                "The provided continue parameter is too old to display a consistent list result.",
                remedy="list anew, or go on with the token in metadata.continue",
            )
            error.resume = _encoded("", after)
            raise error
        rows = kept.rows if kept is not None else self._store.list(target.resource.collection, target.namespace)
        return [row for row in rows if row.ref > after and match(row)], (
            kept.revision if kept is not None else str(self._store.revision)
        )

    async def watch(self, request: Request, target: Target) -> Response:
        """The changes as they come, one JSON line each."""
        lines = self._lines(request, target)
        first = await anext(lines)  # a revision that is too old is refused before the answer begins
        return StreamingResponse(_after(first, lines), media_type="application/json")

    async def _lines(self, request: Request, target: Target) -> AsyncGenerator[bytes]:
        query = request.query_params
        shown = Shown(request, target, self._now(), self._told)
        match = selector_of(request, target)
        since = query.get("resourceVersion", "")
        everything = truth(query.get("sendInitialEvents", ""))
        if query.get("sendInitialEvents") and query.get("resourceVersionMatch") != "NotOlderThan":
            raise InvalidError(
                "sendInitialEvents needs resourceVersionMatch=NotOlderThan", remedy="set resourceVersionMatch"
            )
        bookmarks = truth(query.get("allowWatchBookmarks", ""))
        collection = target.resource.collection
        initial = everything or since in ("", "0")
        start = self._store.revision if initial else number("resourceVersion", since)
        if not self._store.keeps(collection, start):
            raise GoneError(f"too old resource version: {start} ({self._store.revision})", remedy="list again")
        end = _end(query.get("timeoutSeconds", ""))
        rows = self.matching(target, match) if initial else []
        idle_s = min(_BOOKMARK_S, max(0.0, end - time.monotonic()))
        changes = self._store.changes(collection, start, namespace=target.namespace, idle_s=idle_s)
        yield b""
        if rows:
            first = Shown(request, target, self._now())  # what is there is told once, and not kept
            yield b"".join(first.event(b"ADDED", row) for row in rows)
        if everything and bookmarks:
            yield shown.bookmark(start, initial=True)
        rested = 0.0
        try:
            async for each in changes:
                lines = b"".join(_event(change, match, shown) for change in each)
                if not lines and bookmarks:
                    lines = shown.bookmark(each[-1].revision if each else self._store.revision)
                if lines:
                    yield lines
                now = time.monotonic()
                if now > end:
                    return
                if now - rested < _GATHER_S:  # one change after the other: what comes next goes together
                    await asyncio.sleep(_GATHER_S)
                    now = time.monotonic()
                rested = now
        except GoneError as error:  # the reader was too slow
            yield msgspec.json.encode({"type": "ERROR", "object": to_status(error)}) + b"\n"


class _Snapshot(msgspec.Struct, frozen=True):
    rows: list[Row]
    revision: str
    until: float


def selector_of(request: Request, target: Target) -> Match:
    """What a request selects. BadRequestError when it cannot be read, or the kind has no such field."""
    query = request.query_params
    view = target.form.view
    names = view.fields if view is not None else None
    match = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""), target.form.selectable, names)
    if not target.name:
        return match
    return lambda row: row.ref.name == target.name and match(row)


def not_found(target: Target) -> str:
    """Kubernetes' words for an object that is not there."""
    return f'{target.resource.qualified} "{target.name}" not found'


def truth(text: str) -> bool:
    """A flag of a query."""
    return text.lower() in ("1", "true", "t")


def _end(seconds: str) -> float:
    return time.monotonic() + number("timeoutSeconds", seconds) if seconds else float("inf")


def _event(change: Change, match: Match, shown: Shown) -> bytes:
    before = change.before if change.before is not None and match(change.before) else None
    after = change.after if change.after is not None and match(change.after) else None
    if after is not None:
        return shown.event(b"ADDED" if before is None else b"MODIFIED", after)
    if before is None:
        return b""
    last = msgspec.structs.replace(change.after or before, revision=change.revision)
    return shown.event(b"DELETED", last)


async def _after(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        yield first
        async for each in rest:
            yield each
    finally:
        await rest.aclose()


def _check_revision(revision: str, match: str, store: Store) -> None:
    if match and not revision:
        raise InvalidError("resourceVersionMatch is only possible with a resourceVersion", remedy="set both")
    if match == "Exact" and number("resourceVersion", revision) != store.revision:
        raise GoneError(f"the revision {revision} is not kept for lists", remedy="list without it")
    if revision:
        number("resourceVersion", revision)


def _encoded(token: str, after: Ref) -> str:
    said = msgspec.json.encode([token, after.group, after.kind, after.namespace, after.name])
    return base64.urlsafe_b64encode(said).decode().rstrip("=")


def _decoded(text: str) -> tuple[str, Ref]:
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token, *ref = msgspec.json.decode(content, type=tuple[str, str, str, str, str])
        return token, Ref(*ref)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise BadRequestError("continue key is not valid", remedy="list anew") from None
