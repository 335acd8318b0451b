"""What each change became: the objects, the queries that ran, who was sent how much, and when the last proxy had it.

A push is one revision of the graph. A response is counted to the revision it was made at when some resource in it
changed or came or went for a client that held it before; what a client gets because it connected, or asked for
something new, is nobody's change. A client has a push when it has answered for everything that was outstanding.

The journal is bounded by pushes and by clients in them, so its size does not grow with the mesh.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from lateen.engine import Key
from lateen.intent.scope import Proxy

PUSHES: Final = 1_000
CLIENTS: Final = 20_000
"""Clients in all pushes together."""
OBJECTS: Final = 20
"""Objects that are named of one push."""
CONVERGENCE_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 3, 5, 10, 20, 30)
PUSH_S: Final = (0.0001, 0.001, 0.01, 0.1, 1, 3, 5, 10, 20, 30)
SIZE_BYTES: Final = (1, 1_000, 10_000, 100_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000)


class Client(Protocol):
    """A stream, as the journal knows it."""

    @property
    def proxy(self) -> Proxy: ...


class Took(msgspec.Struct):
    """One client of a push: what it was sent, and after how many seconds it had everything (None: not yet). `refused`:
    it said no to something."""

    types: dict[str, int]
    bytes: int = 0
    acked_s: float | None = None
    refused: bool = False


class Push(msgspec.Struct):
    """One change. `at` in seconds since 1970; all other times in seconds since the first of its objects came in.
    `objects` are named up to `OBJECTS` of `changed`; with the revision in the store where that is known.
    `worked_out_s`: when everything was worked out and sending began."""

    revision: int
    at: float
    objects: tuple[tuple[str, int], ...]
    changed: int
    queries: int = 0
    worked_out_s: float | None = None
    messages: int = 0
    bytes: int = 0
    types: dict[str, int] = {}
    scopes: int = 0
    clients: dict[str, Took] = {}

    @property
    def first_s(self) -> float | None:
        """When the first client had it; None while none has."""
        return min((each.acked_s for each in self.clients.values() if each.acked_s is not None), default=None)

    @property
    def last_s(self) -> float | None:
        """When the last client had it; None while one has not, or nobody needed it."""
        times = [each.acked_s for each in self.clients.values()]
        return max((each for each in times if each is not None), default=None) if None not in times else None


class Histogram:
    """Counts by upper bounds, and their sum."""

    def __init__(self, bounds: Collection[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        found: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class Journal:
    """The pushes of one server, the newest last. For the loop's thread."""

    def __init__(self) -> None:
        self.convergence = Histogram(CONVERGENCE_S)
        self.coalescing = Histogram(CONVERGENCE_S)
        self.sizes: dict[str, Histogram] = {}
        self.push_times: dict[str, Histogram] = {}
        self.triggers = Counter[str]()
        self._pushes: deque[Push] = deque()
        self._begun: dict[int, float] = {}
        self._scopes: dict[int, set[int]] = {}
        self._waiting: dict[Client, list[Push]] = {}
        self._stored: dict[Key, int] = {}
        self._clients = 0
        self._queries = 0

    # -- what happens ---------------------------------------------------------------------------------------

    def stored(self, key: Key, revision: int) -> None:
        """An object was written to the store at a revision, and is on its way."""
        self._stored[key] = revision

    def committed(self, revision: int, keys: Collection[Key], since: float, queries: int) -> None:
        """A revision was made of changes, the first of which came at `since` (monotonic). `queries` ran so far."""
        now = time.monotonic()
        named = sorted(
            ((_name(key), self._stored.pop(key, 0)) for key in list(keys)[:OBJECTS]), key=lambda each: each[0]
        )
        self._stored.clear()
        self._queries = queries
        self._pushes.append(Push(revision, time.time() - (now - since), tuple(named), len(keys)))
        self._begun[revision] = since
        self.coalescing.observe(now - since)
        for kind in {str(getattr(key, "kind", "other")) for key in keys}:
            self.triggers[kind] += 1
        while len(self._pushes) > PUSHES or (self._clients > CLIENTS and len(self._pushes) > 1):
            self._forget(self._pushes.popleft())

    def worked_out(self, queries: int) -> None:
        """Everything is up to date, sending begins. `queries` ran so far."""
        push = self._pushes[-1] if self._pushes else None
        if push is not None and push.worked_out_s is None:
            push.queries = queries - self._queries
            push.worked_out_s = time.monotonic() - self._begun[push.revision]

    def sent(self, client: Client, scope: int, short: str, names: int, size: int, took_s: float, changed: bool) -> None:
        """A response left; `scope` is who shares its bytes, `changed`: because of the newest revision."""
        self.sizes.setdefault(short, Histogram(SIZE_BYTES)).observe(size)
        self.push_times.setdefault(short, Histogram(PUSH_S)).observe(took_s)
        push = self._pushes[-1] if self._pushes else None
        if not changed or push is None:
            return
        push.messages += 1
        push.bytes += size
        push.types[short] = push.types.get(short, 0) + names
        scopes = self._scopes.setdefault(push.revision, set())
        scopes.add(scope)
        push.scopes = len(scopes)
        name = _full(client)
        took = push.clients.get(name)
        if took is None:
            took = push.clients[name] = Took({})
            self._clients += 1
        took.types[short] = took.types.get(short, 0) + names
        took.bytes += size
        waiting = self._waiting.setdefault(client, [])
        if not waiting or waiting[-1] is not push:
            took.acked_s = None
            waiting.append(push)

    def refused(self, client: Client) -> None:
        """A client said no to a response."""
        for push in self._waiting.get(client, ())[-1:]:
            push.clients[_full(client)].refused = True

    def settled(self, client: Client) -> None:
        """A client has answered for everything that was sent, and nothing waits to be."""
        waiting = self._waiting.pop(client, None)
        if waiting is None:
            return
        now = time.monotonic()
        for push in waiting:
            if (begun := self._begun.get(push.revision)) is not None:
                push.clients[_full(client)].acked_s = now - begun
                self.convergence.observe(now - begun)

    def gone(self, client: Client) -> None:
        """A client went: nobody waits for it."""
        for push in self._waiting.pop(client, ()):
            if push.clients.pop(_full(client), None) is not None:
                self._clients -= 1

    # -- what is asked --------------------------------------------------------------------------------------

    def pushes(self, limit: int, proxy: str = "", name: str = "", revision: int = 0) -> list[Push]:
        """The newest pushes, the newest first: all, those that a proxy (`NAME.NAMESPACE`) was sent something of, those
        of an object by its short name, or the one of a revision (the graph's or the store's)."""

        def wanted(push: Push) -> bool:
            return (
                (not proxy or proxy in push.clients)
                and (not name or any(each == name for each, _ in push.objects))
                and (not revision or revision == push.revision or any(at == revision for _, at in push.objects))
            )

        return list(_first(filter(wanted, reversed(self._pushes)), limit))

    def _forget(self, push: Push) -> None:
        self._clients -= len(push.clients)
        self._begun.pop(push.revision, None)
        self._scopes.pop(push.revision, None)


def _full(client: Client) -> str:
    return f"{client.proxy.name}.{client.proxy.namespace}"


def _name(key: Any) -> str:
    return str(getattr(key, "short", key))


def _first(pushes: Iterable[Push], limit: int) -> Iterator[Push]:
    for number, each in enumerate(pushes):
        if number == limit:
            return
        yield each
