"""Where in somebody's file each part of a stored object was written, kept beside the object.

The text itself is not kept (it may hold Secrets): only `{"file": name, "lines": {path: [line, column]}}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from lateen.lib.findings import Finding, Position
from lateen.lib.yaml import Document, Path, format_path


class _Source(msgspec.Struct, frozen=True):
    file: str
    lines: dict[str, tuple[int, int]]


def source_of(document: Document) -> bytes:
    """The map of a document; empty when it came from no file."""
    if not document.file:
        return b""
    lines: dict[str, tuple[int, int]] = {}
    for path in _paths(document.raw, ()):
        position = document.position(path)
        lines[format_path(path)] = (position.line, position.column)
    return msgspec.json.encode(_Source(document.file, lines))


def locate(source: bytes, path: str) -> Position | None:
    """The place of a path, or of the nearest part around it; None without a map."""
    if not source:
        return None
    known = msgspec.json.decode(source, type=_Source)
    while path not in known.lines and path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    line, column = known.lines.get(path, (1, 1))
    return Position(known.file, line, column)


def placed(finding: Finding, source: bytes) -> Finding:
    """The finding with the place of its path, unless it has one."""
    if finding.position is not None:
        return finding
    return msgspec.structs.replace(finding, position=locate(source, finding.path))


def _paths(raw: Any, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(raw, dict):
        for key, value in cast("dict[str, Any]", raw).items():
            yield from _paths(value, (*path, key))
    elif isinstance(raw, list):
        for index, value in enumerate(cast("list[Any]", raw)):
            yield from _paths(value, (*path, index))
