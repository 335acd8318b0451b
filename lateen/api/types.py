"""What the API's structs look like: fields, their wire names and types.

All kinds are looked at in one go, in which each type is translated once: one by one that takes ten times as long, since
every struct is looked at again for each that has it inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import cast

from msgspec import inspect

from lateen.api.kinds import KINDS, VIEWS


@cache
def struct_type(kind: type) -> inspect.StructType:
    """The description of a struct."""
    found = _known().get(kind)
    if found is None:
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        return info
    return found


@cache
def _known() -> Mapping[type, inspect.StructType]:
    found: dict[type, inspect.StructType] = {}
    todo: list[inspect.Type] = list(inspect.multi_type_info([each.type for each in (*KINDS, *VIEWS)]))
    while todo:
        node = todo.pop()
        match node:
            case inspect.StructType():
                if node.cls not in found:
                    found[cast("type", node.cls)] = node
                    todo += [each.type for each in node.fields]
            case inspect.VarTupleType():
                todo.append(node.item_type)
            case inspect.DictType():
                todo += [node.key_type, node.value_type]
            case inspect.UnionType():
                todo += node.types
            case inspect.Metadata():
                todo.append(node.type)
            case _:
                pass
    return found
