"""Regular expressions as Envoy understands them (RE2), checked before Envoy sees them.

Python's own `re` takes expressions that Envoy refuses (look-ahead, back-references), so it cannot check them.
"""

from __future__ import annotations

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
