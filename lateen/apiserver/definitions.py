"""CustomResourceDefinitions: whether their schemas are structural, and their status once they are served.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import structlog

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.deletion import Cleaned
from lateen.apiserver.errors import ApiError
from lateen.apiserver.expressions import ExpressionError, compiled
from lateen.apiserver.operations import Operation, PutStatus
from lateen.apiserver.resources import DEFINITIONS, Resources
from lateen.apiserver.rows import Change
from lateen.apiserver.rules import RULES
from lateen.apiserver.store import Store
from lateen.apiserver.structural import CODE, faults_of
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_KEYWORDS: Final = frozenset(
    [
        "title",
        "type",
        "description",
        "default",
        "enum",
        "format",
        "nullable",
        "properties",
        "additionalProperties",
        "items",
        "required",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "example",
        "externalDocs",
    ]
)
_EXTENSIONS: Final = frozenset(
    {
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
        RULES,
    }
)

_log = structlog.stdlib.get_logger("lateen.apiserver.definitions")


def definition_faults(document: Json, resources: Resources) -> list[Finding]:
    """What is wrong with a definition beyond its own shape: names that others have, schemas that are none."""
    found: list[tuple[str, str]] = []
    taken = resources.taken(document)
    if taken:
        found.append(("spec.names", f"Invalid value: {taken}"))
    for index, version in enumerate(document["spec"]["versions"]):
        place = f"spec.versions[{index}].schema.openAPIV3Schema"
        found += schema_faults(version["schema"]["openAPIV3Schema"], place)
    return [Finding(code=CODE, level=Level.ERROR, message=message, path=path) for path, message in found]


def schema_faults(schema: Any, place: str) -> Iterator[tuple[str, str]]:
    """Where a schema is not structural, and why."""
    if not isinstance(schema, dict):
        yield place, "Invalid value: a schema is an object"
        return
    own = cast("Json", schema)
    for name in own:
        if name not in _KEYWORDS and name not in _EXTENSIONS:
            yield f"{place}.{name}", "Forbidden: structural schemas do not have it"
    free = own.get("x-kubernetes-preserve-unknown-fields") or own.get("x-kubernetes-int-or-string")
    if not own.get("type"):
        if not free:
            yield f"{place}.type", "Required value: must not be empty for specified object fields"
    elif own["type"] not in _TYPES:
        yield f"{place}.type", f"Unsupported value: {own['type']}: supported values: {', '.join(_TYPES)}"
    if own.get("uniqueItems"):
        yield (
            f"{place}.uniqueItems",
            "Forbidden: uniqueItems cannot be set to true since the runtime complexity is high",
        )
    if own.get("additionalProperties") is False:
        yield f"{place}.additionalProperties", "Forbidden: additionalProperties cannot be set to false"
    if own.get("type") == "array" and not own.get("items"):
        yield f"{place}.items", "Required value: must be specified"
    yield from _list_faults(own, place)
    if "default" in own:
        for path, message in faults_of(own["default"], own):
            yield f"{place}.default{''.join(f'.{step}' for step in path)}", message
    for index, rule in enumerate(own.get(RULES) or ()):
        for part in ("rule", "messageExpression"):
            if part == "rule" or rule.get(part):
                yield from _expression_faults(str(rule.get(part, "")), f"{place}.{RULES}[{index}].{part}")
    yield from _inner_faults(own, place)


def _list_faults(own: Json, place: str) -> Iterator[tuple[str, str]]:
    kind = own.get("x-kubernetes-list-type")
    keys = own.get("x-kubernetes-list-map-keys")
    if kind not in (None, "atomic", "set", "map"):
        yield f"{place}.x-kubernetes-list-type", f"Unsupported value: {kind}: supported values: atomic, set, map"
    if (kind == "map") != bool(keys):
        yield f"{place}.x-kubernetes-list-map-keys", "Required value: with x-kubernetes-list-type map, and only then"
    if kind == "map" and keys:
        items: Json = map_at(own, "items")
        properties: Json = map_at(items, "properties")
        for key in keys:
            if key not in properties:
                yield f"{place}.items.properties[{key}]", "Required value: a key of the list must be defined"
            elif key not in (list_at(items, "required")) and "default" not in properties[key]:
                yield f"{place}.items.properties[{key}].default", "Required value: a key is required or has a default"


def _expression_faults(expression: str, place: str) -> Iterator[tuple[str, str]]:
    try:
        compiled(expression)
    except ExpressionError as error:
        yield place, f"Invalid value: {expression!r}: compilation failed: {error}"


def _inner_faults(own: Json, place: str) -> Iterator[tuple[str, str]]:
    properties: Mapping[str, Any] = map_at(own, "properties")
    for name, inner in properties.items():
        yield from schema_faults(inner, f"{place}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(own.get(name), dict):
            yield from schema_faults(own[name], f"{place}.{name}")


class Establisher:
    """Writes the status of definitions that are served, and ends those whose objects are gone. A subscriber of the
    store; `run` does the writing."""

    def __init__(self, store: Store) -> None:

        self._store = store
        self._todo: asyncio.Queue[Operation] = asyncio.Queue()
        self._leaving: dict[Ref, tuple[str, str]] = {}
        for row in store.list(DEFINITIONS):
            self._look(row.decode())
        store.subscribe(self)

    def __call__(self, changes: Sequence[Change]) -> None:
        """Takes note of what a commit changed."""
        for each in changes:
            if each.row.ref.collection == DEFINITIONS:
                self._leaving.pop(each.row.ref, None)
                if each.after is not None:
                    self._look(each.after.decode())
        for ref, collection in self._leaving.items():
            if not self._store.members(collection):
                self._todo.put_nowait(Cleaned(ref))

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            operation = await self._todo.get()
            try:
                await self._store.write([operation], author="lateen")
            except ApiError as error:  # it changed, and is in the queue again, or is gone
                _log.debug("definition not written", error=str(error))

    def _look(self, document: Json) -> None:
        if document["metadata"].get("deletionTimestamp"):
            spec = document["spec"]
            ref = Ref(*DEFINITIONS, "", document["metadata"]["name"])
            self._leaving[ref] = (spec["group"], spec["names"]["kind"])
            return
        status = _status(document)
        if status != document.get("status"):
            self._todo.put_nowait(PutStatus({**document, "status": status}))


def _status(document: Json) -> Json:
    spec, before = document["spec"], map_at(document, "status")
    stored = next(each["name"] for each in spec["versions"] if each["storage"])
    versions = list(dict.fromkeys([*before.get("storedVersions", ()), stored]))
    since = document["metadata"]["creationTimestamp"]
    conditions = [
        {
            "type": "NamesAccepted",
            "status": "True",
            "lastTransitionTime": since,
            "reason": "NoConflicts",
            "message": "no conflicts found",
        },
        {
            "type": "Established",
            "status": "True",
            "lastTransitionTime": since,
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    return {"acceptedNames": spec["names"], "conditions": conditions, "storedVersions": versions}
