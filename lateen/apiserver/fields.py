"""Sets of fields, by the schema of a document: which fields a document sets, what differs between two, how one is
merged into another, and how fields are taken out.

A path is a tuple of steps as Kubernetes writes them: `f:spec` a field, `k:{"name":"web"}` the item of a list with
that key, `v:"x"` a text of a set. Lists without a key, and values, are one field as a whole. A set is a plain Python
set of paths; `to_json` and `from_json` are Kubernetes' FieldsV1.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ ("Merge strategy", "Field management").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from lateen.api.schema import resolve
from lateen.api.struct import Json

Path = tuple[str, ...]
Fields = set[Path]

_NO_SCHEMA: Final[Json] = {}
_KEY_DEFAULTS: Final = {"protocol": "TCP"}
"""Keys of lists that a document may leave out, and what they are then."""
_encode: Callable[[Any], bytes] = msgspec.json.Encoder(order="deterministic").encode


# -- schemas -------------------------------------------------------------------------------------------


def child(schema: Json, name: str) -> Json:
    """The schema of a field; empty when nothing is known of it."""
    schema = resolve(schema)
    found = schema.get("properties", _NO_SCHEMA).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return resolve(found) if isinstance(found, dict) else _NO_SCHEMA  # pyright: ignore[reportUnknownArgumentType]


def items_of(schema: Json) -> Json:
    """The schema of a list's items."""
    found = resolve(schema).get("items")
    return resolve(found) if isinstance(found, dict) else _NO_SCHEMA  # pyright: ignore[reportUnknownArgumentType]


def _kind(value: Any, schema: Json) -> str:
    """How a value is merged: `map`, `items`, `set`, or `whole`."""
    if isinstance(value, dict):
        return "whole" if schema.get("x-kubernetes-map-type") == "atomic" else "map"
    if isinstance(value, list):
        match schema.get("x-kubernetes-list-type"):
            case "map":
                return "items" if all(isinstance(each, dict) for each in cast("list[Any]", value)) else "whole"
            case "set":
                return "set"
            case _:
                return "whole"
    return "whole"


def _by_key(value: Iterable[Any], schema: Json) -> dict[str, Any]:
    """Items of a keyed list or texts of a set by their steps, in order. Of doubles the last one counts."""
    if schema.get("x-kubernetes-list-type") == "set":
        return {f"v:{_encode(each).decode()}": each for each in value}
    names: list[str] = schema["x-kubernetes-list-map-keys"]
    inner = items_of(schema)
    found: dict[str, Any] = {}
    for each in value:
        key = {name: each.get(name, _default(inner, name)) for name in names}
        found[f"k:{_encode({name: part for name, part in key.items() if part is not None}).decode()}"] = each
    return found


def _default(schema: Json, name: str) -> Any:
    return child(schema, name).get("default", _KEY_DEFAULTS.get(name))


def _parts(value: Any, schema: Json, kind: str) -> Iterator[tuple[str, Any, Json]]:
    if kind == "map":
        for name, each in value.items():
            yield f"f:{name}", each, child(schema, name)
    else:
        inner = items_of(schema)
        for step, each in _by_key(value, schema).items():
            yield step, each, inner


# -- sets ----------------------------------------------------------------------------------------------


def fields_of(value: Any, schema: Json, path: Path = (), *, containers: bool = False) -> Fields:
    """The fields that a document sets. `containers`: the maps around them as well, as updates own them."""
    found: Fields = set()
    _collect(value, resolve(schema), path, found, containers=containers)
    return found


def _collect(value: Any, schema: Json, path: Path, found: Fields, *, containers: bool) -> None:
    kind = _kind(value, schema)
    if kind == "whole" or not value:
        found.add(path)
        return
    if containers and path and "properties" not in schema:
        found.add(path)
    for step, each, inner in _parts(value, schema, kind):
        here = (*path, step)
        if kind != "map":
            found.add(here)
            if kind == "set":
                continue
        _collect(each, inner, here, found, containers=containers)


class Difference(msgspec.Struct):
    """Fields that one document has and another has not, or has differently."""

    changed: Fields
    removed: Fields


def difference(before: Any, after: Any, schema: Json) -> Difference:
    """What changed between two documents; added fields are among the changed ones."""
    found = Difference(set(), set())
    _compare(before, after, resolve(schema), (), found)
    return found


