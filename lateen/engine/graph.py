"""The engine: inputs, memoised pure queries, and watches that fire only where an answer changed.

Everything lateen says is a query over the objects it holds. A query is a pure, synchronous function
`fn(q, *args)`; the engine records what it reads through `q`, so no dependency is ever declared by hand.
A commit makes one revision: it marks the direct readers of what changed DIRTY and everything above them
CHECK, without running anything. Pulling a CHECK node verifies its dependencies in order and re-runs it only
if one of them really changed; a value equal to the old one keeps its changed-at revision, so the wave stops
there. Objects that are absent are dependencies too: reading one that does not exist records an edge.

    graph = Graph()
    graph.commit(Transaction(put=[(key, value)]))
    watch = graph.watch(my_query, "arg")
    for changed in graph.drain():
        changed.value()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from lateen.engine.cells import (
    CHECK,
    CLEAN,
    DIRTY,
    Cell,
    CycleError,
    Index,
    Key,
    Node,
    Transaction,
    Why,
    read_by,
    unread_by,
)

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Watch(Generic[R]):
    """A query kept up to date: `drain` yields it whenever its answer changed. Call `close` when done."""

    __slots__ = ("_graph", "_node", "holders", "reported_at")

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph = graph
        self._node = node
        self.holders = 0
        self.reported_at = node.changed_at

    def value(self) -> R:
        """The current answer. Raises what the query raised."""
        return cast("R", self._graph._pull(self._node))

    @property
    def changed_at(self) -> int:
        """The revision at which the answer last changed."""
        return self._node.changed_at

    def close(self) -> None:
        """Gives this holder's interest up; the node stays memoised until `sweep`."""
        self.holders -= 1
        if self.holders == 0:
            self._node.watch = None
            self._graph._pending.pop(self._node, None)


class Q:
    """What a query reads through. Every read is recorded as a dependency of the query that is running."""

    __slots__ = ("_graph",)

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, fn: Callable[Concatenate[Q, P], R], *args: P.args, **_: P.kwargs) -> R:
        """The answer of another query. Raises what that query raised."""
        graph = self._graph
        node = graph._node(fn, args)
        graph._record(node)
        return cast("R", graph._pull(node))

    def read(self, key: Key) -> Any:
        """The input of that key, or None when there is none (which is recorded as well)."""
        cell = self._graph._cell(key)
        self._graph._record(cell)
        return cell.value

    def group(self, index: Index[K, V], key: K) -> tuple[V, ...]:
        """The inputs in one group of an index, in the order of their keys."""
        cell = self._graph._group(index, key)
        self._graph._record(cell)
        if cell.value is None:
            cell.value = self._graph._collect(index, key)
        return cast("tuple[V, ...]", cell.value)

    def groups(self, index: Index[K, V]) -> frozenset[K]:
        """The groups of an index that have any input in them."""
        cell = self._graph._groups_of(index)
        self._graph._record(cell)
        return cast("frozenset[K]", cell.value)


