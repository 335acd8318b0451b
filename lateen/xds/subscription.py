"""What one client has of one resource type, as far as the server can know it. A value with rules, no I/O.

The same object serves delta and state-of-the-world streams. It answers one question, `plan`: which names differ
between what the client should have and what it has. At most one response is in flight; changes meanwhile only
mark names dirty, so a slow client gets the newest state and never a queue of old ones.

A refused response says little about which resource was at fault: Envoy rejects a whole message when one resource
does not validate, and its words may hold no name. So the names of a refused response are offered again in smaller
groups (those named in the error each by itself, otherwise halves) until each is accepted or refused alone. A
version refused alone is not offered again to this client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

WILDCARD: Final = "*"
UNKNOWN: Final = ""
"""The version of a resource that could not be made: nothing is said about it."""

Need = tuple[int, str]
"""Type and name of a resource that another one has to be there for."""
VersionOf = Callable[[str], str | None]
"""Version of a resource for this client by name; None when there is none, UNKNOWN when that is not known."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One response in flight: names sent with their versions, names removed, the revision it brings, and when it was
    sent (seconds of the loop's clock)."""

    nonce: str
    revision: int
    sent_at: float
    sent: Mapping[str, str]
    removed: tuple[str, ...] = ()
    trial: bool = False


@dataclass(slots=True)
class Subscription:
    """One client, one type.

    `asked` are names of resources; `aliases` the other names by which the client asked for one, `needed` what it gets
    because another resource needs it, `withdrawn` what it got in one of these ways and is to have no longer.
    """

    wildcard: bool = False
    asked: set[str] = field(default_factory=set[str])
    aliases: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    needed: dict[str, set[Need]] = field(default_factory=dict[str, set[Need]])
    withdrawn: set[str] = field(default_factory=set[str])
    held: dict[str, str] = field(default_factory=dict[str, str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    dirty: set[str] = field(default_factory=set[str])
    ended: set[str] = field(default_factory=set[str])
    forced: set[str] = field(default_factory=set[str])
    groups: deque[frozenset[str]] = field(default_factory=deque[frozenset[str]])
    due: bool = False
    in_flight: Offer | None = None
    answered: bool = False
    nonce: str = ""
    acked: Offer | None = None
    errors: dict[str, str] = field(default_factory=dict[str, str])
    last_error: str = ""

    # -- what the client wants ------------------------------------------------------------------------------

    def subscribe(self, names: Iterable[str]) -> None:
        """Adds names. A name asked for is answered even if the client has it: it may have lost it."""
        for name in names:
            if name == WILDCARD:
                self.wildcard = True
                self.due = not self.held or self.answered
                continue
            self.ask((name,))

    def resume(self, versions: Mapping[str, str]) -> None:
        """What the client brings from an earlier stream; before anything else is said about the type."""
        self.held.update(versions)
        self.dirty.update(versions)

    def ask(self, names: Collection[str]) -> None:
        """Adds names of resources. A name asked for is answered even if the client has it: it may have lost it."""
        self.forced.update(names if self.answered or not self.held else (n for n in names if n not in self.held))
        self.asked.update(names)
        self.dirty.update(names)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Takes names away. The client drops them, so a wildcard that still covers them sends them again."""
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
                for each in [each for each in self.held if each not in self.asked]:
                    self._forget(each)
                self.dirty &= self.asked
                continue
            self.asked.discard(name)
            self._forget(name)
            if self.wildcard:
                self.forced.add(name)
                self.dirty.add(name)

    def _forget(self, name: str) -> None:
        self.held.pop(name, None)
        self.refused.pop(name, None)
        self.errors.pop(name, None)
        self.dirty.discard(name)
        self.forced.discard(name)

    def wants(self, name: str) -> bool:
        """True when the client is to get this name if it exists."""
        return self.wildcard or self.named(name)

    def named(self, name: str) -> bool:
        """True when the client asked for this very name, or gets it along with another."""
        return name in self.asked or name in self.needed

    def hold(self, name: str) -> None:
        """The client gets this name in some way."""
        self.withdrawn.discard(name)
        self.dirty.add(name)

    def withdraw(self, name: str) -> None:
        """The client is to lose this name, which it never asked for by itself."""
        self.withdrawn.add(name)
        self.dirty.add(name)

    def withdraw_unnamed(self) -> None:
        """The client is to lose what it holds of names that it neither asked for nor needs."""
        for name in self.held:
            if not self.named(name):
                self.withdraw(name)

    # -- what it should get ---------------------------------------------------------------------------------

    def force(self, name: str) -> None:
        """Sends this name again although the client has it (a cluster that warms anew needs its endpoints)."""
        self.forced.add(name)
        self.dirty.add(name)

    def plan(self, version_of: VersionOf, waits: Callable[[str], bool] | None = None) -> tuple[list[str], list[str]]:
        """Names to send and names to remove now; settled names stop being dirty. Nothing is removed while a name
        `waits` for something else to be sent first: it may be what takes the place of the other."""
        while self.groups:
            plan = self._plan(self.groups[0] & self.dirty, version_of)
            if any(plan):
                return plan
            self.groups.popleft()
        ready = set(self.dirty) if waits is None else {name for name in self.dirty if not waits(name)}
        late = len(ready) < len(self.dirty)
        sends, removes = self._plan(ready, version_of)
        return sends, [] if late else removes

    def _plan(self, names: Collection[str], version_of: VersionOf) -> tuple[list[str], list[str]]:
        sends: list[str] = []
        removes: list[str] = []
        for name in names:
            version = version_of(name) if self.wants(name) else None if name in self.withdrawn else UNKNOWN
            if version is None and (name in self.held or name in self.forced):
                removes.append(name)
            elif version and (name in self.forced or version not in (self.held.get(name), self.refused.get(name))):
                sends.append(name)
            else:
                self._settle(name)
        return sorted(sends), sorted(removes)

    def _settle(self, name: str) -> None:
        self.dirty.discard(name)
        self.forced.discard(name)
        self.withdrawn.discard(name)
        self.ended.add(name)

    def take_ended(self) -> set[str]:
        """The names that have ceased to wait for anything since this was last asked."""
        ended, self.ended = self.ended, set()
        return ended

    def offer(self, offer: Offer) -> None:
        """Notes a response as sent."""
        self.in_flight = offer
        self.nonce = offer.nonce
        self.due = False
        for name in (*offer.sent, *offer.removed):
            self.dirty.discard(name)
            self.forced.discard(name)
            self.withdrawn.discard(name)

    def keep(self, names: Iterable[str]) -> None:
        """Leaves these with the client for now."""
        for name in names:
            self._settle(name)

    def gone(self, names: Iterable[str]) -> None:
        """Notes names as absent at the client without a word (sotw has none for a single name)."""
        for name in names:
            self.held.pop(name, None)
            self._settle(name)

    def alone_refused(self, offer: Offer) -> str | None:
        """The name that a refused offer proves to be at fault: the only one in it."""
        for name, version in offer.sent.items():
            if self.refused.get(name) == version:
                return name
        return None

    def forgive(self, open_version_of: Callable[[str], str | None]) -> None:
        """Forgets the refusals of names that the client is to have as it has them: what it refused is offered (and
        refused) anew should it come again. `open_version_of` is UNKNOWN while a refusal is being judged."""
        for name in [name for name in self.refused if open_version_of(name) == self.held.get(name)]:
            self.refused.pop(name)
            self.errors.pop(name, None)
            self.ended.add(name)

    @property
    def idle(self) -> bool:
        """True when there is nothing to decide about: nothing waits and nothing is held against the client."""
        return not (self.dirty or self.due or self.groups or self.refused or self.ended)

    @property
    def settled(self) -> bool:
        """True when nothing is in flight and nothing waits."""
        return self.in_flight is None and not self.dirty and not self.due

    # -- what it says ---------------------------------------------------------------------------------------

    def accept(self, nonce: str) -> Offer | None:
        """The client took the response; None when it is not the one in flight."""
        offer = self._landed(nonce)
        if offer is None:
            return None
        if self.wildcard:
            self.held.update(offer.sent)
        else:
            self.held.update(each for each in offer.sent.items() if self.named(each[0]) or each[0] in self.withdrawn)
        if self.refused or self.errors:
            for name in offer.sent:
                self.refused.pop(name, None)
                self.errors.pop(name, None)
        for name in offer.removed:
            self.held.pop(name, None)
            self.refused.pop(name, None)
            self.errors.pop(name, None)
        if not offer.trial:
            self.acked = offer
        return offer

    def refuse(self, nonce: str, error: str) -> Offer | None:
        """The client refused the response; None when it is not the one in flight.

        With one resource in it that one is at fault and its version is not offered again; with several they are
        queued in smaller groups. A refused removal counts as done: there is nothing else to say.
        """
        offer = self._landed(nonce)
        if offer is None or offer.trial:
            return offer
        self.last_error = error
        self.ended.update(offer.sent, offer.removed)
        if not offer.sent:
            for name in offer.removed:
                self.held.pop(name, None)
            return offer
        self.dirty.update(offer.removed)
        if len(offer.sent) == 1 and not offer.removed:
            ((name, version),) = offer.sent.items()
            self.refused[name] = version
            self.errors[name] = error
            return offer
        self.dirty.update(offer.sent)
        self.forced.update(offer.sent)
        self.groups.extendleft(reversed(_smaller(sorted(offer.sent), error)))
        return offer

    def _landed(self, nonce: str) -> Offer | None:
        offer = self.in_flight
        if offer is None or offer.nonce != nonce:
            return None
        self.in_flight = None
        self.answered = True
        return offer


def _smaller(names: list[str], error: str) -> list[frozenset[str]]:
    named = [name for name in names if name in error]
    if named and len(named) < len(names):
        return [frozenset(names) - frozenset(named), *(frozenset([name]) for name in named)]
    middle = len(names) // 2
    return [half for half in (frozenset(names[:middle]), frozenset(names[middle:])) if half]
