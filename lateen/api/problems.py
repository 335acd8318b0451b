"""What the rules of an API type say: a place inside the value, a sentence, and what to do.

A Problem becomes a Finding when `lateen.api.check` knows the object and the document around it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lateen.lib.findings import Level
from lateen.lib.yaml import format_path

SCHEMA: Final = "IST0106"
"""The code istioctl has for documents that do not fit their schema."""
DEPRECATED: Final = "IST0002"
NO_EFFECT: Final = "LTN0006"


class Problem(msgspec.Struct, frozen=True):
    """One statement about a value. `path` is relative to it: `route[0].weight`, empty for the value itself."""

    path: str
    message: str
    remedy: str = ""
    level: Level = Level.ERROR
    code: str = SCHEMA


def at(*steps: str | int) -> str:
    """A path from its parts: names of fields, indexes, keys of mappings."""
    return format_path(steps)


def warning(path: str, message: str, remedy: str = "", code: str = SCHEMA) -> Problem:
    """A problem that does not keep the object out."""
    return Problem(path, message, remedy, Level.WARNING, code)


def deprecated(path: str, instead: str) -> Problem:
    """A field that still counts but should not be written any more."""
    return warning(path, "the field is deprecated", f"use {instead}", DEPRECATED)