class Graph:
    """Inputs, memoised queries and watches. Single-threaded: commit, pull and drain on one thread."""

    def __init__(self) -> None:
        self.revision = 0
        self.ran = 0  # queries so far
        self._cells: dict[Key, Cell] = {}
        self._members: dict[Index[Any, Any], dict[Hashable, dict[Key, None]]] = {}
        self._groups: dict[tuple[Index[Any, Any], Hashable], Cell] = {}
        self._listed: dict[Index[Any, Any], Cell] = {}
        self._indexes: dict[Hashable, list[Index[Any, Any]]] = {}
        self._by_kind: dict[Hashable, dict[Key, None]] = {}
        self._nodes: dict[Callable[..., Any], dict[tuple[Any, ...], Node]] = {}
        self._reads: list[dict[Cell | Node, None]] = []
        self._stack: list[Node] = []
        self._pending: dict[Node, None] = {}
        self._q = Q(self)
        self._trace: list[str] | None = None

    # -- writing ---------------------------------------------------------------------------------------

    def commit(self, tx: Transaction) -> int:
        """Applies a transaction and returns the revision. Inputs equal to what is there change nothing."""
        if self._stack:
            raise RuntimeError("commit from inside a query: queries are pure")
        self.revision += 1
        for key, value in tx.put:
            self._set(key, value)
        for key in tx.delete:
            self._set(key, None)
        return self.revision

    def _set(self, key: Key, value: Any) -> None:
        cell = self._cell(key)
        old = cell.value
        if old == value:
            return
        cell.value = value
        self._touch(cell)
        keys = self._by_kind.setdefault(key.collection, {})
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = None
        for index in self._indexes.get(key.collection, ()):
            before = set(index.keys(key, old)) if old is not None else set[Hashable]()
            after = set(index.keys(key, value)) if value is not None else set[Hashable]()
            members = self._members[index]
            for group in before - after:
                members[group].pop(key, None)
                if not members[group]:
                    del members[group]
            for group in after - before:
                members.setdefault(group, {})[key] = None
            if (listed := self._listed.get(index)) is not None and listed.value != members.keys():
                listed.value = frozenset(members)
                self._touch(listed)
            for group in before | after:
                if (group_cell := self._groups.get((index, group))) is not None:
                    group_cell.value = None
                    self._touch(group_cell)

    def _touch(self, cell: Cell) -> None:
        cell.changed_at = self.revision
        stack: list[Node] = []
        for node in cell.readers or ():
            if node.state == CLEAN:
                stack.append(node)
            node.state = DIRTY
        while stack:
            node = stack.pop()
            if node.watch is not None:
                self._pending[node] = None
            for reader in node.readers or ():
                if reader.state == CLEAN:
                    reader.state = CHECK
                    stack.append(reader)

    # -- reading ---------------------------------------------------------------------------------------

    def input(self, key: Key) -> Any:
        """The input of that key now, or None. For those outside queries; a query reads through its `q`."""
        cell = self._cells.get(key)
        return None if cell is None else cell.value

    def changed_at(self, key: Key) -> int:
        """The revision at which the input of that key last changed; 0 when nobody ever put or read it."""
        cell = self._cells.get(key)
        return 0 if cell is None else cell.changed_at

    def pull(self, fn: Callable[Concatenate[Q, P], R], *args: P.args, **_: P.kwargs) -> R:
        """The answer of a query now, memoised like any other. Raises what the query raised."""
        return cast("R", self._pull(self._node(fn, args)))

    def watch(self, fn: Callable[Concatenate[Q, P], R], *args: P.args, **_: P.kwargs) -> Watch[R]:
        """Keeps a query up to date; watches of the same query and arguments share one node."""
        node = self._node(fn, args)
        with contextlib.suppress(Exception):
            self._pull(node)
        watch = cast("Watch[R] | None", node.watch)
        if watch is None:
            watch = node.watch = Watch[R](self, node)
        watch.holders += 1
        return watch

    def drain(self) -> Iterator[Watch[Any]]:
        """Re-checks watched queries that may have changed and yields those whose answer did.

        The caller may stop between two items, commit, and go on later: nothing is lost.
        """
        while self._pending:
            node, _ = self._pending.popitem()
            with contextlib.suppress(Exception):
                self._pull(node)
            if (watch := cast("Watch[Any] | None", node.watch)) is not None and node.changed_at > watch.reported_at:
                watch.reported_at = node.changed_at
                yield watch

    @property
    def idle(self) -> bool:
        """True when no watched query waits to be re-checked."""
        return not self._pending

    def why(self, fn: Callable[Concatenate[Q, P], R], *args: P.args, **_: P.kwargs) -> Why:
        """What the answer was made from, down to the inputs."""
        node = self._node(fn, args)
        with contextlib.suppress(Exception):
            self._pull(node)

        def explain(item: Node | Cell) -> Why:
            reads = [explain(dep) for dep in item.deps] if isinstance(item, Node) else []
            return Why(str(item.name), item.changed_at, reads)

        return explain(node)

    def sweep(self) -> int:
        """Forgets every query that no watch depends on; returns how many."""
        keep: set[Node] = set()
        stack = [node for nodes in self._nodes.values() for node in nodes.values() if node.watch is not None]
        while stack:
            node = stack.pop()
            if node not in keep:
                keep.add(node)
                stack.extend(dep for dep in node.deps if isinstance(dep, Node))
        before = len(self)
        for nodes in self._nodes.values():
            for node in [node for node in nodes.values() if node not in keep]:
                for dep in node.deps:
                    unread_by(dep, node)
                del nodes[node.args]
        for place in [place for place, group in self._groups.items() if not group.readers]:
            del self._groups[place]
        for key in [key for key, cell in self._cells.items() if cell.value is None and not cell.readers]:
            del self._cells[key]
        return before - len(self)

    def fork(self) -> Graph:
        """A graph with the same inputs, nothing memoised and nobody watching: to ask what would be if."""
        other = Graph()
        other.commit(
            Transaction(put=[(key, cell.value) for key, cell in self._cells.items() if cell.value is not None])
        )
        return other

    @contextlib.contextmanager
    def tracing(self) -> Iterator[list[str]]:
        """Collects the names of the queries that run inside the block; for tests and profiling."""
        self._trace = ran = []
        try:
            yield ran
        finally:
            self._trace = None

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    # -- inside ----------------------------------------------------------------------------------------

    def _node(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Node:
        nodes = self._nodes.get(fn)
        if nodes is None:
            nodes = self._nodes[fn] = {}
        node = nodes.get(args)
        if node is None:
            node = nodes[args] = Node(fn, args)
        return node

    def _cell(self, key: Key) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(key, self.revision)
        return cell

    def _grouped(self, index: Index[Any, Any]) -> dict[Hashable, dict[Key, None]]:
        if index not in self._members:
            members: dict[Hashable, dict[Key, None]] = {}
            for key in self._by_kind.get(index.collection, ()):
                for each in index.keys(key, self._cells[key].value):
                    members.setdefault(each, {})[key] = None
            self._members[index] = members
            self._indexes.setdefault(index.collection, []).append(index)
        return self._members[index]

    def _groups_of(self, index: Index[Any, Any]) -> Cell:
        cell = self._listed.get(index)
        if cell is None:
            cell = self._listed[index] = Cell(f"groups of {index.name}", self.revision)
            cell.value = frozenset(self._grouped(index))
        return cell

    def _group(self, index: Index[Any, Any], group: Hashable) -> Cell:
        self._grouped(index)
        cell = self._groups.get((index, group))
        if cell is None:
            cell = self._groups[index, group] = Cell(f"{index.name}[{group}]", self.revision)
        return cell

    def _collect(self, index: Index[Any, Any], group: Hashable) -> tuple[Any, ...]:
        return tuple(self._cells[key].value for key in sorted(self._members[index].get(group, ())))

    def _record(self, dep: Cell | Node) -> None:
        if self._reads:
            self._reads[-1][dep] = None

    def _pull(self, node: Node) -> Any:
        if node.running:
            raise CycleError(" -> ".join(each.name for each in [*self._stack, node]))
        if node.state != CLEAN:
            if node.state == DIRTY or self._stale(node):
                self._run(node)
            node.state = CLEAN
            node.verified_at = self.revision
        if node.error is not None:
            raise node.error
        return node.value

    def _stale(self, node: Node) -> bool:
        verified_at = node.verified_at
        for dep in node.deps:
            if isinstance(dep, Node) and dep.state != CLEAN:
                with contextlib.suppress(Exception):
                    self._pull(dep)
            if dep.changed_at > verified_at:
                return True
        return False

    def _run(self, node: Node) -> None:
        self.ran += 1
        if self._trace is not None:
            self._trace.append(node.name)
        reads: dict[Cell | Node, None] = {}
        value, error = None, None
        node.running = True
        self._stack.append(node)
        self._reads.append(reads)
        try:
            value = node.fn(self._q, *node.args)
        except CycleError:
            raise
        except Exception as exception:  # contained: only what depends on this answer sees it
            error = exception
        finally:
            self._stack.pop()
            self._reads.pop()
            node.running = False
        before, node.deps = node.deps, tuple(reads)
        for dep in before:
            if dep not in reads:
                unread_by(dep, node)
        for dep in node.deps:
            read_by(dep, node)
        same = node.verified_at >= 0 and (
            (error is None and node.error is None and value == node.value)
            or (error is not None and node.error is not None and repr(error) == repr(node.error))
        )
        if not same:
            node.value, node.error, node.changed_at = value, error, self.revision
