"""How two JSON objects become one: JSON merge patch (RFC 7386), and the three-way merge of `apply`."""

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


def three_way(applied: Json, current: Json, wanted: Json) -> Json:
    """What `apply` makes of an object: fields of the last apply that are gone now are removed, wanted ones set, and
    those that others have set (an allocated address, say) stay. Lists are single values."""
    merged = {key: value for key, value in current.items() if key in wanted or key not in applied}
    for key, value in wanted.items():
        there, before = merged.get(key), applied.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merged[key] = three_way(
                before if isinstance(before, dict) else {},  # pyright: ignore[reportUnknownArgumentType]
                there,  # pyright: ignore[reportUnknownArgumentType]
                value,  # pyright: ignore[reportUnknownArgumentType]
            )
        else:
            merged[key] = value
    return merged
