"""From the typed API to OpenAPI: one component per struct, with Kubernetes' extensions on how lists merge.

The same schemas serve clients (`/openapi/v3`, `kubectl explain`) and this server (patches and server-side apply walk
documents by them). Schemas of CustomResourceDefinitions have the same form, so nothing else needs to know where a
schema is from.
"""

from __future__ import annotations

import inspect as python
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast

from msgspec import inspect

from lateen.api.kinds import KINDS, VIEWS, Kind
from lateen.api.struct import Json, ObjectMeta, Struct
from lateen.api.types import struct_type
from lateen.lib.durations import Duration
from lateen.lib.quantities import Quantity

FREE: Final[Json] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_CONDITIONS: Final[Json] = {
    "type": "array",
    "items": {**FREE, "properties": {"type": {"type": "string"}, "status": {"type": "string"}}},
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "x-kubernetes-patch-merge-key": "type",
    "x-kubernetes-patch-strategy": "merge",
}
STATUS: Final[Json] = {**FREE, "description": "What is true of the object.", "properties": {"conditions": _CONDITIONS}}
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SERVERS_OWN: Final[Json] = {
    "resourceVersion": {"type": "string", "description": "The revision of this version of the object."},
    "generation": {"type": "integer", "format": "int64", "description": "Counts changes of what is asked for."},
    "creationTimestamp": _TIME,
    "deletionTimestamp": _TIME,
    "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
    "selfLink": {"type": "string"},
    "managedFields": {"type": "array", "items": FREE, "x-kubernetes-list-type": "atomic"},
}


def ref(name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


@cache
def component_name(kind: type[Struct]) -> str:
    """What a struct's component is called."""
    if kind is ObjectMeta:
        return META
    module = kind.__module__.removeprefix("lateen.api.")
    return f"io.lateen.api.{module}.{kind.__name__}"


@cache
def components() -> Mapping[str, Json]:
    """All components of all kinds."""
    found: dict[str, Json] = {}
    for kind in (*KINDS, *VIEWS):
        _add(kind.type, found)
    for kind in (*KINDS, *VIEWS):
        own = found[component_name(kind.type)]
        own["x-kubernetes-group-version-kind"] = [
            {"group": kind.group, "version": version, "kind": kind.kind} for version in kind.versions
        ]
        if kind.status:
            typed = own["properties"].get("status", {})
            own["properties"]["status"] = {"allOf": [typed], "description": STATUS["description"]} if typed else STATUS
    found[META]["properties"] |= _SERVERS_OWN
    return found


def of_kind(kind: Kind) -> Json:
    """The schema of a kind's documents."""
    return components()[component_name(kind.type)]


def resolve(node: Json) -> Json:
    """A schema without a reference at its top; what is inside may have some."""
    while True:
        if "$ref" in node:
            node = components()[node["$ref"].rpartition("/")[2]]
        elif len(node.get("allOf", ())) == 1 and "type" not in node:
            node = node["allOf"][0]
        else:
            return node


def _add(kind: type[Struct], found: dict[str, Json]) -> None:
    name = component_name(kind)
    if name in found:
        return
    own: Json = {"type": "object", "description": python.cleandoc(kind.__doc__ or "")}
    found[name] = own
    info = struct_type(kind)
    own["properties"] = {each.encode_name: _schema(each.type, found) for each in info.fields}
    required = [each.encode_name for each in info.fields if each.required]
    if required:
        own["required"] = required


def _schema(typed: inspect.Type, found: dict[str, Json]) -> Json:
    extra: dict[str, Any] = {}
    node = typed
    while isinstance(node, (inspect.Metadata, inspect.UnionType)):
        if isinstance(node, inspect.Metadata):
            extra |= cast("dict[str, Any]", node.extra or {})  # pyright: ignore[reportUnknownMemberType] -- untyped
            node = node.type
            continue
        others = [each for each in node.types if not isinstance(each, inspect.NoneType)]
        if len(others) > 1:
            return {"x-kubernetes-int-or-string": True}
        node = others[0]
    match node:
        case inspect.StructType():
            kind = cast("type[Struct]", node.cls)
            _add(kind, found)
            return {"allOf": [ref(component_name(kind))]}
        case inspect.VarTupleType():
            return _list(node, extra, found)
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(node.value_type, found)}
        case inspect.LiteralType():
            return {"type": "string", "enum": [str(each) for each in node.values]}
        case inspect.StrType():
            return {"type": "string", **({"format": "byte"} if extra.get("base64") else {})}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", **_bounds(node)}
        case inspect.FloatType():
            return {"type": "number", **_bounds(node)}
        case inspect.CustomType():
            if node.cls is Quantity:
                return {"x-kubernetes-int-or-string": True}
            return {"type": "string", **({} if node.cls is Duration else {"format": "byte"})}
        case _:
            return {"x-kubernetes-preserve-unknown-fields": True}


def _bounds(node: inspect.IntType | inspect.FloatType) -> Json:
    return {
        **({"minimum": node.ge} if node.ge is not None else {}),
        **({"maximum": node.le} if node.le is not None else {}),
    }


def _list(node: inspect.VarTupleType, extra: Mapping[str, Any], found: dict[str, Json]) -> Json:
    schema: Json = {"type": "array", "items": _schema(node.item_type, found)}
    if "list_map" in extra:
        keys = list(extra["list_map"])
        merge = {"x-kubernetes-patch-merge-key": keys[0], "x-kubernetes-patch-strategy": "merge"}
        return {**schema, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, **merge}
    if extra.get("list_set"):
        return {**schema, "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"}
    return {**schema, "x-kubernetes-list-type": "atomic"}
