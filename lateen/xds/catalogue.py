"""What there is to send: every resource that some stream wants, made once per Scope and shared by its streams.

An `Entry` is one resource of one Scope: the watch that keeps it up to date, its encoded form, and what clients said
of it. An `Audience` is all streams of one Scope; wildcard subscribers are listed there once per type, others in
the entry they asked for, so a change costs as much as there are streams that get it.

A version that a client refused and nobody accepted is not offered further: the entry serves the last version that
was accepted (`Entry.serving`), also to clients that connect later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from lateen.envoy.resource import Resource, ResourceType
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.xds.pump import Handle, Pump
from lateen.xds.subscription import UNKNOWN
from lateen.xds.uses import Uses
from lateen.xds.wire import delta_chunk, sotw_chunk

log = structlog.get_logger()


class Reader(Protocol):
    """A stream, as the catalogue knows it."""

    def changed(self, type_index: int, name: str, before: tuple[Ref, ...] | None, listed: bool = False) -> None:
        """That resource may differ from what the client has, which was made from `before`; None: it has none of this
        audience. `listed`: the name came or went."""
        ...

    def renamed(self, type_index: int, asked: str, name: str) -> None:
        """Another resource than before answers to a name that the client asked for."""
        ...


@dataclass(eq=False, slots=True)
class Entry:
    """One resource of one Scope. `good` is the newest version a client accepted; `refusal` what one said of `current`
    before anybody accepted it, `stand_in` what clients get then that never had a good one."""

    type_index: int
    scope: Scope
    name: str
    current: Resource | None = None
    failed: bool = False
    good: Resource | None = None
    stand_in: Resource | None = None
    refusal: str = ""
    inputs: Mapping[Ref, Any] = field(default_factory=dict[Ref, Any])
    good_inputs: Mapping[Ref, Any] = field(default_factory=dict[Ref, Any])
    askers: dict[Reader, None] = field(default_factory=dict["Reader", None])
    wildcard: bool = False
    handle: Handle[Resource | None] | None = None
    _chunk: tuple[Resource, bool, bytes] | None = None

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

    def chunk(self, type_url: str, resource: Resource, delta: bool) -> bytes:
        """The resource encoded for a response; remembered for the next stream."""
        kept = self._chunk
        if kept is None or kept[0] is not resource or kept[1] is not delta:
            encode = delta_chunk if delta else sotw_chunk
            kept = self._chunk = (resource, delta, encode(type_url, resource))
        return kept[2]


@dataclass(eq=False, slots=True)
class Alias:
    """A name that clients of one Scope asked for, and the name of the resource behind it."""

    name: str
    handle: Handle[str]
    askers: dict[Reader, None] = field(default_factory=dict["Reader", None])


@dataclass(eq=False, slots=True)
class Audience:
    """The streams of one Scope, their resources by type, and who has a wildcard on which type."""

    scope: Scope
    entries: list[dict[str, Entry]]
    wildcard: list[dict[Reader, None]]
    names: list[Handle[tuple[str, ...]] | None]
    listed: list[frozenset[str]]
    aliases: dict[tuple[int, str], Alias] = field(default_factory=dict[tuple[int, str], Alias])
    streams: int = 0


class Catalogue:
    """Entries and audiences, kept up to date by the pump. For the loop's thread."""

    def __init__(
        self, pump: Pump, types: tuple[ResourceType, ...], tracked: Callable[[Ref], bool] = lambda _: True
    ) -> None:
        self._pump = pump
        self.types = types
        self.uses = Uses[Entry](tracked)
        self._audiences: dict[Scope, Audience] = {}
        self._twins: dict[tuple[int, str], dict[Scope, Entry]] = {}
        self._trusted: list[dict[Ref, Any]] = [{} for _ in types]

    # -- who wants what -------------------------------------------------------------------------------------

    def enter(self, scope: Scope) -> Audience:
        """The audience of a Scope, with one stream more."""
        found = self._audiences.get(scope)
        if found is None:
            n = len(self.types)
            found = Audience(
                scope, [{} for _ in range(n)], [{} for _ in range(n)], [None] * n, [frozenset[str]() for _ in range(n)]
            )
            self._audiences[scope] = found
        found.streams += 1
        return found

    def join(self, reader: Reader, audience: Audience, type_index: int) -> Iterator[None]:
        """Makes a stream a wildcard subscriber, one resource a step; every name is reported to it as changed."""
        audience.wildcard[type_index][reader] = None
        if audience.names[type_index] is None:
            audience.names[type_index] = self._pump.watch(
                lambda: self._relist(audience, type_index), self.types[type_index].names, audience.scope
            )
            audience.listed[type_index] = self._names(audience, type_index)
        for name in audience.listed[type_index]:
            if name in audience.listed[type_index]:  # a revision may come between two steps
                entry = self._entry(audience, type_index, name)
                entry.wildcard = True
                self.uses.touch(entry.inputs)
                reader.changed(type_index, name, None)
            yield

    def ask(self, reader: Reader, audience: Audience, type_index: int, name: str) -> None:
        """Makes a stream a subscriber of one name."""
        entry = self._entry(audience, type_index, name)
        entry.askers[reader] = None
        self.uses.touch(entry.inputs)
        reader.changed(type_index, name, None)

    def ask_by(self, reader: Reader, audience: Audience, type_index: int, asked: str) -> str:
        """Makes a stream one that is told which resource a name stands for; the name of that resource."""
        alias = audience.aliases.get((type_index, asked))
        if alias is None:
            resolve = self.types[type_index].resolve
            assert resolve is not None
            handle = self._pump.watch(lambda: self._rename(audience, type_index, asked), resolve, audience.scope, asked)
            alias = audience.aliases[type_index, asked] = Alias(handle.value(), handle)
        alias.askers[reader] = None
        return alias.name

    def unask_by(self, reader: Reader, audience: Audience, type_index: int, asked: str) -> None:
        """The inverse of `ask_by`."""
        alias = audience.aliases[type_index, asked]
        alias.askers.pop(reader, None)
        if not alias.askers:
            alias.handle.close()
            del audience.aliases[type_index, asked]

    def _rename(self, audience: Audience, type_index: int, asked: str) -> None:
        alias = audience.aliases[type_index, asked]
        try:
            alias.name = alias.handle.value()
        except Exception:  # a bug: clients keep what they have
            log.exception("name query failed", type=self.types[type_index].short, asked=asked)
            return
        for reader in list(alias.askers):
            reader.renamed(type_index, asked, alias.name)

    def leave(self, reader: Reader, audience: Audience, type_index: int) -> None:
        """The inverse of `join`."""
        wildcard = audience.wildcard[type_index]
        wildcard.pop(reader, None)
        for name in audience.listed[type_index]:
            if (entry := audience.entries[type_index].get(name)) is not None:
                self.uses.touch(entry.inputs)
        if not wildcard and (names := audience.names[type_index]) is not None:
            names.close()
            audience.names[type_index] = None
            audience.listed[type_index] = frozenset()
            for entry in list(audience.entries[type_index].values()):
                entry.wildcard = False
                self._release(audience, entry)

    def unask(self, reader: Reader, audience: Audience, type_index: int, name: str) -> None:
        """The inverse of `ask`."""
        if (entry := audience.entries[type_index].get(name)) is not None:
            entry.askers.pop(reader, None)
            self.uses.touch(entry.inputs)
            self._release(audience, entry)

    def exit(self, audience: Audience) -> None:
        """The inverse of `enter`, after everything asked for has been given up."""
        audience.streams -= 1
        if audience.streams == 0:
            del self._audiences[audience.scope]

    def _names(self, audience: Audience, type_index: int) -> frozenset[str]:
        handle = audience.names[type_index]
        assert handle is not None
        try:
            return frozenset(handle.value())
        except Exception:
            log.exception("names query failed", type=self.types[type_index].short, scope=audience.scope)
            return audience.listed[type_index]

    def _relist(self, audience: Audience, type_index: int) -> None:
        before, after = audience.listed[type_index], self._names(audience, type_index)
        audience.listed[type_index] = after
        entries = audience.entries[type_index]
        for name in after - before:
            self._entry(audience, type_index, name).wildcard = True
        lost: dict[str, tuple[Ref, ...]] = {}
        for name in before - after:
            entry = entries[name]
            entry.wildcard = False
            lost[name] = tuple(entry.inputs)
            self._release(audience, entry)
        for name in before ^ after:
            for reader in audience.wildcard[type_index]:
                reader.changed(type_index, name, lost.get(name, ()), listed=True)

    def _entry(self, audience: Audience, type_index: int, name: str) -> Entry:
        entry = audience.entries[type_index].get(name)
        if entry is None:
            entry = audience.entries[type_index][name] = Entry(type_index, audience.scope, name)
            self._twins.setdefault((type_index, name), {})[audience.scope] = entry
            made = entry
            made.handle = self._pump.watch(
                lambda: self._refresh(made), self.types[type_index].resource, audience.scope, name
            )
            self._read(made)
        return entry

    def _release(self, audience: Audience, entry: Entry) -> None:
        if entry.wildcard or entry.askers:
            return
        assert entry.handle is not None
        entry.handle.close()
        entry.handle = None
        self.uses.forget(entry, entry.inputs)
        audience.entries[entry.type_index].pop(entry.name, None)
        twins = self._twins[entry.type_index, entry.name]
        twins.pop(entry.scope, None)
        if not twins:
            del self._twins[entry.type_index, entry.name]

    # -- what it is -----------------------------------------------------------------------------------------

    def _read(self, entry: Entry) -> None:
        assert entry.handle is not None
        before = entry.current
        try:
            entry.current = entry.handle.value()
            entry.failed = False
        except Exception:
            entry.failed = True  # a bug: clients keep what they have
            log.exception("resource query failed", type=self.types[entry.type_index].short, name=entry.name)
        current = entry.current
        if current is None or before is None or current.version != before.version:
            entry.refusal = ""
        graph, inputs = self._pump.graph, entry.inputs
        entry.inputs = {} if current is None else {ref: graph.input(ref) for ref in current.origins}
        self.uses.put(entry, inputs, entry.inputs)
        if current is not None and entry.good is not None and entry.good.version == current.version:
            self.accepted(entry, current.version)

    def _refresh(self, entry: Entry) -> None:
        before, frozen, origins = _offered(entry), self.frozen(entry), tuple(entry.inputs)
        self._read(entry)
        if _offered(entry) != before or entry.failed or frozen != self.frozen(entry):
            self._announce(entry, origins)

    def _announce(self, entry: Entry, before: tuple[Ref, ...] = ()) -> None:
        for reader in self.readers(entry):
            reader.changed(entry.type_index, entry.name, before)

    def readers(self, entry: Entry) -> list[Reader]:
        """The streams that get an entry."""
        found = list(entry.askers)
        if entry.wildcard:
            found += self._audiences[entry.scope].wildcard[entry.type_index]
        return found

    def users(self, ref: Ref) -> set[Reader]:
        """The streams that get a resource made from that object."""
        found: set[Reader] = set()
        whole: set[tuple[int, Scope]] = set()  # wildcard subscribers are the same for all resources of a type
        for entry in self.uses.of(ref):
            found.update(entry.askers)
            if entry.wildcard and (entry.type_index, entry.scope) not in whole:
                whole.add((entry.type_index, entry.scope))
                found.update(self._audiences[entry.scope].wildcard[entry.type_index])
        return found

    def frozen(self, entry: Entry) -> bool:
        """True when clients do not get what the entry is now: it was refused, or could not be made."""
        return bool(entry.refusal) or entry.failed

    # -- what clients say of it -----------------------------------------------------------------------------

    def accepted(self, entry: Entry, version: str) -> None:
        """A client runs this version: what it was made from can be trusted."""
        current = entry.current
        if current is None or current.version != version or entry.good is current:
            return
        entry.good, entry.good_inputs = current, entry.inputs
        self._trusted[entry.type_index].update(entry.inputs)
        if entry.refusal:
            entry.refusal = ""
            self._announce(entry)

    def accepted_elsewhere(self, entry: Entry) -> bool:
        """True when a client of any Scope runs the entry's current version."""
        current = entry.current
        if current is None:
            return False
        twins = self._twins.get((entry.type_index, entry.name), {}).values()
        return any(each.good is not None and each.good.version == current.version for each in twins)

    def pardoned(self, entry: Entry) -> bool:
        """True when a client of another Scope took meanwhile what is held back here: then it is given out after all."""
        if not self.accepted_elsewhere(entry):
            return False
        entry.refusal = ""
        self._announce(entry)
        return True

    def refused(self, entry: Entry, version: str, error: str) -> bool:
        """A client refused this version alone. True when it is new and nobody has accepted it: then it is held back
        from everybody. False when others run it (the client is the odd one) or it is out of date."""
        if (
            entry.handle is None
            or entry.current is None
            or entry.current.version != version
            or self.accepted_elsewhere(entry)
        ):
            return False
        if not entry.refusal:
            entry.refusal = error
            instead = self.types[entry.type_index].instead
            entry.stand_in = instead(entry.current) if instead is not None else None
            self._announce(entry)
        return True

    def suspects(self, entry: Entry) -> dict[Ref, Any]:
        """The objects the entry is made from that no accepted resource of its type was made from as they are now,
        with what they were when one was last accepted (None: never). When there are none: those that changed since
        this very resource was accepted."""
        trusted = self._trusted[entry.type_index]
        new = {ref: trusted.get(ref) for ref, value in entry.inputs.items() if trusted.get(ref) != value}
        if new or entry.good is None:
            return new
        good = entry.good_inputs
        return {ref: good.get(ref) for ref, value in entry.inputs.items() if good.get(ref) != value}


def _offered(entry: Entry) -> tuple[object, ...]:
    """The version clients get of an entry, and what must be there with it."""
    serving = entry.serving
    return (entry.version, serving.clusters, serving.together) if serving is not None else (entry.version,)
