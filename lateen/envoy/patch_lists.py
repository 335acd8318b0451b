"""Operations of patches on lists of named messages: filters of any sort, and routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from lateen.envoy.messages import merge

T = TypeVar("T", bound=Message)


def change_list(
    items: Any,
    operation: str,
    value: T | None,
    asked: Callable[[T], bool] | None,
    end: Callable[[], int] | None = None,
) -> bool:
    """Changes a repeated field in place; True when the operation found what it asks for.

    `asked` tells the items that are meant; None: the patch names none, so an insertion goes to the very end or
    beginning. `end` says where an ADD goes (default: the end).
    """
    met = [index for index, each in enumerate(items) if asked is None or asked(each)]
    if operation == "REMOVE":
        for index in reversed(met):
            del items[index]
        return bool(met)
    assert value is not None
    if operation in ("MERGE", "MERGE_AND_REPLACE_LIST"):
        for index in met:
            merge(items[index], value, replace_lists=operation != "MERGE")
        return bool(met)
    if operation == "REPLACE":
        for index in met if asked is not None else ():
            items[index].CopyFrom(value)
        return bool(met) and asked is not None
    if operation == "ADD":
        items.insert(end() if end is not None else len(items), value)
        return True
    if asked is not None and not met:
        return False
    if operation == "INSERT_FIRST":
        items.insert(0, value)
        return True
    if operation == "INSERT_BEFORE":
        items.insert(met[0] if asked is not None else 0, value)
        return True
    if operation == "INSERT_AFTER":
        items.insert(met[-1] + 1 if asked is not None else len(items), value)
        return True
    return False
