"""CEL expressions: rules of CustomResourceDefinitions and conditions of webhooks.

Expressions come from strangers, so what one may cost is bounded before it runs: the largest collection in its data
to the power of how often it walks through one. The library is loaded with the first expression.

Source: https://kubernetes.io/docs/reference/using-api/cel/
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import cel

_COST_MAX: Final = 1_000_000
_LENGTH_MAX: Final = 10_000
_WALKS: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter|sum|isSorted|min|max)\s*\(")
_BUILT_IN: Final = frozenset(
    [
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "has",
        "all",
        "exists",
        "exists_one",
        "map",
        "filter",
        "string",
        "int",
        "uint",
        "double",
        "bytes",
        "bool",
        "type",
        "duration",
        "timestamp",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
        "dyn",
        "max",
        "min",
    ]
)


class ExpressionError(Exception):
    """An expression that cannot be read, costs too much, or fails on its data. The message says which."""


@lru_cache(maxsize=2_000)
def compiled(expression: str) -> cel.Program:
    """The expression, ready to run. ExpressionError when it is none, or names functions that are not here."""
    if len(expression) > _LENGTH_MAX:
        raise ExpressionError(f"the expression is longer than {_LENGTH_MAX} characters")
    import cel

    try:
        program = cel.compile(expression)
    except ValueError as error:
        raise ExpressionError(" ".join(str(error).split())) from None
    named = {each for each in program.functions() if each.isidentifier() and not each.startswith("_")}
    unknown = sorted(named - _BUILT_IN - _FUNCTIONS.keys())
    if unknown:
        raise ExpressionError(f"the function {unknown[0]} is not there")
    return program


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """What the expression is for these variables. ExpressionError when it cannot be said."""
    program = compiled(expression)
    walks = len(_WALKS.findall(expression))
    if walks and max(2, _largest(list(variables.values()))) ** walks > _COST_MAX:
        raise ExpressionError("the expression costs too much for so large a value")
    import cel

    try:
        return program.execute(cel.Context(variables=dict(variables), functions=dict(_FUNCTIONS)))
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError, OverflowError, ArithmeticError) as error:
        said = f"no such key: {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
        raise ExpressionError(said) from None


def uses(expression: str, variable: str) -> bool:
    """Whether the expression refers to a variable."""
    return variable in compiled(expression).variables()


def _largest(values: list[Any]) -> int:
    """The size of the largest collection inside of some values."""
    largest, todo = 0, values
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            inner: list[Any] = list(cast("dict[Any, Any]", value).values())
        elif isinstance(value, list):
            inner = cast("list[Any]", value)
        else:
            continue
        largest = max(largest, len(inner))
        todo += inner
    return largest


def _substring(text: str, begin: int, end: int | None = None) -> str:
    return text[begin:] if end is None else text[begin:end]


def _split(text: str, by: str, limit: int = -1) -> list[str]:
    return text.split(by) if limit < 0 else text.split(by, max(0, limit - 1))


def _find(text: str, pattern: str) -> str:
    return next(iter(_find_all(text, pattern)), "")


def _find_all(text: str, pattern: str) -> list[str]:
    import re2

    return [str(each.group(0)) for each in re2.finditer(pattern, text)]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _char_at(text: str, index: int) -> str:
    return text[index : index + 1]


def _is_sorted(values: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(values))


def _join(values: list[str], by: str = "") -> str:
    return by.join(values)


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _index_of(value: Any, part: Any) -> int:
    if isinstance(value, str):
        return value.find(part)
    return value.index(part) if part in value else -1


def _last_index_of(value: Any, part: Any) -> int:
    if isinstance(value, str):
        return value.rfind(part)
    return len(value) - 1 - value[::-1].index(part) if part in value else -1


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "charAt": _char_at,
    "find": _find,
    "findAll": _find_all,
    "indexOf": _index_of,
    "isSorted": _is_sorted,
    "join": _join,
    "lastIndexOf": _last_index_of,
    "lowerAscii": str.lower,
    "replace": _replace,
    "split": _split,
    "substring": _substring,
    "sum": sum,
    "trim": str.strip,
    "upperAscii": str.upper,
}
