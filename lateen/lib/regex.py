"""Regular expressions as Envoy understands them (RE2), checked before Envoy sees them.

Python's own `re` takes expressions that Envoy refuses (look-ahead, back-references), so it cannot check them.
"""

from __future__ import annotations

import re
from typing import Any, cast

import re2

_Refused = cast("type[Exception]", re2.error)  # pyright: ignore[reportUnknownMemberType] -- untyped
_MAX_CHARACTERS = 4096


def regex_problem(pattern: str) -> str | None:
    """What is wrong with an RE2 expression, None when nothing is."""
    if len(pattern) > _MAX_CHARACTERS:
        return f"it has {len(pattern)} characters; at most {_MAX_CHARACTERS} are allowed"
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)  # pyright: ignore[reportUnknownMemberType] -- untyped
    except _Refused as refusal:
        reason: Any = refusal.args[0] if refusal.args else "it is not valid"
        return reason.decode() if isinstance(reason, bytes) else str(reason)
    return None


def rewrite_problem(pattern: str, rewrite: str) -> str | None:
    """What is wrong with a text that stands for what a valid expression matched (`\\1` is its first group)."""
    groups = cast("int", re2.compile(pattern).groups)  # pyright: ignore[reportUnknownMemberType] -- untyped
    escapes = re.findall(r"\\(.?)", rewrite)
    for each in escapes:
        if each.isascii() and each.isdigit():
            if int(each) > groups:
                return f"it has no group \\{each}"
        elif each != "\\":
            return "a backslash must stand before a digit or another backslash"
    return None
