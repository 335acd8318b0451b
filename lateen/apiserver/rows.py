"""What the store keeps of one object: metadata, body and status apart, each as the JSON it came in.

Raw JSON survives fields that lateen does not know, and makes a response a concatenation. The body is everything
beside apiVersion, kind, metadata and status: `spec` for most kinds, `data` and the like for the others.
`resourceVersion` and `generation` are the row's own and are written into the metadata when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lateen.api.struct import Json
from lateen.lib.ids import Ref

EMPTY = b"{}"


class Held(msgspec.Struct, frozen=True):
    """An object that proxies refused: queries read these last good parts (None: there never were any) instead."""

    reason: str
    metadata: bytes | None = None
    body: bytes | None = None


class Row(msgspec.Struct, frozen=True):
    """One object at one revision. `source` is where it was written (`{"file", "lines": {path: [line, column]}}`),
    `findings` a JSON list for each origin, `managed` the JSON list of `metadata.managedFields`. `labels`, `owners`
    (uids) and `deleting` are read off the metadata."""

    ref: Ref
    api_version: str
    metadata: bytes
    body: bytes
    status: bytes
    revision: int
    generation: int
    author: str = ""
    source: bytes = b""
    findings: Mapping[str, bytes] = {}
    held: Held | None = None
    managed: bytes = b""
    labels: Mapping[str, str] = {}
    owners: tuple[str, ...] = ()
    deleting: bool = False

    def document(self, api_version: str = "") -> bytes:
        """The object as the API shows it, in that version (empty: the stored one): what was asked for, with findings
        inside its status."""
        return _join(self, self.metadata, self.body, self._status_with_findings(), api_version, self.managed)

    def accepted(self) -> bytes | None:
        """The object as queries see it, or None while no version of it is good."""
        if self.held is None:
            return _join(self, self.metadata, self.body, self.status)
        if self.held.metadata is None or self.held.body is None:
            return None
        return _join(self, self.held.metadata, self.held.body, self.status)

    def decode(self, api_version: str = "") -> Json:
        """`document()` as a value."""
        return msgspec.json.decode(self.document(api_version))

    def _status_with_findings(self) -> bytes:
        found = [part[1:-1] for part in self.findings.values() if part != b"[]"]
        if not found:
            return self.status
        listed = b'"findings":[' + b",".join(found) + b"]"
        return b"{" + listed + (b"," + self.status[1:] if self.status != EMPTY else b"}")


class Change(msgspec.Struct, frozen=True):
    """One object before and after one revision; None where there is none."""

    revision: int
    before: Row | None
    after: Row | None

    @property
    def row(self) -> Row:
        """The object that changed: as it is now, or as it last was."""
        row = self.after or self.before
        assert row is not None
        return row


class Mark(msgspec.Struct, frozen=True, rename="camel"):
    """Errors of the calls of a host that rose right after a revision; `others` revisions came so close to it that they
    cannot be told apart."""

    host: str
    what: str
    before: str
    after: str
    others: int = 0

    def __str__(self) -> str:
        close = f" (or one of {self.others} changes beside it)" if self.others else ""
        return f"{self.what} of {self.host} rose from {self.before} to {self.after} requests after this change{close}"


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of an object's history. `action` is create, update or delete; `condemned`: proxies refused it."""

    revision: int
    ref: Ref
    at: str
    author: str
    action: str
    api_version: str
    metadata: msgspec.Raw
    body: msgspec.Raw
    condemned: bool = False
    marks: tuple[Mark, ...] = ()

    @property
    def good(self) -> bool:
        """True when nothing speaks against going back to it."""
        return not self.condemned and not self.marks

    def document(self) -> Json:
        """The object as it was asked for, without a status."""
        body: Json = msgspec.json.decode(self.body)
        metadata: Json = msgspec.json.decode(self.metadata)
        return {"apiVersion": self.api_version, "kind": self.ref.kind, "metadata": metadata, **body}


class Facts(msgspec.Struct, frozen=True):
    """What rows keep of their metadata in the open."""

    labels: Mapping[str, str]
    owners: tuple[str, ...]
    deleting: bool


def facts_of(metadata: Json) -> Facts:
    """The facts of some metadata."""
    owners: list[Json] = metadata.get("ownerReferences") or []
    return Facts(
        metadata.get("labels") or {},
        tuple(each.get("uid", "") for each in owners),
        "deletionTimestamp" in metadata,
    )


def _join(row: Row, metadata: bytes, body: bytes, status: bytes, api_version: str = "", managed: bytes = b"") -> bytes:
    own = f'"resourceVersion":"{row.revision}","generation":{row.generation}'.encode()
    if managed:
        own += b',"managedFields":' + managed
    version = _text(api_version or row.api_version)
    head = b'{"apiVersion":' + version + b',"kind":' + _text(row.ref.kind) + b',"metadata":'
    parts = [head, metadata[:-1], b"," if metadata != EMPTY else b"", own, b"}"]
    if body != EMPTY:
        parts += [b",", body[1:-1]]
    if status != EMPTY:
        parts += [b',"status":', status]
    parts.append(b"}")
    return b"".join(parts)


def _text(value: str) -> bytes:
    return msgspec.json.encode(value)
