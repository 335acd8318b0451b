"""How answers look: the form that a client accepts, and objects, lists and events in that form.

JSON is a concatenation of what the store holds; tables and bare metadata are made from decoded documents.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lateen.api.struct import Json
from lateen.apiserver import tables
from lateen.apiserver.errors import NotAcceptableError
from lateen.apiserver.rows import Row
from lateen.apiserver.targets import Target

_JSON: Final = ("application/json", "application/*", "*/*")


_LINES_KEPT: Final = 4_096
_SLICE: Final = 100
"""How many items of a list are made at a stretch: a few milliseconds of the loop."""


class Lines:
    """Lines of watches that many watchers get alike, by what happened, revision and version: made once for all."""

    def __init__(self) -> None:
        self._lines: dict[tuple[bytes, int, str], bytes] = {}

    def of(self, kind: bytes, row: Row, version: str, document: Callable[[Row], bytes]) -> bytes:
        """The line of an event in that version, of which `document` makes the object."""
        key = (kind, row.revision, version)
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _LINES_KEPT:
                self._lines.clear()
            line = self._lines[key] = b'{"type":"' + kind + b'","object":' + document(row) + b"}\n"
        return line


class Shown:
    """One request's form. `lines`: shared with others that watch."""

    def __init__(self, request: Request, target: Target, now: dt.datetime, lines: Lines | None = None) -> None:
        self._lines = lines
        self._target = target
        self._now = now
        self._form = _wanted(request.headers.get("accept", "*/*"))
        self._include = request.query_params.get("includeObject", "Metadata")
        self._columns_told = False

    def document(self, row: Row) -> bytes:
        """One object, as JSON in the version that was asked for."""
        view = self._target.form.view
        if view is not None:
            return msgspec.json.encode(view.show(row.decode(view.api_version)))
        version = self._target.api_version
        return row.document("" if row.api_version == version else version)

    def object(self, row: Row) -> bytes:
        """One object."""
        if self._form == "":
            return self.document(row)
        document: Json = msgspec.json.decode(self.document(row))
        if self._form == "Table":
            return msgspec.json.encode(self._table([document], {"resourceVersion": str(row.revision)}))
        return msgspec.json.encode(tables.partial(document))

    async def list(self, rows: Sequence[Row], metadata: Json) -> bytes:
        """A list; `metadata` is the list's own. Others have their turn in between: lists may be long."""
        head, name, one = self._list_form()
        parts: list[bytes] = []
        for start in range(0, len(rows), _SLICE):
            parts.append(b",".join(map(one, rows[start : start + _SLICE])))
            await asyncio.sleep(0)
        said = msgspec.json.encode({**head, "metadata": metadata})
        return said[:-1] + b',"' + name + b'":[' + b",".join(parts) + b"]}"

    def _list_form(self) -> tuple[Json, bytes, Callable[[Row], bytes]]:
        """The head of a list in the form that is wanted, what its items are called, and how one is made."""
        resource, form = self._target.resource, self._target.form
        if self._form == "Table":
            head: Json = {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}
            return {**head, "columnDefinitions": tables.definitions(resource, form)}, b"rows", self._table_row
        if self._form == "PartialObjectMetadata":
            return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}, b"items", self.object
        return {"kind": resource.list_kind, "apiVersion": self._target.api_version}, b"items", self.document

    def _table_row(self, row: Row) -> bytes:
        document: Json = msgspec.json.decode(self.document(row))
        resource, form = self._target.resource, self._target.form
        return msgspec.json.encode(tables.row(resource, form, document, self._now, self._include))

    def event(self, kind: bytes, row: Row) -> bytes:
        """One line of a watch."""
        if self._lines is not None and self._form == "":
            return self._lines.of(kind, row, self._target.api_version, self.document)
        return b'{"type":"' + kind + b'","object":' + self.object(row) + b"}\n"

    def bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        """A line that says how far a watch has come; `initial`: that all that was there at its start has been told."""
        metadata: Json = {"resourceVersion": str(revision)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        document: Json = {
            "kind": self._target.resource.kind,
            "apiVersion": self._target.api_version,
            "metadata": metadata,
        }
        if self._form == "PartialObjectMetadata":
            document = tables.partial(document)
        elif self._form == "Table":
            document = self._table([document], metadata)
        return msgspec.json.encode({"type": "BOOKMARK", "object": document}) + b"\n"

    def _table(self, documents: list[Json], metadata: Json) -> Json:
        resource, form = self._target.resource, self._target.form
        columns = [] if self._columns_told else tables.definitions(resource, form)
        self._columns_told = True
        rows = [tables.row(resource, form, each, self._now, self._include) for each in documents]
        head: Json = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return {**head, "columnDefinitions": columns, "rows": rows}


def json_response(content: bytes | Any, status: int = 200) -> Response:
    """Bytes as they are, values encoded."""
    encoded = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(encoded, status, media_type="application/json")


def _wanted(accept: str) -> str:
    """`Table`, `PartialObjectMetadata`, or empty for plain JSON: the first in the header that is possible."""
    for each in accept.split(","):
        kind, *parameters = [part.strip() for part in each.split(";")]
        if kind not in _JSON:
            continue
        said = [part.removeprefix("as=") for part in parameters if part.startswith("as=")]
        form = (said or [""])[0].removesuffix("List")
        if form in ("", "Table", "PartialObjectMetadata"):
            return form
    raise NotAcceptableError(f"nothing of {accept[:200]} can be given", remedy="accept application/json")
