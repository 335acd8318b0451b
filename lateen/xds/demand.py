"""What one client gets without having asked for it by its own name: discovery on demand.

A client that discovers on demand asks for virtual hosts by what its workload calls them (`80/reviews:9080`); the
resource behind such a name has one name of its own, and gets to the client under both. Clusters that a virtual host,
a listener or a table sends to are there before it, and whatever a wildcard hides from the client's questions along
with it. Envoy would ask for a missing cluster too, but never for that of a mirror, and later.

A workload that calls thousands of names nobody knows would fill its proxy with one virtual host for each. Past
`UNKNOWN_MAX` of them the client is given everything at once instead: then an unknown name costs nothing.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/other_features/vhds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lateen.xds.audience import Audience, Reader
from lateen.xds.catalogue import Catalogue
from lateen.xds.learned import Memory
from lateen.xds.subscription import Need, Subscription

UNKNOWN_MAX: Final = 256
"""Unknown names of one client."""
LEARNED: Final = ""
"""What stands in a client's needs for its workload's earlier calls; no resource has this name."""


class Demand:
    """Names and needs of one client. `audience` is that of the client now; `exhausted` is called when it has asked for
    too many unknown names."""

    def __init__(
        self,
        reader: Reader,
        catalogue: Catalogue,
        subscriptions: dict[int, Subscription],
        audience: Callable[[], Audience],
        clusters: int | None,
        exhausted: Callable[[], None],
        memory: Memory | None = None,
    ) -> None:
        self._reader = reader
        self._catalogue = catalogue
        self._subscriptions = subscriptions
        self._audience = audience
        self._clusters = clusters
        self._exhausted = exhausted
        self._memory = memory
        self._behind: dict[Need, str] = {}
        self._needs: dict[Need, frozenset[Need]] = {}
        self._unknown: set[Need] = set()

    def names(self, index: int) -> bool:
        """True for a type that clients ask for by other names."""
        return self._catalogue.types[index].resolve is not None

    def ask(self, index: int, asked: str) -> None:
        """The client asks by a name. It is answered even if the client has what is behind it: it may have lost it."""
        subscription = self._subscriptions[index]
        name = self._behind.get((index, asked))
        if name is None:
            name = self._catalogue.ask_by(self._reader, self._audience(), index, asked)
            self._put(index, asked, name)
        if name not in subscription.held or subscription.answered:
            subscription.force(name)

    def unask(self, index: int, asked: str) -> None:
        """The client has given that name up."""
        if (index, asked) in self._behind:
            self._catalogue.unask_by(self._reader, self._audience(), index, asked)
            self._take(index, asked)

    def renamed(self, index: int, asked: str, name: str) -> None:
        """Another resource answers to a name now."""
        if self._behind.get((index, asked), name) != name:
            self._take(index, asked)
            self._put(index, asked, name)
            self._subscriptions[index].force(name)

    def warm(self, index: int) -> Iterator[None]:
        """Gives the client what others of its workload asked for of a type before it asks itself, one a step."""
        if self._memory is None or not self._audience().place.scope.on_demand or not self._by_ask(index):
            return
        known = frozenset[Need]()
        for name in self._memory.names(index):
            known |= {(index, name)}
            self._set((index, LEARNED), known)
            yield

    def _by_ask(self, index: int) -> bool:
        """True for types whose names say what the workload calls."""
        return self.names(index) or index == self._clusters

    def leave(self) -> list[Need]:
        """Gives up everything; what to `ask` for again in another audience."""
        asked = list(self._behind)
        for index, name in asked:
            self.unask(index, name)
        for need in list(self._needs):
            self._set(need, frozenset())
        return asked

    def renew(self, index: int, name: str) -> None:
        """A resource has changed, come or gone: what it needs may be something else."""
        audience = self._audience()
        if not audience.place.scope.on_demand:
            return
        entry, subscription = audience.find(index, name), self._subscriptions[index]
        made = entry.serving if entry is not None and (entry.wildcard or subscription.named(name)) else None
        needs: set[Need] = set()
        if made is not None and self._clusters in self._subscriptions:
            needs.update((self._clusters, each) for each in made.clusters)
        if made is not None:
            needs.update((index, each) for each in made.together)
        self._set((index, name), frozenset(needs))
        asked = made is not None and name in subscription.asked
        if self._memory is not None and made is not None and asked and made.origins and self._by_ask(index):
            self._memory.note(index, name)
        if made is not None and asked and not made.origins:
            self._unknown.add((index, name))
            if len(self._unknown) > UNKNOWN_MAX:
                self._exhausted()
        else:
            self._unknown.discard((index, name))

    def _set(self, need: Need, after: frozenset[Need]) -> None:
        before = self._needs.pop(need, frozenset[Need]())
        if after:
            self._needs[need] = after
        for index, name in after - before:
            subscription = self._subscriptions[index]
            subscription.needed.setdefault(name, set()).add(need)
            self._hold(index, name)
        for index, name in before - after:
            needers = self._subscriptions[index].needed[name]
            needers.discard(need)
            if not needers:
                del self._subscriptions[index].needed[name]
                self._drop(index, name)

    def _put(self, index: int, asked: str, name: str) -> None:
        subscription = self._subscriptions[index]
        self._behind[index, asked] = name
        subscription.asked.add(name)
        subscription.aliases.setdefault(name, set()).add(asked)
        self._hold(index, name)

    def _take(self, index: int, asked: str) -> None:
        subscription = self._subscriptions[index]
        name = self._behind.pop((index, asked))
        aliases = subscription.aliases[name]
        aliases.discard(asked)
        if not aliases:
            del subscription.aliases[name]
            subscription.asked.discard(name)
            self._drop(index, name)

    def _hold(self, index: int, name: str) -> None:
        self._subscriptions[index].hold(name)
        self._catalogue.ask(self._reader, self._audience(), index, name)

    def _drop(self, index: int, name: str) -> None:
        subscription = self._subscriptions[index]
        if not subscription.named(name):
            self._catalogue.unask(self._reader, self._audience(), index, name)
            subscription.withdraw(name)
            self.renew(index, name)


def in_steps(asks: list[Need], demand: Demand) -> Iterator[None]:
    """Asks for names, one a step."""
    for index, asked in asks:
        demand.ask(index, asked)
        yield
