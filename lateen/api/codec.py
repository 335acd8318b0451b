"""Between documents and typed objects.

Decoding is lenient where a document may say more than the types do: unknown fields are left out of the typed
view (the store keeps the document), and a field set to null is a field that is not set. What a document must
say is `lateen.api.check`'s business; decoding never fails on a document that it has no error for.
"""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from lateen.api import kinds
from lateen.api.struct import Json, Object
from lateen.lib.durations import Duration, parse_duration
from lateen.lib.quantities import Quantity, parse_quantity
from lateen.lib.secrets import Masked, MaskedBase64, MaskedText

T = TypeVar("T")
_PREPARING: Final = threading.Lock()


class DecodeError(ValueError):
    """A document that is not an object of a known kind. The message names the place (`$.spec.http`)."""


def decode(raw: Json) -> Object:
    """The typed object of a document. DecodeError when its kind is unknown or it does not fit its type."""
    api_version, kind_name = raw.get("apiVersion"), raw.get("kind")
    kind = kinds.by_api(str(api_version), str(kind_name))
    if kind is None:
        raise DecodeError(f"there is no kind {kind_name!r} in {api_version!r}")
    return decode_as(raw, kind.type)


def decode_as(raw: Any, target: type[T]) -> T:
    """Raw JSON as a value of a type of the API. DecodeError when it does not fit."""
    prepare(target)
    try:
        return msgspec.convert(raw, target, dec_hook=_decode_hook)
    except msgspec.ValidationError as first:
        # Nulls are rare, and looking for them costs more than the conversion: only when it failed.
        without = drop_nulls(raw)
        if without is not raw:
            try:
                return msgspec.convert(without, target, dec_hook=_decode_hook)
            except msgspec.ValidationError as second:
                raise DecodeError(str(second)) from None
        raise DecodeError(str(first)) from None


@functools.cache
def prepare(target: type[Any]) -> None:
    """Lets msgspec look at a type, one thread at a time: two that do so at once for the first time crash the process
    (seen with 0.22, in the loop and in a thread that validates)."""
    with _PREPARING:
        msgspec.json.Decoder(target)


def encode(value: Object | msgspec.Struct) -> Json:
    """The document of an object: fields that are not set are left out. Secret values are written out."""
    return cast("Json", msgspec.to_builtins(value, enc_hook=_encode_hook, str_keys=True))


def drop_nulls(raw: Any) -> Any:
    """The same JSON without object members that are null; the same object when there is none."""
    if isinstance(raw, dict):
        members = cast("dict[str, Any]", raw)
        kept = {key: drop_nulls(value) for key, value in members.items() if value is not None}
        same = len(kept) == len(members) and all(kept[key] is members[key] for key in kept)
        return members if same else kept
    if isinstance(raw, list):
        items = cast("list[Any]", raw)
        cleaned = [drop_nulls(each) for each in items]
        return items if all(new is old for new, old in zip(cleaned, items, strict=True)) else cleaned
    return raw


def _decode_hook(target: type, raw: object) -> object:
    if target is Duration and isinstance(raw, str):
        return parse_duration(raw)
    if target is Quantity and isinstance(raw, (str, int, float)) and not isinstance(raw, bool):
        return parse_quantity(raw)
    if target is MaskedBase64 and isinstance(raw, str):
        return MaskedBase64(decode_base64(raw))
    if target is MaskedText and isinstance(raw, str):
        return MaskedText(raw.encode())
    if isinstance(raw, target):  # already typed: converting a typed value again
        return raw
    raise ValueError(f"a {type(raw).__name__} cannot be a {target.__name__}")


def decode_base64(text: str) -> bytes:
    """Standard base64; line breaks are allowed, as in Kubernetes. ValueError for anything else."""
    return base64.b64decode("".join(text.split("\n")).replace("\r", ""), validate=True)


def _encode_hook(value: object) -> object:
    match value:
        case Duration() | Quantity():
            return str(value)
        case MaskedBase64():
            return base64.b64encode(value.reveal()).decode()
        case Masked():
            return value.reveal().decode()
        case Mapping():
            return dict(cast("Mapping[str, Any]", value))
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")
