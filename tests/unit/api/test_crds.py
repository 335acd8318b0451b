"""The Istio types against Istio's CRDs: every field, its type, its bounds, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
import yaml
from msgspec import inspect

from lateen.api import kinds
from lateen.api.struct import Struct
from lateen.lib.durations import Duration
from tests.paths import shared

Schema = dict[str, Any]


def crds() -> dict[tuple[str, str], dict[str, Any]]:
    with shared("crds/istio.yaml").open() as file:
        documents = [each for each in yaml.load_all(file, Loader=yaml.CSafeLoader) if each]
    return {(each["spec"]["group"], each["spec"]["names"]["kind"]): each["spec"] for each in documents}


def istio_kinds() -> list[kinds.Kind]:
    return [each for each in kinds.KINDS if each.group.endswith(".istio.io")]


def unwrapped(node: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """A type without `| None` and metadata, and the metadata's extra."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(node, inspect.UnionType):
            (node,) = (each for each in node.types if not isinstance(each, inspect.NoneType))
        elif isinstance(node, inspect.Metadata):
            extra |= cast("dict[str, Any]", node.extra or {})  # pyright: ignore[reportUnknownMemberType] -- untyped in msgspec
            node = node.type
        else:
            return node, extra


def differences(schema: Schema, typed: inspect.Type, path: str) -> Iterator[str]:
    node, extra = unwrapped(typed)
    kind = schema["type"]
    if kind == "object" and "properties" in schema:
        assert isinstance(node, inspect.StructType), path
        yield from struct_differences(schema, node, path)
    elif kind == "object":
        assert isinstance(node, inspect.DictType), path
        yield from same(path, "minProperties", schema.get("minProperties"), node.min_length)
        yield from same(path, "maxProperties", schema.get("maxProperties"), node.max_length)
        if "additionalProperties" in schema:
            yield from differences(schema["additionalProperties"], node.value_type, f"{path}{{}}")
        else:
            yield from same(path, "free", schema.get("x-kubernetes-preserve-unknown-fields"), True)
            yield from same(path, "values", type(node.value_type), inspect.AnyType)
    elif kind == "array":
        assert isinstance(node, inspect.VarTupleType), path
        yield from same(path, "minItems", schema.get("minItems"), node.min_length)
        yield from same(path, "maxItems", schema.get("maxItems"), node.max_length)
        yield from differences(schema["items"], node.item_type, f"{path}[]")
    elif kind == "boolean":
        yield from same(path, "type", type(node), inspect.BoolType)
    elif kind in ("integer", "number"):
        expected = inspect.IntType if kind == "integer" else inspect.FloatType
        assert isinstance(node, (inspect.IntType, inspect.FloatType)), path
        yield from same(path, "type", type(node), expected)
        low, high = schema.get("minimum"), schema.get("maximum")
        rules = " ".join(each["message"] for each in schema.get("x-kubernetes-validations", ()))
        if "between 1-65535" in rules:
            low, high = 1, 65535
        if schema.get("format") == "int32":
            low, high = -(2**31) if low is None else low, 2**31 - 1 if high is None else high
        yield from same(path, "minimum", low, node.ge)
        yield from same(path, "maximum", high, node.le)
    else:
        yield from string_differences(schema, node, extra, path)


def string_differences(schema: Schema, node: inspect.Type, extra: dict[str, Any], path: str) -> Iterator[str]:
    if isinstance(node, inspect.LiteralType):
        yield from same(path, "enum", sorted(schema.get("enum", ())), sorted(map(str, node.values)))
        return
    yield from same(path, "enum", schema.get("enum"), None)
    if isinstance(node, inspect.CustomType):
        yield from same(path, "type", node.cls, Duration)
        bounded = any("valid duration" in each["message"] for each in schema.get("x-kubernetes-validations", ()))
        yield from same(path, "least duration", 1_000_000 if bounded else None, extra.get("min_nanoseconds"))
        return
    assert isinstance(node, inspect.StrType), path
    yield from same(path, "base64", schema.get("format") == "byte", extra.get("base64", False))
    yield from same(path, "minLength", schema.get("minLength"), node.min_length)
    yield from same(path, "maxLength", schema.get("maxLength"), node.max_length)
    yield from same(path, "pattern", schema.get("pattern"), node.pattern)


