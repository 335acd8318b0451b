"""Reading objects inside queries.

One place turns (type, namespace, name) into engine inputs, so that every query reads objects the same way and
every read is a recorded dependency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar, cast

from lateen.api.struct import Object
from lateen.engine import Index, Q, Transaction
from lateen.lib.ids import Ref

T = TypeVar("T", bound=Object)


def ref_of(kind: type[Object], namespace: str, name: str) -> Ref:
    """The Ref of an object of that kind; namespace is empty for cluster-scoped kinds."""
    return Ref(kind.GROUP, kind.KIND, namespace, name)


def get(q: Q, kind: type[T], namespace: str, name: str) -> T | None:
    """The object, or None; absence is a dependency too."""
    return cast("T | None", q.read(ref_of(kind, namespace, name)))


@cache
def _by_namespace(kind: type[Object]) -> Index[str, Object]:
    return Index((kind.GROUP, kind.KIND), lambda key, _: (key.namespace,), f"{kind.KIND} by namespace")


@cache
def _all(kind: type[Object]) -> Index[None, Object]:
    return Index((kind.GROUP, kind.KIND), lambda _key, _value: (None,), f"all {kind.KIND}")


def in_namespace(q: Q, kind: type[T], namespace: str) -> tuple[T, ...]:
    """All objects of that kind in a namespace, by name. Changes when any of them changes."""
    return cast("tuple[T, ...]", q.group(_by_namespace(kind), namespace))


def everywhere(q: Q, kind: type[T]) -> tuple[T, ...]:
    """All objects of that kind, by namespace and name. Wide: read it in a narrow projection query."""
    return cast("tuple[T, ...]", q.group(_all(kind), None))


def transaction(put: Iterable[Object] = (), delete: Iterable[Ref] = ()) -> Transaction:
    """A transaction over objects; each is keyed by its own Ref."""
    return Transaction(put=[(each.ref, each) for each in put], delete=list(delete))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """True when every label of an equality selector is there. An empty selector selects everything."""
    return all(labels.get(key) == value for key, value in selector.items())
