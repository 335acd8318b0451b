"""Findings: what lateen has to say about somebody's configuration.

A finding is a value, not an exception: all of an object's findings are collected, stored with it and printed
by `apply`, `get` and the console. `code` is stable (`IST....` keep istioctl's numbers, `LTN....` are
lateen's own); `remedy` says what to do.
"""

from __future__ import annotations

import enum

import msgspec

from lateen.lib.ids import Ref


class Level(enum.StrEnum):
    """ERROR refuses the object; WARNING and INFO accept it and say so."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where in a document: file name as the user gave it, line and column counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One statement about one place of one object.

    `path` is the field's path inside the object (`spec.http[0].route[1].weight`), empty for the whole object.
    """

    code: str
    level: Level
    message: str
    ref: Ref | None = None
    path: str = ""
    position: Position | None = None
    remedy: str = ""

    def __str__(self) -> str:
        where = " ".join(str(part) for part in (self.position, self.ref.short if self.ref else None, self.path) if part)
        line = f"{self.level.value} {self.code} {where}: {self.message}"
        return f"{line} ({self.remedy})" if self.remedy else line
