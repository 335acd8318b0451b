"""How far one client is behind, name by name, kept only for the names that are.

A client without lags holds the content of the newest revision: its watermark. A lag says of one resource up to which
revision the client is known to hold it, since when, and which objects what it holds was made from (an object may
have left the resource meanwhile, and is live only when the client has dropped it too). A name stays behind while it
waits to be sent, is on its way, was refused, or is held back from everybody. With every answer a lag ends or moves
on, so under steady change an object still becomes live with the first content that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from lateen.lib.ids import Ref

NOTHING: Final = -1
"""The revision of a name the client has never had."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One name. `listed`: it came or went, so any object may be the reason. `since` in seconds of the loop's clock."""

    revision: int
    since: float
    before: tuple[Ref, ...] = ()
    listed: bool = False


class Lags:
    """The lags of one client by type index and name."""

    __slots__ = ("_types",)

    def __init__(self) -> None:
        self._types: dict[int, dict[str, Lag]] = {}

    def note(
        self, index: int, name: str, revision: int, since: float, before: tuple[Ref, ...] = (), listed: bool = False
    ) -> None:
        """That name differs, or may, from what the client holds, which is of that revision."""
        names = self._types.setdefault(index, {})
        lag = names.get(name)
        if lag is None:
            names[name] = Lag(revision, since, before, listed)
            return
        if before and before != lag.before:
            before = tuple(dict.fromkeys((*lag.before, *before)))
        names[name] = Lag(min(lag.revision, revision), lag.since, before or lag.before, lag.listed or listed)

    def begin(self, index: int, new: Iterable[str], since: float) -> None:
        """The client has none of these names."""
        names, lag = self._types.setdefault(index, {}), Lag(NOTHING, since)
        for name in new:
            names[name] = lag if name not in names else replace(names[name], revision=NOTHING)

    def moved(self, index: int, names: Iterable[str]) -> bool:
        """True when the client held one of these names before: something has changed."""
        there = self._types.get(index)
        return there is not None and any((lag := there.get(name)) and lag.revision != NOTHING for name in names)

    def acked(self, index: int, names: Iterable[str], revision: int, waits: Callable[[str], bool]) -> None:
        """The client took these names as of a revision; one that `waits` has changed since."""
        there = self._types.get(index, {})
        for name in names:
            lag = there.get(name)
            if lag is not None and waits(name):
                there[name] = replace(lag, revision=revision, listed=False)
            elif lag is not None:
                del there[name]

    def settle(self, index: int, behind: Callable[[str], bool], names: Iterable[str] | None = None) -> None:
        """Ends those lags of a type that are none any more, of all names or of some."""
        there = self._types.get(index)
        if not there:
            return
        looked_at = list(there) if names is None else [name for name in names if name in there]
        for name in looked_at:
            if not behind(name):
                del there[name]

    @property
    def revision(self) -> int | None:
        """The oldest revision that is still held of some name; None when nothing is behind."""
        return min((lag.revision for _, _, lag in self), default=None)

    def __iter__(self) -> Iterator[tuple[int, str, Lag]]:
        for index, names in self._types.items():
            for name, lag in names.items():
                yield index, name, lag

    def __len__(self) -> int:
        return sum(map(len, self._types.values()))
