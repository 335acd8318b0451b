"""Messages from users: JSON to protobuf, and one message merged into another as Istio's patches mean it.

A merge differs from protobuf's own in three things: what is packed in an `Any` of the same type is merged inside,
durations and wrapped scalars are replaced as a whole (0s is a value), and lists can be replaced instead of extended,
though not those inside of an `Any`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeVar

from google.protobuf import symbol_database
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from lateen.features.encoding import pack

T = TypeVar("T", bound=Message)

_VALUES: Final = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"}) | frozenset(
    f"google.protobuf.{each}Value" for each in ("Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
)
_STRINGS: Final = frozenset({"google.protobuf.StringValue", "google.protobuf.BytesValue"})


class NoMessageError(Exception):
    """A value that is no message of the type it should be; the text says why."""


def parse(value: Mapping[str, Any], into: T) -> T:
    """The message that a JSON value describes; `into` is a new one of its type. NoMessageError when it is none."""
    _know_types(value)
    try:
        ParseDict(dict(value), into)
    except (ParseError, ValueError, TypeError) as error:
        raise NoMessageError(_short(error)) from None
    return into


def unpack(packed: AnyMessage) -> Message | None:
    """What an Any holds, or None for a type that lateen does not know."""
    kind = _message_type(packed.type_url.rpartition("/")[2])
    if kind is None:
        return None
    message = kind()
    try:
        message.ParseFromString(packed.value)
    except DecodeError:
        return None
    return message


def merge(into: Message, other: Message, *, replace_lists: bool = False) -> None:
    """Merges `other` into `into`, which has the same type."""
    if isinstance(into, AnyMessage) and isinstance(other, AnyMessage):
        _merge_any(into, other)
    else:
        _merge_fields(into, other, replace_lists=replace_lists)


def _merge_fields(into: Message, other: Message, *, replace_lists: bool) -> None:
    for field, value in other.ListFields():
        name = field.name
        if field.is_repeated:
            target = getattr(into, name)
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                _merge_map(target, value, replace_lists=replace_lists)
                continue
            if replace_lists:
                into.ClearField(name)
            getattr(into, name).MergeFrom(value)
        elif field.message_type is None:
            setattr(into, name, value)
        elif field.message_type.full_name in _VALUES | _STRINGS or not into.HasField(name):
            getattr(into, name).CopyFrom(value)
        else:
            merge(getattr(into, name), value, replace_lists=replace_lists)


def _merge_map(target: Any, other: Any, *, replace_lists: bool) -> None:
    for key, value in other.items():
        if not isinstance(value, Message):
            target[key] = value
        elif key in target:
            merge(target[key], value, replace_lists=replace_lists)
        else:
            target[key].CopyFrom(value)


def _merge_any(into: AnyMessage, other: AnyMessage) -> None:
    inner, more = unpack(into), unpack(other)
    if inner is None or more is None or inner.DESCRIPTOR is not more.DESCRIPTOR:
        into.CopyFrom(other)
        return
    merge(inner, more)
    pack(into, inner)


def _know_types(value: Any) -> None:
    """Loads the types that `@type`s name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType] (JSON)
            if key == "@type" and isinstance(inner, str):
                _message_type(inner.rpartition("/")[2])
            else:
                _know_types(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:  # pyright: ignore[reportUnknownVariableType] (JSON)
            _know_types(inner)


@cache
def _message_type(name: str) -> type[Message] | None:
    """The message type of a full name, loaded from the package that the name says; None when there is none."""
    known = symbol_database.Default()
    try:
        return known.GetSymbol(name)
    except KeyError:
        pass
    package = name.rpartition(".")[0]
    if not package.startswith(("envoy.", "xds.", "udpa.", "google.protobuf")):
        return None
    try:
        found = importlib.import_module(package)
    except ImportError:
        return None
    for each in pkgutil.iter_modules(found.__path__):
        if each.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{each.name}")
    try:
        return known.GetSymbol(name)
    except KeyError:
        return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
