"""Validation of documents: everything that is wrong with one, at once, each with its place and a remedy.

Three steps. The document's kind is looked up. Its raw JSON is compared with the shape of the type (unknown
fields, wrong types, bounds). The parts whose shape is right are decoded, and the types' own rules
(`Struct.problems`) look at them; so a typo in one route does not hide a bad weight in another.

A document without an ERROR decodes. What refers to other objects is not looked at here: that is
`lateen.analysis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, cast

import msgspec

from lateen.api import codec, coverage, kinds
from lateen.api.core.config_map import ConfigMap
from lateen.api.kinds import Kind
from lateen.api.mesh.check import is_mesh_config, mesh_problems
from lateen.api.metadata import metadata_problems
from lateen.api.problems import Problem
from lateen.api.shape import UNKNOWN_FIELD, Faults, check_struct, children
from lateen.api.struct import Json, Object, Struct
from lateen.api.types import struct_type
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.lib.suggest import did_you_mean, nearest
from lateen.lib.yaml import Document, Path, format_path, parse_path

UNKNOWN_KIND: Final = "LTN0003"
UNSUPPORTED_KIND: Final = "LTN0004"

_STATUS: Final = frozenset({"status"})


def check(document: Document, *, namespace: str = "default") -> list[Finding]:
    """All that is wrong with one document; no ERROR among it means that `codec.decode` takes it.

    `namespace` is the one of a namespaced object that names none; it is used in the findings' refs.
    """
    raw = document.raw
    if not isinstance(raw, dict):
        return [_finding(document, None, (), Problem("", "a document must be an object with apiVersion and kind"))]
    body = cast("dict[str, Any]", raw)
    kind = _kind(body)
    if isinstance(kind, Finding):
        return [_placed(kind, document)]
    ref = _ref(kind, body, namespace)
    found = [_finding(document, ref, path, problem, key=key) for path, problem, key in _problems(kind, body, ref)]
    if not any(each.level is Level.ERROR for each in found):
        found += [_placed(each, document) for each in coverage.findings(kind, body, ref)]
    return sorted(found, key=_order)


def check_raw(raw: Json, *, namespace: str = "default") -> list[Finding]:
    """`check` for an object that came from no file; the findings have no position."""
    return check(Document(raw, ""), namespace=namespace)


def about_unknown_field(finding: Finding) -> bool:
    """Whether it says that the kind has no such field."""
    return finding.message.startswith(UNKNOWN_FIELD)


def _order(finding: Finding) -> tuple[int, int, str]:
    at = finding.position
    return (at.line, at.column, finding.path) if at else (0, 0, finding.path)


# -- kinds ---------------------------------------------------------------------------------------------


def _kind(body: Mapping[str, Any]) -> Kind | Finding:
    api_version, name = body.get("apiVersion"), body.get("kind")
    if not isinstance(name, str) or not name:
        return _kind_finding(UNKNOWN_KIND, "", '"kind" is missing', 'set "apiVersion" and "kind"')
    if not isinstance(api_version, str) or not api_version:
        known = [each.api_version for each in kinds.KINDS if each.kind == name]
        remedy = f"write apiVersion: {known[0]}" if known else 'set "apiVersion"'
        return _kind_finding(UNKNOWN_KIND, "", '"apiVersion" is missing', remedy)
    kind = kinds.by_api(api_version, name)
    if kind is not None:
        return kind
    group = api_version.rpartition("/")[0]
    other = kinds.by_group(group, name)
    if other is not None:
        message = f"{name} has no version {api_version.rpartition('/')[2]}"
        return _kind_finding(UNKNOWN_KIND, "apiVersion", message, f"use {' or '.join(other.api_versions)}")
    if name in kinds.UNSUPPORTED.get(group, ()):
        message = f"{name} ({api_version}) is not supported yet"
        return _kind_finding(UNSUPPORTED_KIND, "kind", message, "leave it out of what is applied")
    homes = [each.api_version for each in kinds.KINDS if each.kind == name]
    if homes:
        message = f'there is no kind "{name[:60]}" in {api_version[:60]}'
        return _kind_finding(UNKNOWN_KIND, "apiVersion", message, f"{name} is in {' and '.join(homes)}")
    near = nearest(name, [each.kind for each in kinds.KINDS])
    remedy = f'did you mean "{near}"?' if near else did_you_mean(api_version, _api_versions(), at_most=0)
    return _kind_finding(UNKNOWN_KIND, "kind", f'there is no kind "{name[:60]}" in {api_version[:60]}', remedy)


def _api_versions() -> set[str]:
    return {version for kind in kinds.KINDS for version in kind.api_versions}


def _kind_finding(code: str, path: str, message: str, remedy: str) -> Finding:
    return Finding(code=code, level=Level.ERROR, message=message, path=path, remedy=remedy)


def _ref(kind: Kind, body: Mapping[str, Any], namespace: str) -> Ref:
    raw = body.get("metadata")
    metadata: Mapping[str, Any] = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    name = metadata.get("name") or metadata.get("generateName")
    given = metadata.get("namespace")
    place = (given if isinstance(given, str) and given else namespace) if kind.namespaced else ""
    return Ref(kind.group, kind.kind, place, name if isinstance(name, str) else "")


# -- one object ----------------------------------------------------------------------------------------


def _problems(kind: Kind, body: dict[str, Any], ref: Ref) -> Iterator[tuple[Path, Problem, bool]]:
    shown = {key: value for key, value in body.items() if key != "status"} if "status" in body else body
    faults: Faults = []
    check_struct(kind.type, shown, (), faults, skip=_STATUS)
    for fault in faults:
        yield fault.path, Problem("", fault.message, fault.remedy), fault.key
    yield from _status(kind, body)
    for problem in metadata_problems(kind, shown.get("metadata")):
        yield ("metadata", *parse_path(problem.path)), problem, False
    if not faults and kind.type is ConfigMap and is_mesh_config(ref.namespace, ref.name):
        for problem in mesh_problems(codec.decode_as(shown, ConfigMap)):
            yield parse_path(problem.path), problem, False
    for path, value in _sound_parts(kind.type, shown, ()) if faults else [((), codec.decode_as(shown, kind.type))]:
        for at, problem in _rules(value, path):
            yield (*at, *parse_path(problem.path)), problem, False


def _status(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[Path, Problem, bool]]:
    """A status may say more than the types know; but the part they know must fit."""
    typed = _status_of(kind.type)
    status = body.get("status")
    if status is not None and typed is not None:
        try:
            codec.decode_as(status, typed)
        except codec.DecodeError as error:
            yield ("status",), Problem("", f"the status does not fit: {error}", "leave it out"), False


@cache
def _status_of(kind: type[Object]) -> type[Struct] | None:
    """The type of a kind's status, where it has one."""
    typed = next((each.type for each in msgspec.structs.fields(kind) if each.name == "status"), None)
    return cast("type[Struct] | None", typed)


