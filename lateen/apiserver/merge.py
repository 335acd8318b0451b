"""How two JSON objects become one: JSON merge patch (RFC 7386)."""

from __future__ import annotations

from typing import Any

from lateen.api.struct import Json


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces. Arguments stay as they are."""
    if not isinstance(patch, dict):
        return patch
    merged: Json = dict(target) if isinstance(target, dict) else {}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    changes: Json = patch  # pyright: ignore[reportUnknownVariableType]
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
