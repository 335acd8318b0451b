"""Objects as tables, which is what `kubectl get` asks for: columns by kind, a cell per object and column.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ ("Receiving resources as Tables").
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from lateen.api.struct import Json, map_at
from lateen.apiserver.columns import AGE, MESH, NAME, OWN, WITHOUT_AGE, Cell, Column, age
from lateen.apiserver.resources import Form, Resource


def definitions(resource: Resource, form: Form) -> list[Json]:
    """The columns of a kind, as the API describes them."""
    return [
        {
            "name": each.name,
            "type": each.type,
            "format": each.format or ("name" if each.name == "Name" else ""),
            "description": each.description,
            "priority": each.priority,
        }
        for each in _columns(resource, form)
    ]


def row(resource: Resource, form: Form, document: Json, now: dt.datetime, include: str) -> Json:
    """One object's row. `include` says what comes along: `Metadata`, `Object` or `None`."""
    stored = document if form.view is None else form.view.read(document)
    made: Json = {"cells": [each.cell(stored, now) for each in _columns(resource, form)]}
    if include == "Object":
        made["object"] = document
    elif include != "None":
        made["object"] = partial(document)
    return made


def partial(document: Json) -> Json:
    """An object's metadata alone."""
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**head, "metadata": map_at(document, "metadata")}


def _columns(resource: Resource, form: Form) -> Sequence[Column]:
    own = OWN.get(resource.kind) if resource.kind_of is not None else None
    if own is not None:
        return (NAME, *own, AGE) if resource.kind not in WITHOUT_AGE else own
    if resource.kind_of is not None and resource.group.endswith("istio.io"):
        return MESH
    if form.columns:
        return (
            NAME,
            *(
                Column(each.name, _at(each.path, each.type), each.type, each.priority, each.description, each.format)
                for each in form.columns
            ),
        )
    return (NAME, AGE)


# -- JSON paths of custom columns ----------------------------------------------------------------------

_STEP: Final = re.compile(r"\.([\w-]+)|\.?\['([^']+)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.]+)\s*==\s*[\"']([^\"']*)[\"']\)\]")


def find(path: str, document: Any) -> list[Any]:
    """What a JSON path of the simple kind that columns use finds: fields, indexes, `[*]`, and equality filters."""
    path = path.strip().strip("{}")
    found = [document]
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return []
        at = match.end()
        found = [inner for each in found for inner in _step(each, match)]
    return found


def _step(value: Any, match: re.Match[str]) -> Iterable[Any]:
    name = match[1] or match[2]
    if name is not None:
        return [value[name]] if isinstance(value, dict) and name in value else []
    if not isinstance(value, list):
        return []
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    if match[3] == "*":
        return items
    if match[3] is not None:
        return items[int(match[3]) :][:1]
    return [each for each in items if [match[5]] == [str(part) for part in find(f".{match[4]}", each)]]


def _at(path: str, kind: str) -> Cell:
    def cell(document: Json, now: dt.datetime) -> Any:
        found = find(path, document)
        if not found:
            return None
        if kind == "date":
            return age(str(found[0]), now)
        if kind == "string":
            shown = [each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in found]
            return ",".join(shown)
        return found[0]

    return cell
