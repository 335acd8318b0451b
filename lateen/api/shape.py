"""The shape of raw JSON against the API types: unknown fields, wrong types, bounds, one-of groups.

The types are introspected once into a tree of checking functions; checking walks the document with them and
collects every error, because a person wants all of them at once. What passes here decodes; the rules of the
types themselves (`Struct.problems`) come after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeAlias, cast

import msgspec
from msgspec import inspect

from lateen.api.codec import decode_base64
from lateen.api.struct import ObjectMeta, Struct
from lateen.api.types import struct_type
from lateen.lib.durations import Duration, parse_duration
from lateen.lib.quantities import Quantity, parse_quantity
from lateen.lib.secrets import MaskedBase64
from lateen.lib.suggest import did_you_mean
from lateen.lib.yaml import Path

MANAGED: dict[type[Struct], frozenset[str]] = {
    ObjectMeta: frozenset(
        {"resourceVersion", "generation", "managedFields", "selfLink", "deletionGracePeriodSeconds", "clusterName"}
    )
}
"""Fields that documents may have and that belong to the store: known, but no part of the types."""


UNKNOWN_FIELD = "there is no field "
"""How messages on unknown fields begin."""
_SURROGATE = "the text has half of a surrogate pair"
_SURROGATE_REMEDY = "write the character itself"


class Fault(msgspec.Struct, frozen=True):
    """One error. `key` is true when it is about the name of the field, not its value, and `unknown` when there is
    no such field."""

    path: Path
    message: str
    remedy: str = ""
    key: bool = False
    unknown: bool = False


Faults: TypeAlias = list[Fault]
Checker: TypeAlias = Callable[[Any, Path, Faults], None]


class Shape(msgspec.Struct, frozen=True):
    """The checkers of one struct type: `fields` by wire name, each with what is inside of it."""

    type: type[Struct]
    fields: dict[str, tuple[Checker, inspect.Type]]
    required: tuple[str, ...]


def check_struct(
    kind: type[Struct], raw: Any, path: Path, faults: Faults, *, skip: frozenset[str] = frozenset()
) -> None:
    """Adds what is wrong with raw JSON that should be a struct of that type, except inside of the fields `skip`."""
    if not isinstance(raw, dict):
        faults.append(_wrong(path, "a mapping of fields", raw))
        return
    shape = _shape(kind)
    fields = shape.fields
    body = cast("dict[Any, Any]", raw)
    for name, value in body.items():
        entry = fields.get(name)
        if entry is None:
            _unknown(shape, name, path, faults)
        elif value is not None and name not in skip:
            entry[0](value, (*path, name), faults)
    for name in shape.required:
        if body.get(name) is None:
            faults.append(Fault(path, f'"{name}" is missing', f'set "{name}"'))
    if kind.AT_MOST_ONE:
        _groups(kind, body, path, faults)


def children(kind: type[Struct], raw: Any, path: Path) -> Iterator[tuple[type[Struct], Any, Path]]:
    """The structs directly inside of one, as far as the raw JSON has their place."""
    if isinstance(raw, dict):
        fields = _shape(kind).fields
        for name, value in cast("dict[Any, Any]", raw).items():
            if name in fields:
                yield from _structs(fields[name][1], value, (*path, name))


def _structs(node: inspect.Type, raw: Any, path: Path) -> Iterator[tuple[type[Struct], Any, Path]]:
    node = _bare(node)[0]
    if isinstance(node, inspect.StructType):
        yield cast("type[Struct]", node.cls), raw, path
    elif isinstance(node, inspect.VarTupleType) and isinstance(raw, list):
        for index, item in enumerate(cast("list[Any]", raw)):
            yield from _structs(node.item_type, item, (*path, index))
    elif isinstance(node, inspect.DictType) and isinstance(raw, dict):
        for key, item in cast("dict[str, Any]", raw).items():
            yield from _structs(node.value_type, item, (*path, key))


@cache
def _shape(kind: type[Struct]) -> Shape:
    info = struct_type(kind)
    return Shape(
        kind,
        {each.encode_name: (_checker(each.type), each.type) for each in info.fields},
        tuple(each.encode_name for each in info.fields if each.required),
    )


def _bare(node: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """A type without `| None` and metadata, and what the metadata says."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(node, inspect.Metadata):
            extra |= cast("dict[str, Any]", node.extra or {})  # pyright: ignore[reportUnknownMemberType] -- untyped
            node = node.type
        elif isinstance(node, inspect.UnionType):
            others = [each for each in node.types if not isinstance(each, inspect.NoneType)]
            if len(others) > 1:
                return node, extra
            node = others[0]
        else:
            return node, extra


