"""Which fields lateen does something with: the promise that none is silently ignored.

Each area has a file with three tables by kind. `IMPLEMENTED` lists paths: `spec.http[].match[].uri` is one field
(`[]` stands for the items of a list, `{}` for the values of a mapping), `spec.http[].retries.**` a field with
everything inside, `spec.servers[].tls.mode=SIMPLE|MUTUAL` a field as far as these values go. `MISSING` takes paths
out of a `.**`. `NO_EFFECT` lists paths that need nothing done here, with the reason. Every field that a document
sets and that is not implemented becomes a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, cast

from msgspec import inspect

from lateen.api.coverage import clusters, core, extensions, gateways, routes, security, workloads
from lateen.api.kinds import VIEWS, Kind
from lateen.api.struct import Object
from lateen.api.types import struct_type
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.lib.yaml import Path, format_path

FIELD: Final = "LTN0001"
KIND: Final = "LTN0005"
NO_EFFECT: Final = "LTN0006"

AREAS: Final = (clusters, core, extensions, gateways, routes, security, workloads)


class _Entry:
    """What is known of one field: it is done, everything inside is, some values are, or it needs nothing."""

    __slots__ = ("all", "done", "inner", "missing", "reason", "values")

    def __init__(self) -> None:
        self.done = False
        self.all = False
        self.missing = False
        self.reason = ""
        self.values: frozenset[str] = frozenset()
        self.inner: dict[str, _Entry] = {}


def findings(kind: Kind, raw: Mapping[str, Any], ref: Ref) -> Iterator[Finding]:
    """One finding for each field of a document that has no effect. The document must have passed its checks. A version
    with a shape of its own is looked at in the stored one."""
    if kind in VIEWS:
        return
    tables = _tables(kind.kind) if kind.group.endswith("istio.io") or kind.group in _CORE_GROUPS else None
    if tables is None:
        yield _of_kind(kind, ref)
        return
    for name, node in _fields(kind.type).items():
        value = raw.get(name)
        if name not in _OBJECT_FIELDS and value is not None:
            yield from _walk(node, value, (name,), tables.inner.get(name), ref, inherited=False)


_CORE_GROUPS: Final = (
    "", "admissionregistration.k8s.io", "apiextensions.k8s.io", "apps", "autoscaling", "batch", "coordination.k8s.io",
    "discovery.k8s.io", "rbac.authorization.k8s.io",
)  # fmt: skip
_OBJECT_FIELDS: Final = frozenset({*Object.__struct_encode_fields__, "status"})


@cache
def _fields(kind: type) -> dict[str, inspect.Type]:
    """The types of a struct's fields by wire name, without `| None` and metadata."""
    return {each.encode_name: _bare(each.type) for each in struct_type(kind).fields}


def implemented(kind: str) -> tuple[str, ...]:
    """The paths of a kind that lateen does something with; for documentation."""
    return tuple(sorted(path for area in AREAS for path in area.IMPLEMENTED.get(kind, ())))


def _of_kind(kind: Kind, ref: Ref) -> Finding:
    return Finding(
        code=KIND,
        level=Level.WARNING,
        message=f"{kind.kind} is not implemented yet: it is stored and has no effect",
        ref=ref,
        path="kind",
    )


@cache
def _tables(kind: str) -> _Entry | None:
    root = _Entry()
    for area in AREAS:
        for path in area.IMPLEMENTED.get(kind, ()):
            entry = _entry(root, path.partition("=")[0].removesuffix(".**"))
            entry.done = True
            entry.all = path.endswith(".**")
            entry.values = frozenset(path.partition("=")[2].split("|")) - {""}
        for path in area.MISSING.get(kind, ()):
            _entry(root, path).missing = True
        for path, reason in area.NO_EFFECT.get(kind, {}).items():
            _entry(root, path).reason = reason
    return root if root.inner else None


def _entry(root: _Entry, path: str) -> _Entry:
    at = root
    for step in path.replace("[]", ".[]").replace("{}", ".{}").split("."):
        at = at.inner.setdefault(step, _Entry())
    return at


def _walk(
    node: inspect.Type, value: Any, path: Path, entry: _Entry | None, ref: Ref, *, inherited: bool
) -> Iterator[Finding]:
    """`inherited`: the field is inside of one that is done as a whole."""
    if value is None or (entry is None and inherited):
        return
    if entry is None or entry.missing or entry.reason or not (inherited or entry.done or entry.inner):
        yield _of_field(path, entry.reason if entry else "", ref)
        return
    whole = inherited or entry.all
    if isinstance(node, inspect.StructType) and isinstance(value, dict):
        fields = _fields(node.cls)
        for name, inner in cast("dict[str, Any]", value).items():
            if name in fields:
                yield from _walk(fields[name], inner, (*path, name), entry.inner.get(name), ref, inherited=whole)
    elif isinstance(node, inspect.VarTupleType) and isinstance(value, list) and "[]" in entry.inner:
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _walk(_bare(node.item_type), item, (*path, index), entry.inner["[]"], ref, inherited=whole)
    elif isinstance(node, inspect.DictType) and isinstance(value, dict) and "{}" in entry.inner:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _walk(_bare(node.value_type), item, (*path, key), entry.inner["{}"], ref, inherited=whole)
    elif entry.values and str(cast("object", value)) not in entry.values:
        yield _of_field(path, "", ref, f"{path[-1]} {value}")


def _bare(node: inspect.Type) -> inspect.Type:
    while isinstance(node, (inspect.Metadata, inspect.UnionType)):
        if isinstance(node, inspect.Metadata):
            node = node.type
        else:
            others = [each for each in node.types if not isinstance(each, inspect.NoneType)]
            if len(others) != 1:
                return node
            node = others[0]
    return node


def _of_field(path: Path, reason: str, ref: Ref, what: str = "") -> Finding:
    name = what or next((str(step) for step in reversed(path) if isinstance(step, str)), "")
    if reason:
        message, code, level = f"{name} has no effect: {reason}", NO_EFFECT, Level.INFO
    else:
        message, code, level = f"{name} is not implemented yet and has no effect", FIELD, Level.WARNING
    return Finding(code=code, level=level, message=message, ref=ref, path=format_path(path))