def struct_differences(schema: Schema, node: inspect.StructType, path: str) -> Iterator[str]:
    fields = {each.encode_name: each for each in node.fields}
    required = set(schema.get("required", ()))
    for name in sorted(fields.keys() - schema["properties"].keys()):
        yield f"{path}.{name}: not in the CRD"
    for name, part in schema["properties"].items():
        if name not in fields:
            yield f"{path}.{name}: missing"
            continue
        yield from same(f"{path}.{name}", "required", name in required, fields[name].required)
        yield from differences(part, fields[name].type, f"{path}.{name}")
    cls = node.cls
    assert issubclass(cls, Struct), path
    yield from same(path, "at most one of", groups(schema), {frozenset(each) for each in cls.AT_MOST_ONE})


def groups(schema: Schema) -> set[frozenset[str]]:
    """The groups of fields that a schema's `oneOf` says exclude each other; a group of one says nothing."""
    found: set[frozenset[str]] = set()
    for part in (schema, *schema.get("allOf", ())):
        alternatives = part.get("oneOf", ())
        names = frozenset(each["required"][0] for each in alternatives if "required" in each)
        if len(names) > 1:
            assert any("not" in each for each in alternatives), "exactly one of: Struct has no word for it"
            found.add(names)
    return found


def same(path: str, what: str, crd: object, typed: object) -> Iterator[str]:
    if crd != typed:
        yield f"{path}: {what} is {crd!r} in the CRD and {typed!r} in the type"


def test_every_kind_of_the_crds_is_known() -> None:
    assert {(each.group, each.kind) for each in istio_kinds()} == set(crds())


@pytest.mark.parametrize("kind", istio_kinds(), ids=lambda each: each.kind)
def test_type_is_the_crd(kind: kinds.Kind) -> None:
    crd = crds()[kind.group, kind.kind]
    assert sorted(kind.versions) == sorted(each["name"] for each in crd["versions"] if each["served"])
    assert [kind.versions[0]] == [each["name"] for each in crd["versions"] if each["storage"]]
    names = crd["names"]
    assert (kind.plural, kind.singular) == (names["plural"], names["singular"])
    assert kind.short_names == tuple(names.get("shortNames", ()))
    assert kind.namespaced == (crd["scope"] == "Namespaced")
    spec = next(each for each in msgspec.structs.fields(kind.type) if each.name == "spec")
    found = [
        line
        for version in crd["versions"]
        for line in differences(
            version["schema"]["openAPIV3Schema"]["properties"]["spec"],
            inspect.type_info(spec.type),
            "spec",
        )
    ]
    assert found == []


def test_the_comparison_sees_a_difference() -> None:
    crd = crds()["networking.istio.io", "VirtualService"]
    spec = crd["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    http = spec["properties"]["http"]["items"]
    del http["properties"]["timeout"]
    http["properties"]["retries"]["properties"]["attempts"]["minimum"] = 0
    http["properties"]["added"] = {"type": "string"}
    found = list(differences(spec, inspect.type_info(kinds_spec("VirtualService")), "spec"))
    assert found == [
        "spec.http[].timeout: not in the CRD",
        "spec.http[].retries.attempts: minimum is 0 in the CRD and -2147483648 in the type",
        "spec.http[].added: missing",
    ]


def kinds_spec(name: str) -> Any:
    kind = next(each for each in istio_kinds() if each.kind == name)
    return next(each.type for each in msgspec.structs.fields(kind.type) if each.name == "spec")
