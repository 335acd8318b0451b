"""What workloads were seen to call, so that the next proxy of the same workload has it before the first call.

A proxy that discovers on demand asks for a name once and keeps what it gets; a new one would ask again for each. So
the names that were asked for and that somebody has are remembered per workload, and given to its next proxy unasked. A
proxy that has a name never asks for it: the only sign that it is still called is an ask. So a name is kept for
LIFETIME_S after the last one, and then costs one look-up at most.

Everything is bounded: a workload that calls every service of the mesh fills its own place and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

LIFETIME_S: Final = 7 * 86400.0
NAMES_MAX: Final = 200
"""Names of one workload; beyond that the one that was asked for longest ago is forgotten."""
TOTAL_MAX: Final = 100_000
"""Names in all (some 20 MB); beyond that the workload that has asked for nothing for longest is forgotten."""
FRESH_S: Final = 3600.0
"""A name that was asked for within this time is not noted again: proxies that start together ask for it together."""


class Identity(NamedTuple):
    """Proxies that are taken for the same workload: those of one account and canonical name."""

    namespace: str
    service_account: str
    workload: str


class _Name(msgspec.Struct, frozen=True, array_like=True):
    type: str
    name: str
    asked_at: float


class _Known(msgspec.Struct, frozen=True, array_like=True):
    identity: Identity
    names: tuple[_Name, ...]


class Learned:
    """Names by workload. `now` is the time in seconds since the epoch: it outlives the process."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[Identity, dict[tuple[str, str], float]] = {}
        self._count = 0
        self.changed = False
        """True when there is something that `encoded` has not told yet."""

    def __len__(self) -> int:
        """How many names there are."""
        return self._count

    def note(self, identity: Identity, type_short: str, name: str) -> None:
        """A proxy of a workload asked for that resource, and there is one."""
        now = self._now()
        if now - self._known.get(identity, {}).get((type_short, name), 0.0) > FRESH_S:
            self._put(identity, (type_short, name), now)
            self._bound()
            self.changed = True

    def names(self, identity: Identity, type_short: str) -> list[str]:
        """What the workload is to have of a type, those asked for last first."""
        since = self._now() - LIFETIME_S
        known = self._known.get(identity, {})
        return [name for (kind, name), at in reversed(known.items()) if kind == type_short and at >= since]

    def encoded(self) -> bytes:
        """Everything that is not too old, for `merge`; what is too old is forgotten."""
        since = self._now() - LIFETIME_S
        for identity, names in list(self._known.items()):
            for key in [key for key, at in names.items() if at < since]:
                self._drop(identity, key)
        self.changed = False
        return msgspec.json.encode(
            [
                _Known(identity, tuple(_Name(kind, name, at) for (kind, name), at in names.items()))
                for identity, names in self._known.items()
            ]
        )

    def merge(self, encoded: bytes) -> None:
        """Takes over what another one knows; of a name that both have the later time counts. ValueError (a
        msgspec.DecodeError) for bytes of another form."""
        theirs = msgspec.json.decode(encoded, type=list[_Known])
        rows = [(each.asked_at, known.identity, each) for known in theirs for each in known.names]
        rows += [
            (at, identity, _Name(*key, at)) for identity, names in self._known.items() for key, at in names.items()
        ]
        rows.sort(key=lambda row: row[0])
        for at, identity, each in rows:
            self._put(identity, (each.type, each.name), min(at, self._now()))
        self._bound()

    def _put(self, identity: Identity, key: tuple[str, str], at: float) -> None:
        names = self._known.pop(identity, {})
        self._known[identity] = names  # last: the workload that asked last
        if names.pop(key, None) is None:
            self._count += 1
        names[key] = at
        if len(names) > NAMES_MAX:
            self._drop(identity, next(iter(names)))

    def _drop(self, identity: Identity, key: tuple[str, str]) -> None:
        del self._known[identity][key]
        self._count -= 1
        if not self._known[identity]:
            del self._known[identity]

    def _bound(self) -> None:
        while self._count > TOTAL_MAX:
            self._count -= len(self._known.pop(next(iter(self._known))))


class Memory:
    """What one proxy's workload has learned; types by their place in the table of types."""

    def __init__(self, learned: Learned, identity: Identity, types: tuple[str, ...]) -> None:
        self._learned, self._identity, self._types = learned, identity, types

    def note(self, type_index: int, name: str) -> None:
        """The proxy asked for it, and there is one."""
        self._learned.note(self._identity, self._types[type_index], name)

    def names(self, type_index: int) -> list[str]:
        """What it is to have of a type without asking."""
        return self._learned.names(self._identity, self._types[type_index])
