"""The CEL rules of a structural schema (`x-kubernetes-validations`), run on a document and what it was before.

Rules that name `oldSelf` are about changes: they run only where there was a value before, which in lists is known
only for keyed ones.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, cast

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.expressions import ExpressionError, evaluate, uses
from lateen.lib.durations import parse_duration
from lateen.lib.yaml import Path, parse_path

RULES: Final = "x-kubernetes-validations"
_ABSENT: Final = object()


def rule_faults(document: Json, before: Json | None, schema: Json) -> list[tuple[Path, str]]:
    """What the rules say against a document."""
    found: list[tuple[Path, str]] = []
    _walk(document, _ABSENT if before is None else before, schema, (), found)
    return found


def _walk(value: Any, old: Any, schema: Json, path: Path, found: list[tuple[Path, str]]) -> None:
    if value is None:
        return
    for rule in schema.get(RULES) or ():
        fault = _broken(rule, value, old, schema)
        if fault is not None:
            inner = parse_path(str(rule.get("fieldPath") or "").removeprefix("."))
            found.append(((*path, *inner), fault))
    if isinstance(value, dict):
        own = cast("Json", value)
        properties: Mapping[str, Json] = map_at(schema, "properties")
        other = schema.get("additionalProperties")
        there: Json = cast("Json", old) if isinstance(old, dict) else {}
        for name, each in own.items():
            inner = properties.get(name, other)
            if isinstance(inner, dict):
                _walk(each, there.get(name, _ABSENT), cast("Json", inner), (*path, name), found)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        keys: list[str] = list_at(schema, "x-kubernetes-list-map-keys")
        former = cast("list[Any]", old) if isinstance(old, list) and keys else []
        known: dict[tuple[str, ...], Any] = {_key(each, keys): each for each in former if isinstance(each, dict)}
        for index, each in enumerate(cast("list[Any]", value)):
            was: Any = known.get(_key(each, keys), _ABSENT) if keys and isinstance(each, dict) else _ABSENT
            _walk(each, was, schema["items"], (*path, index), found)


def _key(item: Any, keys: list[str]) -> tuple[str, ...]:
    return tuple(str(cast("Json", item).get(key)) for key in keys)


def _broken(rule: Json, value: Any, old: Any, schema: Json) -> str | None:
    """What a rule has against a value, None when nothing."""
    expression: str = rule["rule"]
    variables = {"self": _celled(value, schema)}
    try:
        if uses(expression, "oldSelf"):
            if old is _ABSENT:
                return None
            variables["oldSelf"] = _celled(old, schema)
        if evaluate(expression, variables) is True:
            return None
    except ExpressionError as error:
        return f'Invalid value: rule "{expression}" fails: {error}'
    return f"{_REASONS.get(rule.get('reason', ''), 'Invalid value')}: {_message(rule, variables)}"


def _message(rule: Json, variables: Mapping[str, Any]) -> str:
    if rule.get("messageExpression"):
        try:
            said = evaluate(rule["messageExpression"], variables)
        except ExpressionError:
            said = None
        if isinstance(said, str) and said.strip():
            return said
    return rule.get("message") or f"failed rule: {rule['rule']}"


def _celled(value: Any, schema: Json) -> Any:
    """A value as expressions see it: names that are no identifiers are escaped, times are times."""
    if isinstance(value, dict):
        properties: Mapping[str, Json] = map_at(schema, "properties")
        other = schema.get("additionalProperties")
        inner = cast("Json", other) if isinstance(other, dict) else {}
        return {
            (_escaped(name) if name in properties else name): _celled(each, properties.get(name, inner))
            for name, each in cast("Json", value).items()
        }
    if isinstance(value, list):
        return [_celled(each, map_at(schema, "items")) for each in cast("list[Any]", value)]
    if isinstance(value, str):
        try:
            if schema.get("format") == "date-time":
                return dt.datetime.fromisoformat(value)
            if schema.get("format") == "duration":
                return dt.timedelta(microseconds=parse_duration(value).nanoseconds / 1000)
        except ValueError:
            return value
    return value


def _escaped(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    escaped = name.replace("__", "__underscores__")
    for char, word in ((".", "dot"), ("-", "dash"), ("/", "slash")):
        escaped = escaped.replace(char, f"__{word}__")
    return escaped


_REASONS: Final = {
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
}
_RESERVED: Final = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
