"""Custom resources by their structural schema: what is unknown goes, what is missing gets its default, and everything
that is wrong is said, in Kubernetes' words.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import copy
import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.resources import Form, Resource
from lateen.apiserver.rules import rule_faults
from lateen.lib.durations import parse_duration
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import Path, format_path

CODE: Final = "LTN0360"
"""A custom resource that does not fit its schema."""

_ROOT: Final = ("apiVersion", "kind", "metadata")
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"

Faults = list[tuple[Path, str]]


class Structural(msgspec.Struct, frozen=True):
    """A document with defaults and without unknown fields; their paths; and what is wrong."""

    document: Json
    unknown: list[str]
    faults: list[Finding]


def structural(resource: Resource, form: Form, document: Json, before: Json | None) -> Structural:
    """Looks at a custom resource; `before` is what it was, for rules about changes."""
    schema = form.schema
    unknown: list[Path] = []
    seen = cast("Json", _prune(copy.deepcopy(document), schema, (), unknown, root=True))
    _default(seen, schema)
    faults: Faults = []
    _validate(seen, schema, (), faults, root=True)
    if not faults:
        faults += rule_faults(seen, before, schema)
    found = [Finding(code=CODE, level=Level.ERROR, message=message, path=format_path(path)) for path, message in faults]
    return Structural(seen, [format_path(each) for each in unknown], found)


# -- pruning and defaults ------------------------------------------------------------------------------


def _prune(value: Any, schema: Json, path: Path, unknown: list[Path], *, root: bool = False) -> Any:
    keep = bool(schema.get(_PRESERVE))
    if isinstance(value, dict):
        own = cast("Json", value)
        properties: Json = map_at(schema, "properties")
        other = schema.get("additionalProperties")
        for name in list(own):
            if (root or schema.get(_EMBEDDED)) and name in _ROOT:
                continue
            inner = properties.get(name)
            if inner is None and isinstance(other, dict):
                inner = cast("Json", other)
            if inner is not None:
                if own[name] is None and not inner.get("nullable"):
                    del own[name]
                    continue
                own[name] = _prune(own[name], inner, (*path, name), unknown)
            elif not keep and other is not True:
                unknown.append((*path, name))
                del own[name]
    elif isinstance(value, list):
        inner = schema.get("items")
        if isinstance(inner, dict):
            items = cast("list[Any]", value)
            return [_prune(each, cast("Json", inner), (*path, index), unknown) for index, each in enumerate(items)]
    return cast("Any", value)


def _default(value: Any, schema: Json) -> None:
    if isinstance(value, dict):
        own = cast("Json", value)
        properties: Mapping[str, Json] = map_at(schema, "properties")
        for name, inner in properties.items():
            if name not in own and "default" in inner:
                own[name] = copy.deepcopy(inner["default"])
            if name in own:
                _default(own[name], inner)
        other = schema.get("additionalProperties")
        if isinstance(other, dict):
            for name, each in own.items():
                if name not in properties:
                    _default(each, cast("Json", other))
    elif isinstance(value, list):
        inner = schema.get("items")
        if isinstance(inner, dict):
            for each in cast("list[Any]", value):
                _default(each, cast("Json", inner))


# -- validation ----------------------------------------------------------------------------------------


def faults_of(value: Any, schema: Json) -> Faults:
    """What is wrong with a value by itself; for defaults of definitions."""
    faults: Faults = []
    _validate(value, schema, (), faults)
    return faults


def _validate(value: Any, schema: Json, path: Path, faults: Faults, *, root: bool = False) -> None:
    if value is None:
        if not schema.get("nullable") and schema.get("type"):
            faults.append((path, f'Invalid value: "null": must be of type {schema["type"]}'))
        return
    if not _typed(value, schema):
        expected = "integer or string" if schema.get(_INT_OR_STRING) else schema["type"]
        faults.append((path, f'Invalid value: "{_kind(value)}": must be of type {expected}'))
        return
    if schema.get("enum") and value not in schema["enum"]:
        known = ", ".join(_shown(each) for each in schema["enum"])
        faults.append((path, f"Unsupported value: {_shown(value)}: supported values: {known}"))
    match value:
        case bool():
            pass
        case str():
            faults += [(path, f"Invalid value: {_shown(value)}: {each}") for each in _text(value, schema)]
        case int() | float():
            faults += [(path, f"Invalid value: {_shown(value)}: {each}") for each in _number(value, schema)]
        case list():
            _validate_list(cast("list[Any]", value), schema, path, faults)
        case dict():
            _validate_map(cast("Json", value), schema, path, faults, root=root)
        case _:
            pass
    _validate_junctors(value, schema, path, faults)


def _validate_junctors(value: Any, schema: Json, path: Path, faults: Faults) -> None:
    for each in list_at(schema, "allOf"):
        _validate(value, each, path, faults)
    for name in ("anyOf", "oneOf"):
        parts = schema.get(name)
        if parts and not (name == "anyOf" and schema.get(_INT_OR_STRING)):
            fitting = sum(not _wrong(value, each) for each in parts)
            if fitting == 0 or (name == "oneOf" and fitting > 1):
                few = "at least one" if name == "anyOf" else "one and only one"
                faults.append((path, f"Invalid value: must validate {few} schema ({name})"))
    if schema.get("not") and not _wrong(value, schema["not"]):
        faults.append((path, "Invalid value: must not validate the schema (not)"))


def _wrong(value: Any, schema: Json) -> bool:
    faults: Faults = []
    _validate(value, schema, (), faults)
    return bool(faults)


def _typed(value: Any, schema: Json) -> bool:
    if schema.get(_INT_OR_STRING):
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    match schema.get("type"):
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return True


def _validate_map(value: Json, schema: Json, path: Path, faults: Faults, *, root: bool) -> None:
    faults += [((*path, name), "Required value") for name in list_at(schema, "required") if name not in value]
    count = len(value)
    if count < (schema.get("minProperties") or 0):
        faults.append((path, f"Invalid value: {count}: must have at least {schema['minProperties']} properties"))
    if count > schema.get("maxProperties", count):
        faults.append((path, f"Too many: {count}: must have at most {schema['maxProperties']} items"))
    properties: Mapping[str, Json] = map_at(schema, "properties")
    other = schema.get("additionalProperties")
    for name, each in value.items():
        inner = properties.get(name, other)
        if isinstance(inner, dict) and not (root and name in _ROOT):
            _validate(each, cast("Json", inner), (*path, name), faults)


def _validate_list(value: list[Any], schema: Json, path: Path, faults: Faults) -> None:
    count = len(value)
    if count < (schema.get("minItems") or 0):
        faults.append((path, f"Invalid value: {count}: must have at least {schema['minItems']} items"))
    if count > schema.get("maxItems", count):
        faults.append((path, f"Too many: {count}: must have at most {schema['maxItems']} items"))
    kind = schema.get("x-kubernetes-list-type")
    seen: set[bytes] = set()
    for index, each in enumerate(value):
        if kind == "map" and isinstance(each, dict):
            key: Any = {name: cast("Json", each).get(name) for name in schema["x-kubernetes-list-map-keys"]}
        elif kind == "set":
            key = each
        else:
            continue
        encoded = msgspec.json.encode(key)
        if encoded in seen:
            faults.append(((*path, index), f"Duplicate value: {_shown(key)}"))
        seen.add(encoded)
    inner = schema.get("items")
    if isinstance(inner, dict):
        for index, each in enumerate(value):
            _validate(each, cast("Json", inner), (*path, index), faults)


def _text(value: str, schema: Json) -> Iterator[str]:
    if len(value) < (schema.get("minLength") or 0):
        yield f"should be at least {schema['minLength']} chars long"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"should be at most {schema['maxLength']} chars long"
    pattern = schema.get("pattern")
    if pattern and not _matches(pattern, value):
        yield f"should match '{pattern}'"
    check = _FORMATS.get(schema.get("format") or "")
    if check is not None and not check(value):
        yield f"must be of type {schema['format']}"


def _number(value: float, schema: Json) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
        yield f"should be greater than {'' if schema.get('exclusiveMinimum') else 'or equal to '}{low}"
    if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
        yield f"should be less than {'' if schema.get('exclusiveMaximum') else 'or equal to '}{high}"
    if schema.get("multipleOf") and value % schema["multipleOf"]:
        yield f"should be a multiple of {schema['multipleOf']}"
    if schema.get("format") == "int32" and not -(2**31) <= value < 2**31:
        yield "must be of type int32"


def _matches(pattern: str, value: str) -> bool:
    import re2

    return re2.search(pattern, value) is not None  # pyright: ignore[reportUnknownMemberType]


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:200]


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


# -- formats -------------------------------------------------------------------------------------------


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except ValueError:
            return False
        return True

    return check


def _whole(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


_FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date": _parses(dt.date.fromisoformat),
    "date-time": _parses(dt.datetime.fromisoformat),
    "duration": _parses(parse_duration),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda value: ipaddress.ip_network(value, strict=False)),
    "uuid": _whole(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}"),
    "email": _whole(r"[^@\s]+@[^@\s]+"),
    "hostname": _whole(r"(?i)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"),
    "mac": _whole(r"(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}"),
    "byte": _whole(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
}
