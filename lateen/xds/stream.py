"""One client: what it says, what it subscribed to, and what has changed for it.

Everything a client says is worked off in the order it came, in slices of the pump, so a client that subscribes to
10,000 names at once delays nobody; an answer that only says that a response was taken is dealt with on the spot. What
goes out is decided by the `Sender`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from lateen.envoy.resource import Resource
from lateen.intent.scope import Proxy
from lateen.lib.ids import Ref
from lateen.xds.audience import Audience, Entry, Place
from lateen.xds.catalogue import Catalogue
from lateen.xds.demand import Demand, in_steps
from lateen.xds.lags import NOTHING, Lag, Lags
from lateen.xds.learned import Memory
from lateen.xds.pace import Pace
from lateen.xds.pump import Handle, Pump
from lateen.xds.request import Protocol, Request
from lateen.xds.responses import Responses
from lateen.xds.sender import Out, Sender, Trial
from lateen.xds.subscription import WILDCARD, Offer, Subscription
from lateen.xds.wire import brief

OUTBOX_MAX: Final = 64
"""Responses that wait for one client to read. There is one of a type at a time: only a client that answers for what it
has not read comes here."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Events:
    """What a stream tells its server."""

    ready: Callable[[Stream], None]
    refused: Callable[[Stream, Entry, str, str], None]
    sent: Callable[[str], None]
    answered: Callable[[str, bool], None]
    overrun: Callable[[Stream], None]


