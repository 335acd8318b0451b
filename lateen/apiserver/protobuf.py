"""Kubernetes' protobuf form of its built-in kinds, read and never written: Go clients send it, and take JSON back.

A body is four bytes `k8s\\0` and a message with the kind's name and the object's own message. Field numbers are in
`kubernetes_fields.json`, which `scripts/kubernetes_fields.py` makes from Kubernetes' sources; this walks a message by
them. Fields that are not in the table are refused, not dropped.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ ("Kubernetes Protobuf encoding").
"""

from __future__ import annotations

import base64
import datetime as dt
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError, MediaTypeError

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_DEPTH: Final = 100

_Field = tuple[str, str, str, int]
"""Name, type, shape (`list`, `map`, `inline`: its fields stand in its place, or empty), 1 when a zero means unset."""


class _Table(msgspec.Struct, frozen=True):
    kinds: dict[str, str]
    messages: dict[str, dict[int, _Field]]


@cache
def _table() -> _Table:
    text = Path(__file__).with_name("kubernetes_fields.json").read_bytes()
    return msgspec.json.decode(text, type=_Table, strict=False)


def decode(content: bytes) -> Json:
    """The document of a body. BadRequestError when it cannot be read, MediaTypeError for kinds without that form."""
    if not content.startswith(_MAGIC):
        raise BadRequestError("the body is not Kubernetes' protobuf", remedy="send application/json")
    try:
        return _document(content[len(_MAGIC) :])
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise BadRequestError(f"the body cannot be read: {error}", remedy="send application/json") from None


def _document(content: bytes) -> Json:
    head: dict[str, str] = {}
    raw = b""
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            names = {1: "apiVersion", 2: "kind"}
            head = {names[inner]: part.decode() for inner, part in _fields(value) if isinstance(part, bytes)}
        elif number == 2 and isinstance(value, bytes):
            raw = value
        elif number == 3 and value:
            raise ValueError("compressed bodies are not read")
    table = _table()
    kind = head.get("kind", "")
    message = table.kinds.get(f"{head.get('apiVersion', '')}/{kind}") or table.kinds.get(kind)
    if message is None:
        raise MediaTypeError(f"{kind or 'this'} has no protobuf form here", remedy="send application/json")
    return {**head, **_message(message, raw, _DEPTH)}


def _message(name: str, content: bytes, depth: int) -> Json:
    if depth == 0:
        raise ValueError("the message is nested too deep")
    fields = _table().messages[name]
    found: Json = {}
    for number, value in _fields(content):
        field = fields.get(number)
        if field is None:
            raise ValueError(f"{name.rpartition('.')[2]} has no field {number}")
        label, kind, shape, zero_is_unset = field
        if shape == "map":
            key, inner = _entry(kind, value, depth)
            found.setdefault(label, {})[key] = inner
            continue
        if shape == "list":
            found.setdefault(label, []).extend(_packed(kind, value, depth))
            continue
        decoded = _value(kind, value, depth)
        if shape == "inline":
            found |= decoded
            continue
        if decoded is None or (zero_is_unset and not decoded):
            continue
        found[label] = decoded
    return found


def _entry(kind: str, value: int | bytes, depth: int) -> tuple[str, Any]:
    if not isinstance(value, bytes):
        raise ValueError("the entry of a map is no message")
    parts = dict(_fields(value))
    key = parts.get(1, b"")
    empty: int | bytes = 0 if kind in _NUMBERS else b""
    inner = _value(kind, parts.get(2, empty), depth)
    return (key.decode() if isinstance(key, bytes) else str(key)), inner


def _packed(kind: str, value: int | bytes, depth: int) -> list[Any]:
    if kind in _NUMBERS and isinstance(value, bytes):
        found: list[Any] = []
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_NUMBERS[kind](number))
        return found
    return [_value(kind, value, depth)]


def _value(kind: str, value: int | bytes, depth: int) -> Any:
    if kind in _NUMBERS:
        if not isinstance(value, int):
            raise ValueError(f"{kind} is no number")
        return _NUMBERS[kind](value)
    if not isinstance(value, bytes):
        raise ValueError(f"{kind} is a number")
    if kind == "string":
        return value.decode()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    special = _SPECIAL.get(kind.rpartition(".")[2])
    return special(value, depth, kind) if special is not None else _message(kind, value, depth - 1)


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(content, at)
            if at + size > len(content):
                raise ValueError("the message is cut off")
            yield number, content[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, int.from_bytes(content[at : at + size], "little")
            at += size
        else:
            raise ValueError(f"there is no wire type {wire}")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_NUMBERS: Final[Mapping[str, Callable[[int], Any]]] = {
    "bool": bool,
    "double": lambda value: struct.unpack("<d", value.to_bytes(8, "little"))[0],
    "int32": _signed,
    "int64": _signed,
}


# -- types with a JSON form of their own ---------------------------------------------------------------


def _numbers(value: bytes) -> dict[int, int | bytes]:
    return dict(_fields(value))


def _time(value: bytes, depth: int, kind: str) -> str | None:
    parts = _numbers(value)
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int) or not parts:
        return None
    moment = dt.datetime.fromtimestamp(_signed(seconds), dt.UTC)
    if kind.endswith(".MicroTime"):
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos // 1000:06d}Z"
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _int_or_string(value: bytes, depth: int, kind: str) -> int | str:
    parts = _numbers(value)
    if parts.get(1, 0) == 1:
        text = parts.get(3, b"")
        return text.decode() if isinstance(text, bytes) else ""
    number = parts.get(2, 0)
    return _signed(number) if isinstance(number, int) else 0


def _only(value: bytes, depth: int, kind: str) -> str:
    text = _numbers(value).get(1, b"")
    return text.decode() if isinstance(text, bytes) else ""


def _raw(value: bytes, depth: int, kind: str) -> Any:
    content = _numbers(value).get(1, b"")
    return msgspec.json.decode(content) if isinstance(content, bytes) and content else None


def _items(value: bytes, depth: int, kind: str) -> list[str]:
    return [part.decode() for number, part in _fields(value) if number == 1 and isinstance(part, bytes)]


def _or_bool(value: bytes, depth: int, kind: str) -> Any:
    parts = _numbers(value)
    schema = parts.get(2)
    if isinstance(schema, bytes):
        return _message(kind.removesuffix("OrBool"), schema, depth - 1)
    return bool(parts.get(1, 0))


def _or_list(value: bytes, depth: int, kind: str) -> Any:
    parts = _numbers(value)
    schema = parts.get(1)
    if isinstance(schema, bytes):
        return _message(kind.removesuffix("OrArray"), schema, depth - 1)
    return None


_SPECIAL: Final[Mapping[str, Callable[[bytes, int, str], Any]]] = {
    "ExtraValue": _items,
    "FieldsV1": _raw,
    "IntOrString": _int_or_string,
    "JSON": _raw,
    "JSONSchemaPropsOrArray": _or_list,
    "JSONSchemaPropsOrBool": _or_bool,
    "MicroTime": _time,
    "Quantity": _only,
    "RawExtension": _raw,
    "Time": _time,
}