def _checker(typed: inspect.Type) -> Checker:
    node, extra = _bare(typed)
    match node:
        case inspect.StructType():
            kind = cast("type[Struct]", node.cls)
            return lambda raw, path, faults: check_struct(kind, raw, path, faults)
        case inspect.VarTupleType():
            return _list(_checker(node.item_type), node.min_length or 0, node.max_length)
        case inspect.DictType():
            return _mapping(_checker(node.value_type), node.min_length or 0, node.max_length)
        case inspect.StrType():
            return _text(node, base64=bool(extra.get("base64")))
        case inspect.LiteralType():
            return _literal(tuple(map(str, node.values)))
        case inspect.BoolType():
            return _flag
        case inspect.IntType() | inspect.FloatType():
            return _number(whole=isinstance(node, inspect.IntType), low=node.ge, high=node.le)
        case inspect.CustomType():
            return _custom(node.cls, extra)
        case inspect.UnionType():
            return _int_or_text
        case inspect.AnyType():
            return _free
        case _:
            raise TypeError(f"no checker for {node}")


# -- structs -------------------------------------------------------------------------------------------


def _unknown(shape: Shape, name: object, path: Path, faults: Faults) -> None:
    if not isinstance(name, str):
        faults.append(Fault(path, f"key {name!r} is not text", "put it in quotes"))
        return
    if name in MANAGED.get(shape.type, ()):
        return
    remedy = did_you_mean(name, shape.fields)
    faults.append(Fault((*path, name), f'{UNKNOWN_FIELD}"{name}" here', remedy, key=True, unknown=True))


def _groups(kind: type[Struct], body: dict[Any, Any], path: Path, faults: Faults) -> None:
    for group in kind.AT_MOST_ONE:
        present = [name for name in group if body.get(name) is not None]
        if len(present) > 1:
            names = " and ".join(f'"{name}"' for name in present)
            faults.append(Fault((*path, present[-1]), f"{names} exclude each other", "keep one of them", key=True))


# -- values --------------------------------------------------------------------------------------------


def _wrong(path: Path, expected: str, raw: object) -> Fault:
    remedy = ""
    if expected == "text" and isinstance(raw, (bool, int, float)):
        remedy = "put it in quotes"
    elif expected.startswith("a list") and not isinstance(raw, list):
        remedy = "start each item with '- '"
    elif isinstance(raw, str) and ("number" in expected or expected == "true or false"):
        remedy = "leave the quotes out" if _scalar_like(raw) else ""
    found = _described(cast("object", raw))
    return Fault(path, f"expected {expected}, found {found}", remedy)


def _scalar_like(text: str) -> bool:
    return text in ("true", "false") or bool(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text))


def _described(raw: object) -> str:
    match raw:
        case None:
            return "nothing"
        case bool():
            return "true" if raw else "false"
        case str():
            return f'text "{raw[:60]}"'
        case int() | float():
            return f"number {str(raw)[:60]}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return type(raw).__name__


def _list(item: Checker, low: int, high: int | None) -> Checker:
    def check(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, list):
            faults.append(_wrong(path, "a list", raw))
            return
        items = cast("list[Any]", raw)
        _length(len(items), low, high, "items", path, faults)
        for index, each in enumerate(items):
            if each is None:
                faults.append(_wrong((*path, index), "an item", each))
            else:
                item(each, (*path, index), faults)

    return check


def _mapping(value: Checker, low: int = 0, high: int | None = None) -> Checker:
    def check(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, dict):
            faults.append(_wrong(path, "a mapping", raw))
            return
        items = cast("dict[Any, Any]", raw)
        _length(len(items), low, high, "entries", path, faults)
        for key, each in items.items():
            if not isinstance(key, str):
                faults.append(Fault(path, f"key {key!r} is not text", "put it in quotes"))
            elif each is None and value is not _free:
                faults.append(Fault((*path, key), f'"{key}" has no value', 'write "" for an empty text'))
            else:
                value(each, (*path, key), faults)

    return check


def _free(raw: Any, path: Path, faults: Faults) -> None:
    """Any JSON, in fields that the types leave open."""
    if isinstance(raw, str) and not _unicode(raw):
        faults.append(Fault(path, _SURROGATE, _SURROGATE_REMEDY))
    elif isinstance(raw, list):
        for index, each in enumerate(cast("list[Any]", raw)):
            _free(each, (*path, index), faults)
    elif isinstance(raw, dict):
        _FREE_MAPPING(raw, path, faults)


