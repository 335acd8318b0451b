"""Label and field selectors of list and watch, by Kubernetes' grammar.

Labels: `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b)`, `a`, `!a`, joined by commas. Fields: equality on
`metadata.name`, `metadata.namespace` and what else each kind says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lateen.apiserver.errors import BadRequestError
from lateen.apiserver.rows import Row

Match = Callable[[Row], bool]

_REQUIREMENT: Final = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<no>[^\s=!,()]+)"
    r"|(?P<key>[^\s=!,()]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[^\s=!,()]*)"
    r"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_FIELDS: Final = ("metadata.name", "metadata.namespace")


def selector(labels: str, fields: str, selectable: Sequence[str] = (), names: Mapping[str, str] | None = None) -> Match:
    """True for rows that both selectors mean; `selectable` are the kind's own fields, `names` what some are called in
    the store. BadRequestError when one cannot be read."""
    requirements = [*_labels(labels), *_fields(fields, selectable, names or {})]
    if not requirements:
        return _everything
    return lambda row: all(each(row) for each in requirements)


def _labels(text: str) -> list[Match]:
    found: list[Match] = []
    at = 0
    while at < len(text):
        match = _REQUIREMENT.match(text, at)
        if match is None:
            raise BadRequestError(
                f"the label selector {text!r} cannot be read at {text[at:]!r}",
                remedy="write a=b, a!=b, a in (b,c), a notin (b), a or !a, joined by commas",
            )
        at = match.end()
        found.append(_label(match))
    return found


def _label(match: re.Match[str]) -> Match:
    key, value = match["key"], match["value"]
    if match["absent"]:
        return lambda row: match["no"] not in row.labels
    if match["set"]:
        values = {each.strip() for each in match["values"].split(",")}
        if match["set"] == "in":
            return lambda row: row.labels.get(key) in values
        return lambda row: row.labels.get(key) not in values
    if match["op"] is None:
        return lambda row: key in row.labels
    if match["op"] == "!=":
        return lambda row: row.labels.get(key) != value
    return lambda row: row.labels.get(key) == value


def _everything(row: Row) -> bool:
    return True


def _fields(text: str, selectable: Sequence[str], names: Mapping[str, str]) -> list[Match]:
    found: list[Match] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, operator, value = re.split(r"(!=|==|=)", part, maxsplit=1) if "=" in part else (part, "", "")
        if not operator or key not in (*_FIELDS, *selectable):
            raise BadRequestError(
                f'"{part}" is not a known field selector: only {", ".join((*_FIELDS, *selectable))}',
                remedy="write FIELD=VALUE",
            )
        found.append(_field(names.get(key, key), value, equal=operator != "!="))
    return found


def _field(key: str, value: str, *, equal: bool) -> Match:
    match key:
        case "metadata.name":
            return lambda row: (row.ref.name == value) is equal
        case "metadata.namespace":
            return lambda row: (row.ref.namespace == value) is equal
        case _:
            first, *rest = key.split(".")
            return lambda row: (_value(row, first, rest) == value) is equal


def _value(row: Row, first: str, rest: Sequence[str]) -> str:
    found: Any = msgspec.json.decode(row.status) if first == "status" else msgspec.json.decode(row.body).get(first)
    for step in rest:
        found = found.get(step) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if found is None:
        return ""
    return str(found).lower() if isinstance(found, bool) else str(found)  # pyright: ignore[reportUnknownArgumentType]
