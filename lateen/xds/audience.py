"""Who gets what: resources on shelves, the lists that wildcard subscribers get, and the streams of equal proxies.

A `Shelf` has the resources of one type that are made for one Scope; which shelf a resource of a proxy is on, its type
says (`ResourceType.level`), so proxies meet on the shelf of the mesh for most of what they get. A `Roster` lists the
names of a level for wildcard subscribers. An `Audience` is all streams of one `Place`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from lateen.envoy.resource import Resource, ResourceType, Shares
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.xds.pump import Handle
from lateen.xds.subscription import UNKNOWN
from lateen.xds.wire import delta_chunk, sotw_chunk


class Reader(Protocol):
    """A stream, as the catalogue knows it."""

    def changed(self, type_index: int, name: str, before: tuple[Ref, ...] | None, listed: bool = False) -> None:
        """That resource may differ from what the client has, which was made from `before`; None: it has none of this
        audience. `listed`: the name came or went."""
        ...

    def joined(self, type_index: int, names: Collection[str]) -> None:
        """The client is to get these, and has none of them."""
        ...

    def renamed(self, type_index: int, asked: str, name: str) -> None:
        """Another resource than before answers to a name that the client asked for."""
        ...


class Place(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a proxy stands: its Scope, and for each type the Scopes it shares resources with."""

    scope: Scope
    shares: tuple[Shares, ...]


@dataclass(eq=False, repr=False, slots=True)
class Entry:
    """One resource on a shelf. `good` is the newest version a client accepted; `refusal` what one said of `current`
    before anybody accepted it, `stand_in` what clients get then that never had a good one."""

    type_index: int
    shelf: Shelf
    name: str
    current: Resource | None = None
    failed: bool = False
    good: Resource | None = None
    stand_in: Resource | None = None
    refusal: str = ""
    inputs: Mapping[Ref, Any] = field(default_factory=dict[Ref, Any])
    good_inputs: Mapping[Ref, Any] = field(default_factory=dict[Ref, Any])
    askers: dict[Reader, None] = field(default_factory=dict["Reader", None])
    rosters: dict[Roster, None] = field(default_factory=dict["Roster", None])
    handle: Handle[Resource | None] | None = None
    _chunk: tuple[Resource, bool, tuple[str, ...], bytes] | None = None

    @property
    def scope(self) -> Scope:
        """Whom it is made for."""
        return self.shelf.scope

    @property
    def wildcard(self) -> bool:
        """True when wildcard subscribers get it."""
        return bool(self.rosters)

    @property
    def serving(self) -> Resource | None:
        """What clients get."""
        return (self.good or self.stand_in) if self.refusal else self.current

    @property
    def version(self) -> str | None:
        """The version that clients get; None when there is no such resource, UNKNOWN when it can't be told."""
        serving = self.serving
        if serving is not None:
            return serving.version
        return UNKNOWN if self.failed or self.refusal else None

    @property
    def frozen(self) -> bool:
        """True when clients do not get what it is now: it was refused, or could not be made."""
        return bool(self.refusal) or self.failed

    def chunk(self, type_url: str, resource: Resource, delta: bool, aliases: tuple[str, ...]) -> bytes:
        """The resource encoded for a response; remembered for the next stream."""
        kept = self._chunk
        if kept is None or kept[0] is not resource or kept[1] is not delta or kept[2] != aliases:
            made = delta_chunk(type_url, resource, aliases) if delta else sotw_chunk(type_url, resource)
            kept = self._chunk = (resource, delta, aliases, made)
        return kept[3]


@dataclass(eq=False, repr=False, slots=True)
class Alias:
    """A name that clients asked for, and the name of the resource behind it."""

    asked: str
    name: str = ""
    handle: Handle[str] | None = None
    askers: dict[Reader, None] = field(default_factory=dict["Reader", None])


@dataclass(eq=False, repr=False, slots=True)
class Shelf:
    """The resources of one type made for one Scope, by name; `audiences` counts those that can have any."""

    scope: Scope
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    aliases: dict[str, Alias] = field(default_factory=dict[str, Alias])
    audiences: int = 0


@dataclass(eq=False, repr=False, slots=True)
class Roster:
    """The names of one type that wildcard subscribers get of a Scope. `shelf` is where they all are; None: wherever the
    audience has them."""

    type_index: int
    level: int
    scope: Scope
    shelf: Shelf | None
    handle: Handle[tuple[str, ...]] | None = None
    listed: frozenset[str] = frozenset()
    audiences: dict[Audience, None] = field(default_factory=dict["Audience", None])


@dataclass(eq=False, repr=False, slots=True)
class Audience:
    """The streams of one Place: their shelves by type and level, who has a wildcard on which type, and the rosters of
    those types."""

    place: Place
    types: tuple[ResourceType, ...]
    shelves: list[tuple[Shelf, ...]]
    wildcard: list[dict[Reader, None]]
    rosters: list[tuple[Roster, ...]]
    streams: int = 0

    def shelf(self, type_index: int, name: str) -> Shelf:
        """Where a resource is, or would be."""
        shelves = self.shelves[type_index]
        if len(shelves) == 1:
            return shelves[0]
        return shelves[self.types[type_index].level(self.place.shares[type_index], name)]

    def find(self, type_index: int, name: str) -> Entry | None:
        """A resource, when somebody gets it."""
        return self.shelf(type_index, name).entries.get(name)

    def has(self, roster: Roster, name: str) -> bool:
        """True when a name of a roster is for these streams: not when they have something else of that name."""
        return (
            roster.shelf is None
            or self.place.shares[roster.type_index].apart.empty
            or self.shelf(roster.type_index, name) is roster.shelf
        )

    def listed(self, type_index: int) -> list[str]:
        """The names that wildcard subscribers of a type get."""
        return [name for each in self.rosters[type_index] for name in each.listed if self.has(each, name)]
