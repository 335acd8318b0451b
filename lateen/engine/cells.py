"""What the graph is made of: inputs and groups of them (cells), and memoised answers (nodes).

There is a node for every answer, so each is as small as it can be: what it read is a tuple, and what reads it is a set
only where anything does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

CLEAN: Final = 0
CHECK: Final = 1
DIRTY: Final = 2


class Key(Protocol):
    """Names one input. Hashable, ordered among keys of the same kind; `collection` groups inputs for indexes."""

    @property
    def collection(self) -> Hashable: ...
    def __hash__(self) -> int: ...
    def __lt__(self, other: Any) -> bool: ...


class CycleError(Exception):
    """A query read itself, directly or through others. A bug in lateen, never a user's mistake."""


@dataclass(frozen=True, eq=False)
class Index(Generic[K, V]):
    """A named grouping of the inputs of one collection: `keys(key, value)` gives the groups a value belongs to.

    Compared by identity: declare each once, at module level.
    """

    collection: Hashable
    keys: Callable[[Any, V], Iterable[K]]
    name: str


@dataclass(frozen=True)
class Transaction:
    """Puts and deletes that become visible together, as one revision."""

    put: Iterable[tuple[Key, Any]] = ()
    delete: Iterable[Key] = ()


class Cell:
    """A source of change: one input, or one group of an index. Readers are nodes."""

    __slots__ = ("changed_at", "name", "readers", "value")

    def __init__(self, name: object, changed_at: int) -> None:
        self.name = name
        self.changed_at = changed_at
        self.readers: set[Node] | None = None
        self.value: Any = None


class Node:
    """One memoised query result."""

    __slots__ = (
        "args",
        "changed_at",
        "deps",
        "error",
        "fn",
        "readers",
        "running",
        "state",
        "value",
        "verified_at",
        "watch",
    )

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.value: Any = None
        self.error: Exception | None = None
        self.changed_at = 0
        self.verified_at = -1
        self.deps: tuple[Cell | Node, ...] = ()
        self.readers: set[Node] | None = None
        self.state = DIRTY
        self.running = False
        self.watch: object | None = None  # a Watch

    @property
    def name(self) -> str:
        return f"{self.fn.__name__}({', '.join(map(str, self.args))})"


def read_by(dep: Cell | Node, reader: Node) -> None:
    """Notes that a node reads something."""
    if dep.readers is None:
        dep.readers = {reader}
    else:
        dep.readers.add(reader)


def unread_by(dep: Cell | Node, reader: Node) -> None:
    """The inverse of `read_by`."""
    if dep.readers is not None:
        dep.readers.discard(reader)
        if not dep.readers:
            dep.readers = None


@dataclass
class Why:
    """Why an answer is what it is: the query, when it last changed, and what it read."""

    name: str
    changed_at: int
    reads: list[Why] = field(default_factory=list["Why"])
