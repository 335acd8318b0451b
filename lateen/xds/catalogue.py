"""What there is to send: every resource that some stream wants, made once and shared by all streams that get it.

An `Entry` is one resource: the watch that keeps it up to date, its encoded form, and what clients said of it. Wildcard
subscribers are listed once per type in their audience, others in the entry they asked for, so a change costs as much
as there are streams that get it.

A version that a client refused and nobody accepted is not offered further: the entry serves the last version that
was accepted (`Entry.serving`), also to clients that connect later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog

from lateen.envoy.resource import ResourceType
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.xds.audience import Alias, Audience, Entry, Place, Reader, Roster, Shelf
from lateen.xds.pump import Pump
from lateen.xds.uses import Uses

log = structlog.get_logger()


class Catalogue:
    """Entries and audiences, kept up to date by the pump. For the loop's thread."""

    def __init__(
        self, pump: Pump, types: tuple[ResourceType, ...], tracked: Callable[[Ref], bool] = lambda _: True
    ) -> None:
        self._pump = pump
        self.types = types
        self.uses = Uses[Entry](tracked)
        self._audiences: dict[Place, Audience] = {}
        self._shelves: list[dict[Scope, Shelf]] = [{} for _ in types]
        self._rosters: dict[tuple[int, int, Scope], Roster] = {}
        self._twins: dict[tuple[int, str], dict[Scope, Entry]] = {}
        self._trusted: list[dict[Ref, Any]] = [{} for _ in types]

    # -- who wants what -------------------------------------------------------------------------------------

    def enter(self, place: Place) -> Audience:
        """The audience of a Place, with one stream more."""
        found = self._audiences.get(place)
        if found is None:
            n = len(self.types)
            shelves = [
                tuple(self._shelf(index, scope) for scope in each.levels) for index, each in enumerate(place.shares)
            ]
            found = Audience(place, self.types, shelves, [{} for _ in range(n)], [() for _ in range(n)])
            for each in dict.fromkeys(shelf for row in shelves for shelf in row):
                each.audiences += 1
            self._audiences[place] = found
        found.streams += 1
        return found

    def exit(self, audience: Audience) -> None:
        """The inverse of `enter`, after everything asked for has been given up."""
        audience.streams -= 1
        if audience.streams:
            return
        del self._audiences[audience.place]
        for index, row in enumerate(audience.shelves):
            for shelf in dict.fromkeys(row):
                shelf.audiences -= 1
                if not shelf.audiences:
                    del self._shelves[index][shelf.scope]

    def _shelf(self, type_index: int, scope: Scope) -> Shelf:
        shelves = self._shelves[type_index]
        found = shelves.get(scope)
        if found is None:
            found = shelves[scope] = Shelf(scope)
        return found

    def join(self, reader: Reader, audience: Audience, type_index: int) -> Iterator[None]:
        """Makes a stream a wildcard subscriber, one resource a step; it is told of all names in the end."""
        audience.wildcard[type_index][reader] = None
        if not audience.rosters[type_index]:
            audience.rosters[type_index] = tuple(self._enlist(audience, type_index))
        for roster in audience.rosters[type_index]:
            for name in roster.listed:
                if name in roster.listed and audience.has(roster, name):  # a revision may come between two steps
                    made = self._list(audience, roster, name)
                    if made:
                        yield
        reader.joined(type_index, audience.listed(type_index))

    def ask(self, reader: Reader, audience: Audience, type_index: int, name: str) -> None:
        """Makes a stream a subscriber of one name."""
        self._ask(reader, audience, type_index, name)
        reader.changed(type_index, name, None)

    def ask_all(self, reader: Reader, audience: Audience, type_index: int, names: Iterable[str]) -> Iterator[None]:
        """Makes a stream a subscriber of many names, one a step; it is told of all in the end."""
        asked: list[str] = []
        for name in names:
            asked.append(self._ask(reader, audience, type_index, name).name)
            yield
        reader.joined(type_index, asked)

    def _ask(self, reader: Reader, audience: Audience, type_index: int, name: str) -> Entry:
        entry = self._entry(audience.shelf(type_index, name), type_index, name)
        entry.askers[reader] = None
        self.uses.touch(entry.inputs)
        return entry

    def ask_by(self, reader: Reader, audience: Audience, type_index: int, asked: str) -> str:
        """Makes a stream one that is told which resource a name stands for; the name of that resource."""
        shelf = audience.shelf(type_index, asked)
        alias = shelf.aliases.get(asked)
        if alias is None:
            resolve = self.types[type_index].resolve
            assert resolve is not None
            made = alias = shelf.aliases[asked] = Alias(asked)
            alias.handle = self._pump.watch(lambda: self._rename(made, type_index), resolve, shelf.scope, asked)
            alias.name = alias.handle.value()
        alias.askers[reader] = None
        return alias.name

    def unask_by(self, reader: Reader, audience: Audience, type_index: int, asked: str) -> None:
        """The inverse of `ask_by`."""
        shelf = audience.shelf(type_index, asked)
        alias = shelf.aliases[asked]
        alias.askers.pop(reader, None)
        if not alias.askers:
            assert alias.handle is not None
            alias.handle.close()
            del shelf.aliases[asked]

    def _rename(self, alias: Alias, type_index: int) -> None:
        assert alias.handle is not None
        try:
            alias.name = alias.handle.value()
        except Exception:  # a bug: clients keep what they have
            log.exception("name query failed", type=self.types[type_index].short, asked=alias.asked)
            return
        for reader in list(alias.askers):
            reader.renamed(type_index, alias.asked, alias.name)

    def leave(self, reader: Reader, audience: Audience, type_index: int) -> None:
        """The inverse of `join`."""
        wildcard = audience.wildcard[type_index]
        wildcard.pop(reader, None)
        for name in audience.listed(type_index):
            if (entry := audience.find(type_index, name)) is not None:
                self.uses.touch(entry.inputs)
        if wildcard:
            return
        rosters, audience.rosters[type_index] = audience.rosters[type_index], ()
        for roster in rosters:
            del roster.audiences[audience]
            if not roster.audiences:
                del self._rosters[type_index, roster.level, roster.scope]
                assert roster.handle is not None
                roster.handle.close()
                for name in roster.listed:
                    shelf = roster.shelf or audience.shelf(type_index, name)
                    if (entry := shelf.entries.get(name)) is not None:
                        entry.rosters.pop(roster, None)
                        self._release(entry)

    def unask(self, reader: Reader, audience: Audience, type_index: int, name: str) -> None:
        """The inverse of `ask`."""
        if (entry := audience.find(type_index, name)) is not None:
            entry.askers.pop(reader, None)
            self.uses.touch(entry.inputs)
            self._release(entry)

    # -- lists ----------------------------------------------------------------------------------------------

    def _enlist(self, audience: Audience, type_index: int) -> Iterator[Roster]:
        kind, levels = self.types[type_index], audience.place.shares[type_index].levels
        shared = kind.names_at is not None
        for level, scope in enumerate(levels if shared else levels[:1]):
            if scope in levels[1:level]:
                continue
            roster = self._rosters.get((type_index, level, scope))
            if roster is None:
                shelf = audience.shelves[type_index][level] if shared else None
                made = roster = self._rosters[type_index, level, scope] = Roster(type_index, level, scope, shelf)

                def relist(roster: Roster = made) -> None:
                    self._relist(roster)

                if kind.names_at is not None:
                    roster.handle = self._pump.watch(relist, kind.names_at, scope, level)
                else:
                    roster.handle = self._pump.watch(relist, kind.names, scope)
                roster.listed = self._names(roster)
            roster.audiences[audience] = None
            yield roster

    def _list(self, audience: Audience, roster: Roster, name: str) -> bool:
        """Puts a resource on its shelf for a roster; True when it was not there yet."""
        shelf = roster.shelf or audience.shelf(roster.type_index, name)
        known = name in shelf.entries
        entry = self._entry(shelf, roster.type_index, name)
        entry.rosters[roster] = None
        self.uses.touch(entry.inputs)
        return not known

    def _names(self, roster: Roster) -> frozenset[str]:
        assert roster.handle is not None
        try:
            return frozenset(roster.handle.value())
        except Exception:
            log.exception("names query failed", type=self.types[roster.type_index].short, scope=roster.scope)
            return roster.listed

    def _relist(self, roster: Roster) -> None:
        index, before, after = roster.type_index, roster.listed, self._names(roster)
        roster.listed = after
        lost: dict[str, tuple[Ref, ...]] = {}
        for name in before ^ after:
            meant = [each for each in roster.audiences if each.has(roster, name)]
            if not meant:
                continue
            if name in after:
                self._list(meant[0], roster, name)
            elif (entry := (roster.shelf or meant[0].shelf(index, name)).entries.get(name)) is not None:
                lost[name] = tuple(entry.inputs)
                entry.rosters.pop(roster, None)
                self._release(entry)
            for audience in meant:
                for reader in audience.wildcard[index]:
                    reader.changed(index, name, lost.get(name, ()), listed=True)

    def _entry(self, shelf: Shelf, type_index: int, name: str) -> Entry:
        entry = shelf.entries.get(name)
        if entry is None:
            entry = shelf.entries[name] = Entry(type_index, shelf, name)
            self._twins.setdefault((type_index, name), {})[shelf.scope] = entry
            made = entry
            made.handle = self._pump.watch(
                lambda: self._refresh(made), self.types[type_index].resource, shelf.scope, name
            )
            self._read(made)
        return entry

    def _release(self, entry: Entry) -> None:
        if entry.rosters or entry.askers:
            return
        assert entry.handle is not None
        entry.handle.close()
        entry.handle = None
        self.uses.forget(entry, entry.inputs)
        entry.shelf.entries.pop(entry.name, None)
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
        before, frozen, origins = _offered(entry), entry.frozen, tuple(entry.inputs)
        self._read(entry)
        if _offered(entry) != before or entry.failed or frozen != entry.frozen:
            self._announce(entry, origins)

    def _announce(self, entry: Entry, before: tuple[Ref, ...] = ()) -> None:
        for reader in self.readers(entry):
            reader.changed(entry.type_index, entry.name, before)

    def readers(self, entry: Entry) -> list[Reader]:
        """The streams that get an entry."""
        found = list(entry.askers)
        for roster in entry.rosters:
            for audience in roster.audiences:
                if audience.has(roster, entry.name):
                    found += audience.wildcard[entry.type_index]
        return found

    def users(self, ref: Ref) -> set[Reader]:
        """The streams that get a resource made from that object."""
        found: set[Reader] = set()
        whole: set[tuple[Roster, Audience]] = set()  # wildcard subscribers are the same for all resources of a roster
        for entry in self.uses.of(ref):
            found.update(entry.askers)
            for roster in entry.rosters:
                for audience in roster.audiences:
                    if (roster, audience) not in whole and audience.has(roster, entry.name):
                        whole.add((roster, audience))
                        found.update(audience.wildcard[entry.type_index])
        return found

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
        return new or self.changed(entry)

    def changed(self, entry: Entry) -> dict[Ref, Any]:
        """The objects the entry is made from that are not what they were when this very resource was last accepted,
        with what they were then; none when it never was."""
        good = entry.good_inputs
        differ = {ref: good.get(ref) for ref, value in entry.inputs.items() if good.get(ref) != value}
        return differ if entry.good is not None else {}


def _offered(entry: Entry) -> tuple[object, ...]:
    """The version clients get of an entry, and what must be there with it."""
    serving = entry.serving
    return (entry.version, serving.clusters, serving.together) if serving is not None else (entry.version,)