def _length(count: int, low: int, high: int | None, what: str, path: Path, faults: Faults) -> None:
    if count < low or (high is not None and count > high):
        bounds = f"at least {low}" if high is None or count < low else f"at most {high}"
        faults.append(Fault(path, f"expected {bounds} {what}, found {count}"))


def _text(node: inspect.StrType, *, base64: bool) -> Checker:
    low, high = node.min_length or 0, node.max_length
    pattern = re.compile(node.pattern) if node.pattern else None

    def check(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, str):
            faults.append(_wrong(path, "text", raw))
        elif not _unicode(raw):
            faults.append(Fault(path, _SURROGATE, _SURROGATE_REMEDY))
        elif len(raw) < low:
            faults.append(Fault(path, "the text is empty", "give it a value"))
        elif high is not None and len(raw) > high:
            faults.append(Fault(path, f"the text has {len(raw)} characters; at most {high} are allowed"))
        elif pattern is not None and not pattern.search(raw):
            faults.append(Fault(path, f'"{raw[:60]}" does not have the form {pattern.pattern}'))
        elif base64:
            _base64(raw, path, faults)

    return check


def _unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(raw: str, path: Path, faults: Faults) -> None:
    try:
        decode_base64(raw)
    except ValueError:
        faults.append(Fault(path, "the value is not base64", "encode it, or use the field for plain text"))


def _literal(values: tuple[str, ...]) -> Checker:
    known = frozenset(values)

    def check(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, str):
            faults.append(_wrong(path, f"one of {', '.join(values)}", raw))
        elif raw not in known:
            remedy = did_you_mean(raw, values, at_most=0)
            faults.append(Fault(path, f'"{raw[:60]}" is not one of {", ".join(values)}', remedy))

    return check


def _flag(raw: Any, path: Path, faults: Faults) -> None:
    if not isinstance(raw, bool):
        faults.append(_wrong(path, "true or false", raw))


def _number(*, whole: bool, low: float | None, high: float | None) -> Checker:
    expected = "a whole number" if whole else "a number"

    def check(raw: Any, path: Path, faults: Faults) -> None:
        if isinstance(raw, bool) or not isinstance(raw, int if whole else (int, float)):
            faults.append(_wrong(path, expected, raw))
        elif (low is not None and raw < low) or (high is not None and raw > high):
            bounds = f"at least {low}" if high is None else f"{low} to {high}" if low is not None else f"at most {high}"
            faults.append(Fault(path, f"expected {bounds}, found {raw}"))
        elif not -(2**63) <= raw < 2**64:
            faults.append(Fault(path, "the number is too large"))

    return check


def _int_or_text(raw: Any, path: Path, faults: Faults) -> None:
    if isinstance(raw, bool) or not isinstance(raw, (int, str)):
        faults.append(_wrong(path, "a number or a name", raw))
    elif isinstance(raw, str) and not _unicode(raw):
        faults.append(Fault(path, _SURROGATE, _SURROGATE_REMEDY))


def _custom(kind: type, extra: dict[str, Any]) -> Checker:
    if kind is Duration:
        return _duration(int(extra.get("min_nanoseconds", -(2**63))))
    if kind is Quantity:
        return _quantity

    def masked(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, str) or not _unicode(raw):
            # The value is not shown: it may be a secret.
            faults.append(Fault(path, "expected text", "put it in quotes"))
        elif kind is MaskedBase64:
            _base64(raw, path, faults)

    return masked


def _duration(least: int) -> Checker:
    def check(raw: Any, path: Path, faults: Faults) -> None:
        if not isinstance(raw, str):
            number = raw if isinstance(raw, int) and not isinstance(raw, bool) else 5
            faults.append(Fault(path, f"expected a duration, found {_described(raw)}", f'add a unit: "{number}s"'))
            return
        try:
            duration = parse_duration(raw)
        except ValueError as error:
            faults.append(Fault(path, str(error), "write numbers with units: h, m, s, ms"))
            return
        if duration.nanoseconds < least:
            faults.append(Fault(path, f'"{raw}" is shorter than {Duration(least)}', "leave the field out, or set more"))

    return check


def _quantity(raw: Any, path: Path, faults: Faults) -> None:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        faults.append(_wrong(path, "a quantity like 100m or 128Mi", raw))
        return
    try:
        parse_quantity(raw)
    except ValueError as error:
        faults.append(Fault(path, str(error)))


_FREE_MAPPING = _mapping(_free)
