"""The patches that clients send: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386, see `merge`) and Kubernetes'
strategic merge patch, which merges lists by the keys in the schema.

Source: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from lateen.api.schema import resolve
from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError, InvalidError
from lateen.apiserver.fields import child, items_of

_OPERATIONS_MAX: Final = 10_000


# -- JSON Patch ----------------------------------------------------------------------------------------


def json_patch(document: Json, operations: Sequence[Any]) -> Json:
    """The document after all operations. InvalidError when one cannot be done, BadRequestError for what is none."""
    if len(operations) > _OPERATIONS_MAX:
        raise BadRequestError(f"the patch has {len(operations)} operations", remedy=f"at most {_OPERATIONS_MAX}")
    root: Any = copy.deepcopy(document)
    for index, each in enumerate(operations):
        if not isinstance(each, dict) or "op" not in each or not isinstance(each.get("path"), str):  # pyright: ignore[reportUnknownMemberType]
            raise BadRequestError(f"operation {index} is none", remedy='write {"op": ..., "path": ...}')
        operation = cast("Json", each)
        try:
            root = _operate(root, operation)
        except (LookupError, ValueError, TypeError) as error:
            raise InvalidError(f"operation {index} ({operation['op']} {operation['path']}) fails: {error}") from None
    if not isinstance(root, dict):
        raise InvalidError("the patch leaves no object")
    return cast("Json", root)


def _operate(root: Any, operation: Json) -> Any:
    steps = _pointer(operation["path"])
    match operation["op"]:
        case "test":
            if _look(root, steps) != operation.get("value"):
                raise ValueError("the value is another")
            return root
        case "add":
            return _add(root, steps, copy.deepcopy(operation["value"]))
        case "replace":
            _look(root, steps)
            return _add(_remove(root, steps), steps, copy.deepcopy(operation["value"])) if steps else operation["value"]
        case "remove":
            return _remove(root, steps)
        case "copy":
            return _add(root, steps, copy.deepcopy(_look(root, _pointer(operation["from"]))))
        case "move":
            source = _pointer(operation["from"])
            if steps[: len(source)] == source and steps != source:
                raise ValueError("a value cannot move into itself")
            value = _look(root, source)
            return _add(_remove(root, source), steps, value)
        case _:
            raise ValueError("there is no such operation")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON pointer")
    return [each.replace("~1", "/").replace("~0", "~") for each in text.split("/")[1:]]


def _index(step: str, length: int) -> int:
    if not step.isdecimal() or (len(step) > 1 and step[0] == "0") or int(step) >= length:
        raise LookupError(f"there is no item {step}")
    return int(step)


def _look(root: Any, steps: Sequence[str]) -> Any:
    at = root
    for step in steps:
        if isinstance(at, list):
            at = cast("list[Any]", at)[_index(step, len(cast("list[Any]", at)))]
        elif isinstance(at, dict) and step in at:
            at = cast("Json", at)[step]
        else:
            raise LookupError(f"there is no {step}")
    return at


def _add(root: Any, steps: Sequence[str], value: Any) -> Any:
    if not steps:
        return value
    parent, last = _look(root, steps[:-1]), steps[-1]
    if isinstance(parent, list):
        items = cast("list[Any]", parent)
        items.insert(len(items) if last == "-" else _index(last, len(items) + 1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise LookupError("there is no place for it")
    return root


def _remove(root: Any, steps: Sequence[str]) -> Any:
    if not steps:
        return None
    parent, last = _look(root, steps[:-1]), steps[-1]
    _look(parent, [last])
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
    return root


# -- strategic merge patch -----------------------------------------------------------------------------

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"


def strategic_merge(target: Any, patch: Any, schema: Json) -> Any:
    """The target with the patch merged in by the schema's merge keys. BadRequestError for directives that are none."""
    if not isinstance(patch, dict):
        return patch
    schema = resolve(schema)
    changes = cast("Json", patch)
    match changes.get(_DIRECTIVE):
        case "replace":
            return {key: part for key, part in changes.items() if key != _DIRECTIVE}
        case "delete":
            return {}
        case None | "merge":
            pass
        case other:
            raise BadRequestError(f"there is no directive $patch: {other}", remedy="write replace, delete or merge")
    merged: Json = dict(cast("Json", target)) if isinstance(target, dict) else {}
    if _RETAIN in changes:
        merged = {key: part for key, part in merged.items() if key in changes[_RETAIN]}
    for name, part in changes.items():
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            merged[field] = [each for each in merged.get(field) or () if each not in part]
    for name, part in changes.items():
        if name.startswith("$"):
            continue
        inner = child(schema, name)
        if part is None:
            merged.pop(name, None)
        elif isinstance(part, list):
            order = changes.get(f"{_ORDER}{name}")
            merged[name] = _strategic_list(merged.get(name), cast("list[Any]", part), inner, order)
        else:
            merged[name] = strategic_merge(merged.get(name), part, inner)
    return merged


def _strategic_list(there: Any, patch: list[Any], schema: Json, order: Sequence[Any] | None) -> list[Any]:
    before: list[Any] = list(cast("list[Any]", there)) if isinstance(there, list) else []
    if schema.get("x-kubernetes-patch-strategy") != "merge":
        return patch
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        merged = [*before, *(each for each in patch if each not in before)]
        return _ordered(merged, list(order), _itself) if order else merged
    if any(isinstance(each, dict) and cast("Json", each).get(_DIRECTIVE) == "replace" for each in patch):
        return [each for each in patch if not (isinstance(each, dict) and _DIRECTIVE in each)]
    inner = items_of(schema)
    items: list[Json] = [dict(cast("Json", each)) for each in before]
    for each in patch:
        if not isinstance(each, dict) or each.get(key) is None:  # pyright: ignore[reportUnknownMemberType]
            raise BadRequestError(f"an item of a merged list has no {key}", remedy=f"set {key} in each item")
        change = cast("Json", each)
        at = next((index for index, item in enumerate(items) if item.get(key) == change[key]), None)
        if change.get(_DIRECTIVE) == "delete":
            items = [item for item in items if item.get(key) != change[key]]
        elif at is None:
            items.append(strategic_merge({}, change, inner))
        else:
            items[at] = strategic_merge(items[at], change, inner)
    if order:
        keys = [cast("Mapping[str, Any]", each).get(key) for each in order]

        def key_of(item: Json) -> Any:
            return item.get(key)

        return _ordered(items, keys, key_of)
    return items


def _ordered(items: list[Any], keys: list[Any], of: Any) -> list[Any]:
    """Items in the order of their keys; what has none there stays behind the item it was behind."""
    place = {_hashable(key): index for index, key in enumerate(keys)}
    last = -1
    ranked: list[tuple[int, int, Any]] = []
    for number, item in enumerate(items):
        last = place.get(_hashable(of(item)), last)
        ranked.append((last, number, item))
    return [item for _, _, item in sorted(ranked, key=lambda each: each[:2])]


def _itself(value: Any) -> Any:
    return value


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
