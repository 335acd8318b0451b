"""OpenAPI v2 in the protobuf form that Go clients ask for: the definitions, with Kubernetes' extensions.

What the form has no word for is left open (an int-or-string, a list of anything), so a client's own validation lets it
pass; the server's is stricter anyway.

Source: OpenAPIv2.proto of https://github.com/google/gnostic-models, and what kube-openapi's reader takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from lateen.api.struct import Json

MEDIA_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_ASKED: Final = "application/com.github.proto-openapi.spec.v2"

_SWAGGER, _INFO, _PATHS, _DEFINITIONS = 1, 2, 8, 9
_REF, _FORMAT, _DESCRIPTION, _REQUIRED, _REST, _TYPE, _ITEMS, _PROPERTIES, _EXTENSION = 1, 2, 4, 19, 21, 22, 23, 25, 31
_TYPES: Final = frozenset({"string", "integer", "number", "boolean"})


def asked_for(accept: str) -> bool:
    """Whether a client takes nothing but that form."""
    return _ASKED in accept and "json" not in accept and "*/*" not in accept


def encode(document: Json) -> bytes:
    """An OpenAPI v2 document, without its paths."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    named = b"".join(_message(1, _named(name, each)) for name, each in document["definitions"].items())
    parts = (_text(_SWAGGER, document["swagger"]), _message(_INFO, info), _message(_PATHS, b""))
    return b"".join((*parts, _message(_DEFINITIONS, named)))


def _named(name: str, schema: Json) -> bytes:
    return _text(1, name) + _message(2, _schema(schema))


def _schema(schema: Json) -> bytes:
    said = _text(_DESCRIPTION, schema["description"]) if schema.get("description") else b""
    reference = schema.get("$ref") or _only_reference(schema)
    if reference:
        return _text(_REF, f"#/definitions/{reference.rpartition('/')[2]}") + said
    return said + b"".join(_body(schema)) + b"".join(_extensions(schema))


def _only_reference(schema: Json) -> str:
    parts: list[Json] = schema.get("allOf") or []
    return parts[0].get("$ref", "") if len(parts) == 1 and "type" not in schema else ""


def _body(schema: Json) -> Iterator[bytes]:
    kind = schema.get("type")
    if kind in _TYPES:
        yield _type(kind)
        if schema.get("format"):
            yield _text(_FORMAT, schema["format"])
    elif kind == "array" and isinstance(schema.get("items"), dict):
        yield _type(kind)
        yield _message(_ITEMS, _message(1, _schema(schema["items"])))
    elif kind == "object":
        yield _type(kind)
        for name in schema.get("required") or ():
            yield _text(_REQUIRED, name)
        rest = schema.get("additionalProperties")
        if schema.get("properties"):
            properties = cast("Mapping[str, Json]", schema["properties"])
            yield _message(_PROPERTIES, b"".join(_message(1, _named(*each)) for each in properties.items()))
        elif isinstance(rest, dict):
            yield _message(_REST, _message(1, _schema(cast("Json", rest))))


def _extensions(schema: Json) -> Iterator[bytes]:
    for name, value in schema.items():
        if name.startswith("x-"):
            yield _message(_EXTENSION, _text(1, name) + _message(2, _text(2, _json(value))))


def _json(value: Any) -> str:
    """JSON, which is YAML too."""
    return msgspec.json.encode(value).decode()


def _type(kind: str) -> bytes:
    return _message(_TYPE, _text(1, kind))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