def _compare(before: Any, after: Any, schema: Json, path: Path, found: Difference) -> None:
    if before == after:
        return
    kind = _kind(after, schema)
    if kind == "whole" or kind != _kind(before, schema):
        found.changed.add(path)
        if kind != "whole":
            found.changed |= fields_of(after, schema, path, containers=True)
        return
    if kind == "map":
        _compare_maps(before, after, schema, path, found)
        return
    old = {step: each for step, each, _ in _parts(before, schema, kind)}
    new = {step: (each, inner) for step, each, inner in _parts(after, schema, kind)}
    for step, (each, inner) in new.items():
        here = (*path, step)
        if step not in old:
            found.changed.add(here)
            if kind != "set":
                found.changed |= fields_of(each, inner, here, containers=True)
        elif kind != "set":
            _compare(old[step], each, inner, here, found)
    for step, each in old.items():
        if step not in new:
            here = (*path, step)
            found.removed.add(here)
            if kind != "set":
                found.removed |= fields_of(each, items_of(schema), here, containers=True)


def _compare_maps(before: Json, after: Json, schema: Json, path: Path, found: Difference) -> None:
    for name, each in after.items():
        there = name in before
        if there and before[name] == each:
            continue
        here, inner = (*path, f"f:{name}"), child(schema, name)
        if there:
            _compare(before[name], each, inner, here, found)
        else:
            found.changed.add(here)
            found.changed |= fields_of(each, inner, here, containers=True)
    for name in before.keys() - after.keys():
        here = (*path, f"f:{name}")
        found.removed.add(here)
        found.removed |= fields_of(before[name], child(schema, name), here, containers=True)


def to_json(fields: Iterable[Path]) -> Json:
    """Kubernetes' FieldsV1."""
    root: Json = {}
    ordered = sorted(fields)
    for path in ordered:
        at = root
        for step in path:
            at = at.setdefault(step, {})
        at["."] = {}
    _tidy(root)
    root.pop(".", None)
    return root


def _tidy(node: Json) -> None:
    """A field with nothing inside needs no mark of its own."""
    if len(node) == 1 and "." in node:
        del node["."]
        return
    for step, inner in node.items():
        if step != ".":
            _tidy(inner)


def from_json(node: Mapping[str, Any]) -> Fields:
    """The inverse of `to_json`."""
    found: Fields = set()

    def walk(here: Mapping[str, Any], path: Path) -> None:
        if path and (not here or "." in here):
            found.add(path)
        for step, inner in here.items():
            if step != ".":
                walk(inner, (*path, step))

    walk(node, ())
    return found


def shown(path: Path) -> str:
    """A path as people write it: `.spec.containers[name="web"].image`."""
    said = ""
    for step in path:
        kind, text = step[:2], step[2:]
        if kind == "f:":
            said += f".{text}"
        elif kind == "k:":
            key = msgspec.json.decode(text, type=dict[str, Any])
            said += "[" + ",".join(f"{name}={_encode(part).decode()}" for name, part in key.items()) + "]"
        else:
            said += f"[={text}]"
    return said


# -- documents -----------------------------------------------------------------------------------------


def merge(live: Any, wanted: Any, schema: Json) -> Any:
    """The live value with the wanted fields set; neither is changed."""
    schema = resolve(schema)
    kind = _kind(wanted, schema)
    if kind == "whole" or kind != _kind(live, schema):
        return wanted
    if kind == "map":
        merged = dict(live)
        for name, each in wanted.items():
            merged[name] = merge(live[name], each, child(schema, name)) if name in live else each
        return merged
    inner = items_of(schema)
    here, there = _by_key(live, schema), _by_key(wanted, schema)
    ordered: dict[str, Any] = {}
    coming = iter(there)
    for step in here:
        if step not in there:
            ordered[step] = here[step]
            continue
        while step not in ordered:
            ordered[next(coming)] = None
    for step in coming:
        ordered[step] = None
    return [
        here[step]
        if step not in there
        else there[step]
        if kind == "set" or step not in here
        else merge(here[step], there[step], inner)
        for step in ordered
    ]


def without(value: Any, gone: Fields, kept: Fields, schema: Json) -> Any:
    """The value without the fields `gone`; a map or item stays while one of the fields `kept` is inside of it."""
    needed = {path[:length] for path in kept for length in range(1, len(path) + 1)}
    touched = {path[:length] for path in gone for length in range(len(path) + 1)}
    return _without(value, gone, needed, touched, resolve(schema), ())


def _without(value: Any, gone: Fields, needed: Fields, touched: Fields, schema: Json, path: Path) -> Any:
    kind = _kind(value, schema)
    if kind == "whole":
        return value
    left: list[tuple[str, Any]] = []
    for step, each, inner in _parts(value, schema, kind):
        here = (*path, step)
        if here in gone and here not in needed:
            continue
        if here in touched and kind != "set":
            rest = _without(each, gone, needed, touched, inner, here)
            if rest == {} and each != {} and here not in needed:
                continue
            left.append((step, rest))
        else:
            left.append((step, each))
    return {step[2:]: each for step, each in left} if kind == "map" else [each for _, each in left]
