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
from lateen.lib.protobuf import field, text_field

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
    info = text_field(1, document["info"]["title"]) + text_field(2, document["info"]["version"])
    named = b"".join(field(1, _named(name, each)) for name, each in document["definitions"].items())
    parts = (text_field(_SWAGGER, document["swagger"]), field(_INFO, info), field(_PATHS, b""))
    return b"".join((*parts, field(_DEFINITIONS, named)))


def _named(name: str, schema: Json) -> bytes:
    return text_field(1, name) + field(2, _schema(schema))


def _schema(schema: Json) -> bytes:
    said = text_field(_DESCRIPTION, schema["description"]) if schema.get("description") else b""
    reference = schema.get("$ref") or _only_reference(schema)
    if reference:
        return text_field(_REF, f"#/definitions/{reference.rpartition('/')[2]}") + said
    return said + b"".join(_body(schema)) + b"".join(_extensions(schema))


def _only_reference(schema: Json) -> str:
    parts: list[Json] = schema.get("allOf") or []
    return parts[0].get("$ref", "") if len(parts) == 1 and "type" not in schema else ""


def _body(schema: Json) -> Iterator[bytes]:
    kind = schema.get("type")
    if kind in _TYPES:
        yield _type(kind)
        if schema.get("format"):
            yield text_field(_FORMAT, schema["format"])
    elif kind == "array" and isinstance(schema.get("items"), dict):
        yield _type(kind)
        yield field(_ITEMS, field(1, _schema(schema["items"])))
    elif kind == "object":
        yield _type(kind)
        for name in schema.get("required") or ():
            yield text_field(_REQUIRED, name)
        rest = schema.get("additionalProperties")
        if schema.get("properties"):
            properties = cast("Mapping[str, Json]", schema["properties"])
            yield field(_PROPERTIES, b"".join(field(1, _named(*each)) for each in properties.items()))
        elif isinstance(rest, dict):
            yield field(_REST, field(1, _schema(cast("Json", rest))))


def _extensions(schema: Json) -> Iterator[bytes]:
    for name, value in schema.items():
        if name.startswith("x-"):
            yield field(_EXTENSION, text_field(1, name) + field(2, text_field(2, _json(value))))


def _json(value: Any) -> str:
    """JSON, which is YAML too."""
    return msgspec.json.encode(value).decode()


def _type(kind: str) -> bytes:
    return field(_TYPE, text_field(1, kind))