def _sound_parts(kind: type[Struct], raw: Any, path: Path) -> Iterator[tuple[Path, Struct]]:
    """The largest structs inside of a broken one that are right themselves, decoded."""
    for inner, part, at in children(kind, raw, path):
        faults: Faults = []
        check_struct(inner, part, at, faults)
        if faults:
            yield from _sound_parts(inner, part, at)
        else:
            yield at, codec.decode_as(part, inner)


def _rules(value: Struct, path: Path) -> Iterator[tuple[Path, Problem]]:
    """What the rules of a value and of all values inside of it say."""
    for problem in value.problems():
        yield path, problem
    for attribute, wire in _inner_fields(type(value)):
        inner = getattr(value, attribute)
        if isinstance(inner, Struct):
            yield from _rules(inner, (*path, wire))
        elif isinstance(inner, tuple):
            for index, each in enumerate(cast("tuple[Struct, ...]", inner)):
                yield from _rules(each, (*path, wire, index))
        elif inner:
            for key, each in cast("Mapping[str, Struct]", inner).items():
                yield from _rules(each, (*path, wire, key))


@cache
def _inner_fields(kind: type[Struct]) -> tuple[tuple[str, str], ...]:
    """Attribute and wire name of the fields with structs that have rules, themselves or further inside."""
    return tuple(
        (each.name, each.encode_name)
        for each in struct_type(kind).fields
        if any(map(_has_rules, _struct_types(each.type)))
    )


@cache
def _has_rules(kind: type[Struct]) -> bool:
    return kind.problems is not Struct.problems or bool(_inner_fields(kind))


def _struct_types(node: msgspec.inspect.Type) -> Iterator[type[Struct]]:
    match node:
        case msgspec.inspect.StructType():
            yield cast("type[Struct]", node.cls)
        case msgspec.inspect.UnionType():
            for each in node.types:
                yield from _struct_types(each)
        case msgspec.inspect.VarTupleType():
            yield from _struct_types(node.item_type)
        case msgspec.inspect.DictType():
            yield from _struct_types(node.value_type)
        case msgspec.inspect.Metadata():
            yield from _struct_types(node.type)
        case _:
            pass


def _finding(document: Document, ref: Ref | None, path: Path, problem: Problem, *, key: bool = False) -> Finding:
    return Finding(
        code=problem.code,
        level=problem.level,
        message=problem.message,
        ref=ref,
        path=format_path(path),
        position=document.position(path, key=key) if document.file else None,
        remedy=problem.remedy,
    )


def _placed(finding: Finding, document: Document) -> Finding:
    if not document.file:
        return finding
    return msgspec.structs.replace(finding, position=document.position(finding.path))


def object_of(document: Document) -> Object:
    """The typed object of a document that `check` has no ERROR for."""
    return codec.decode(document.raw)