class Stream:
    """One client's stream. For the loop's thread; `outbox` is what the transport writes, and what it calls then.

    `place` watches where the proxy stands; its second argument says that the proxy gets everything whatever it can.
    """

    def __init__(
        self,
        proxy: Proxy,
        node_id: str,
        protocol: Protocol,
        peer: str,
        catalogue: Catalogue,
        responses: Responses,
        pump: Pump,
        place: Callable[[Callable[[], None], bool], Handle[Place]],
        events: Events,
        pace: Pace,
        memory: Memory | None = None,
    ) -> None:
        self.proxy = proxy
        self.node_id = node_id
        self.protocol: Protocol = protocol
        self.peer = peer
        self.subscriptions: dict[int, Subscription] = {}
        self.lags = Lags()
        self.outbox: asyncio.Queue[tuple[bytes, Callable[[], None]]] = asyncio.Queue(OUTBOX_MAX)
        self._catalogue = catalogue
        self._responses = responses
        self._pump = pump
        self._events = events
        self._pace = pace
        self._types = catalogue.types
        self._index = {each.type_url: index for index, each in enumerate(self._types)}
        out = Out(self._write, lambda: events.ready(self), self._sent)
        self._sender = Sender(self, protocol, catalogue, responses, pump, self.subscriptions, self.lags, out)
        self._watch_place = place
        self._place = place(self._rescope, False)
        self._sated = False  # it gets everything, whatever it could do
        self._audience = catalogue.enter(self._place.value())
        self._demand = Demand(
            self,
            catalogue,
            self.subscriptions,
            lambda: self._audience,
            self._sender.clusters,
            self._give_everything,
            memory,
        )
        self._work: deque[Callable[[], Iterator[None]]] = deque()
        self._working = False
        self._closed = False
        self._watermark = 0

    # -- what the client says -------------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """Takes a request in."""
        index = self._index.get(request.type_url)
        if index is None:
            if not request.nonce:
                delta = self.protocol == "delta"
                self._write(self._responses.nothing(request.type_url, request.subscribe, delta=delta))
            return
        known = self.subscriptions.get(index)
        if known is not None and request.names is None and request.only_accepts and not self._working:
            self._answered(index, known, request)
            if not self._rested() or self._sender.trials:
                self._events.ready(self)
            return
        self._do(lambda: self._handle(index, request))

    def close(self) -> None:
        """The client is gone."""
        self._closed = True
        self._pump.journal.gone(self)
        for trial in self._sender.trials.values():
            trial.answer.cancel()
        self._do(self._detach)

    def _write(self, data: bytes) -> None:
        if self.outbox.full():
            self._events.overrun(self)
        else:
            self.outbox.put_nowait((data, self._pace.made(len(data))))

    def _do(self, work: Callable[[], Iterator[None]]) -> None:
        self._work.append(work)
        if not self._working:
            self._working = True
            self._pump.job(self._run())

    def _run(self) -> Iterator[None]:
        while self._work:
            yield from self._work.popleft()()
        self._working = False
        self._rested()
        self._events.ready(self)

    def _rested(self) -> bool:
        """True when the client has everything, which the journal is told."""
        if not self.settled:
            return False
        self._pump.journal.settled(self)
        return True

    def _sent(self, audience: Audience, short: str, names: int, size: int, took_s: float, changed: bool) -> None:
        self._events.sent(short)
        self._pump.journal.sent(self, id(audience), short, names, size, took_s, changed)

    def _handle(self, index: int, request: Request) -> Iterator[None]:
        known = self.subscriptions.get(index)
        subscription = known or Subscription()
        self.subscriptions[index] = subscription
        if request.nonce and known is not None:
            if self.protocol == "sotw" and request.nonce != subscription.nonce:
                return  # an answer to an older response; the answer to the newest one comes
            self._answered(index, subscription, request)
        subscribe, unsubscribe = request.subscribe, request.unsubscribe
        if request.names is not None:
            wanted = set(request.names)
            if not wanted and (known is None or known.wildcard):
                wanted = {"*"}
            have = {*subscription.asked, "*"} if subscription.wildcard else set(subscription.asked)
            subscribe, unsubscribe = tuple(sorted(wanted - have)), tuple(sorted(have - wanted))
        elif known is None and not subscribe:
            subscribe = ("*",)
        if known is None and request.versions:
            subscription.resume(request.versions)
            if self._demand.names(index):
                subscription.withdrawn.update(request.versions)
            self._sender.reconnected()
        yield from self._unsubscribe(index, subscription, unsubscribe)
        yield from self._subscribe(index, subscription, subscribe)
        if known is None:
            yield from self._demand.warm(index)

    def _subscribe(self, index: int, subscription: Subscription, names: tuple[str, ...]) -> Iterator[None]:
        if WILDCARD in names:
            subscription.subscribe((WILDCARD,))
            yield from self._catalogue.join(self, self._audience, index)
        named = [each for each in names if each != WILDCARD]
        if not self._demand.names(index):
            subscription.ask(named)
            yield from self._catalogue.ask_all(self, self._audience, index, named)
            return
        for name in named:
            self._demand.ask(index, name)
            yield

    def _unsubscribe(self, index: int, subscription: Subscription, names: tuple[str, ...]) -> Iterator[None]:
        subscription.unsubscribe(names)
        for name in names:
            if name == "*":
                self._catalogue.leave(self, self._audience, index)
            elif self._demand.names(index):
                self._demand.unask(index, name)
            elif not subscription.named(name):
                self._catalogue.unask(self, self._audience, index, name)
                self._demand.renew(index, name)
            yield
        if names:
            self.lags.settle(index, subscription.wants)

    def _answered(self, index: int, subscription: Subscription, request: Request) -> None:
        if request.error is None:
            offer = subscription.accept(request.nonce)
            if offer is None:
                return
            self._events.answered(self._types[index].short, True)
            self._sender.taken(index)
            if not offer.trial:
                self._caught_up(index, subscription, offer)
        else:
            offer = subscription.refuse(request.nonce, request.error)
            if offer is None:
                return
            self._events.answered(self._types[index].short, False)
            self._pump.journal.refused(self)
            name = None if offer.trial else subscription.alone_refused(offer)
            if name is not None and (entry := self._audience.find(index, name)) is not None:
                self._events.refused(self, entry, offer.sent[name], request.error)
        if offer.trial and (trial := self._sender.trials.pop(index, None)) is not None and not trial.answer.done():
            trial.answer.set_result(request.error or "")

    def _caught_up(self, index: int, subscription: Subscription, offer: Offer) -> None:
        """The client took an offer. What it got of a frozen resource is an older version: that lag stays."""
        names: list[str] = list(offer.removed)
        for name, version in offer.sent.items():
            entry = self._audience.find(index, name)
            if entry is not None:
                self._catalogue.accepted(entry, version)
            if entry is None or not entry.frozen:
                names.append(name)
        self.lags.acked(index, names, offer.revision, subscription.dirty.__contains__)

    # -- what changes ---------------------------------------------------------------------------------------

    def changed(self, type_index: int, name: str, before: tuple[Ref, ...] | None, listed: bool = False) -> None:
        """That resource may differ from what the client has, which was made from `before`; None: from nothing that is
        known."""
        if (subscription := self.subscriptions.get(type_index)) is not None:
            if self.settled:
                self._watermark = self._pump.drained
            held = NOTHING if before is None else self._pump.drained
            self.lags.note(type_index, name, held, asyncio.get_running_loop().time(), before or (), listed)
            subscription.dirty.add(name)
            self._demand.renew(type_index, name)
            self._events.ready(self)

    def joined(self, type_index: int, names: Collection[str]) -> None:
        """The client is to get these, and is not known to have any of them."""
        if (subscription := self.subscriptions.get(type_index)) is not None:
            if self.settled:
                self._watermark = self._pump.drained
            self.lags.begin(type_index, names, asyncio.get_running_loop().time())
            subscription.dirty.update(names)
            if self._audience.place.scope.on_demand:
                for name in names:
                    self._demand.renew(type_index, name)
            self._events.ready(self)

    def renamed(self, type_index: int, asked: str, name: str) -> None:
        """Another resource answers to a name that the client asked for."""
        self._demand.renamed(type_index, asked, name)
        self._events.ready(self)

    @property
    def sated(self) -> bool:
        """True for a client that asked for so many unknown names that it now gets everything at once."""
        return self._sated

    def _give_everything(self) -> None:
        if not self._sated:
            self._sated = True
            log.warning("too many unknown names", proxy=f"{self.proxy.namespace}/{self.proxy.name}")
            self._place.close()
            self._place = self._watch_place(self._rescope, True)
            self._rescope()

    def _rescope(self) -> None:
        self._do(self._move)

    def _move(self) -> Iterator[None]:
        try:
            place = self._place.value()
        except Exception:  # a bug: the client stays what it was
            log.exception("place query failed", proxy=f"{self.proxy.namespace}/{self.proxy.name}")
            return
        if place == self._audience.place or self._closed:
            return
        asks = self._demand.leave()
        before, after = self._audience, self._catalogue.enter(place)
        self._audience = after
        for index, subscription in self.subscriptions.items():
            subscription.dirty.update(subscription.held)
            for name in subscription.held:
                self.lags.note(index, name, NOTHING, asyncio.get_running_loop().time(), listed=True)
            if subscription.wildcard:
                yield from self._catalogue.join(self, after, index)
                self._catalogue.leave(self, before, index)
            for name in sorted(subscription.asked):
                if before.shelf(index, name) is not after.shelf(index, name):
                    self._catalogue.ask(self, after, index, name)
                    self._catalogue.unask(self, before, index, name)
                    yield
        yield from in_steps(asks, self._demand)
        for index in tuple(self.subscriptions):
            yield from self._demand.warm(index)
        if place.scope.on_demand and self._sender.hosts in self.subscriptions:
            self.subscriptions[self._sender.hosts].withdraw_unnamed()
        self._catalogue.exit(before)

    def _detach(self) -> Iterator[None]:
        self._demand.leave()
        for index, subscription in self.subscriptions.items():
            yield from self._unsubscribe(index, subscription, tuple(subscription.asked))
            self._catalogue.leave(self, self._audience, index)
        self._catalogue.exit(self._audience)
        self._place.close()

    # -- what it has ----------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """True when the client has everything."""
        return not self._working and all(each.settled for each in self.subscriptions.values())

    @property
    def acked_revision(self) -> int:
        """The newest revision of which the client has, and has answered for, everything."""
        return self._pump.drained if self.settled else self._watermark

    def objection(self, index: int, name: str) -> str:
        """Envoy's words against what a name is now; empty when nobody refuses it."""
        entry = self._audience.find(index, name)
        return brief(self.subscriptions[index].errors.get(name, "")) or (entry.refusal if entry is not None else "")

    def missing(self, index: int, name: str, lag: Lag) -> tuple[Collection[Ref], int]:
        """The objects a resource that is behind is or was made from, and the newest revision of theirs that the client
        holds there. Of a frozen resource only those count that were otherwise in the version it holds."""
        entry = self._audience.find(index, name)
        if entry is None:
            return lag.before, lag.revision
        subscription = self.subscriptions[index]
        if entry.good is not None and entry.refusal and subscription.held.get(name) == entry.good.version:
            good = entry.good_inputs
            changed = [ref for ref in {**entry.inputs, **good} if good.get(ref) != entry.inputs.get(ref)]
            return changed, NOTHING
        return (entry.inputs.keys() | set(lag.before)) if lag.before else entry.inputs.keys(), lag.revision

    def try_out(self, entry: Entry, resource: Resource) -> asyncio.Future[str]:
        """Offers another content of an entry to this client alone. The answer is what it has against it; it is
        cancelled when the client goes. What the client took stays with it until `tried`."""
        trial = Trial(resource, asyncio.get_running_loop().create_future())
        if self._closed:
            trial.answer.cancel()
        else:
            self._sender.trials[entry.type_index] = trial
            self._events.ready(self)
        return trial.answer

    def tried(self, entry: Entry) -> None:
        """No more contents of that entry are tried out: the client gets what all others get."""
        if (subscription := self.subscriptions.get(entry.type_index)) is not None and not self._closed:
            subscription.dirty.add(entry.name)
            self._events.ready(self)

    def waits_for(self, entry: Entry, version: str) -> bool:
        """True when this client has been sent that version of an entry and has not answered."""
        subscription = self.subscriptions.get(entry.type_index)
        offer = subscription.in_flight if subscription is not None else None
        return not self._closed and offer is not None and offer.sent.get(entry.name) == version

    def flush(self) -> None:
        """Sends what may be sent now."""
        if not self._working and not self._closed:
            self._sender.flush(self._audience)
