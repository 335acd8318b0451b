"""One client: what it subscribed to, what goes out next, and in which order.

Everything a client says is worked off in the order it came, in slices of the pump, so a client that subscribes to
10,000 names at once delays nobody. What goes out is decided only when a revision has drained (`flush`):

- Types in the order of the type table (clusters, endpoints, listeners, routes, secrets). One response in flight
  per type; while clusters or endpoints wait to be sent, listeners and routes wait too, so a route never overtakes its
  cluster.
- A cluster is removed only when listeners and routes have nothing outstanding: whatever still used it is gone.
- A changed cluster warms anew and Envoy does not ask for its endpoints again: they follow at once. Endpoints of a
  new cluster follow unasked too, so that it is warm before the route that needs it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal

import structlog
from msgspec.structs import replace

from lateen.envoy.resource import Resource
from lateen.intent.scope import Proxy, Scope
from lateen.lib.ids import Ref
from lateen.xds.catalogue import Catalogue, Entry
from lateen.xds.demand import Demand, in_steps
from lateen.xds.lags import NOTHING, Lag, Lags
from lateen.xds.learned import Memory
from lateen.xds.pump import Handle, Pump
from lateen.xds.subscription import UNKNOWN, Offer, Subscription
from lateen.xds.wire import delta_chunk, delta_response, sotw_response

CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
ROUTE: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
VIRTUAL_HOST: Final = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
WARMING: Final = (ENDPOINT, SECRET)
"""Types a cluster needs to get warm. Envoy answers for a cluster only when it is warm, so these never wait for it."""
BARRIER_S: Final = 1.0
SETTLE_S: Final = 1.0
"""How long a reconnected client keeps clusters that are gone: its other types may not have caught up yet."""

Protocol = Literal["delta", "sotw"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Request:
    """A delta or state-of-the-world request in one form. `names` replaces all names (sotw) where it is not None."""

    type_url: str
    nonce: str = ""
    error: str | None = None
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Trial:
    """One resource to be tried on one client; the answer is its words against it, empty when it took it."""

    resource: Resource
    answer: asyncio.Future[str]


@dataclass(frozen=True, slots=True)
class Events:
    """What a stream tells its server."""

    ready: Callable[[Stream], None]
    refused: Callable[[Stream, Entry, str, str], None]
    sent: Callable[[str], None]
    answered: Callable[[str, bool], None]


class Stream:
    """One client's stream. For the loop's thread; `outbox` is what the transport writes."""

    def __init__(
        self,
        proxy: Proxy,
        node_id: str,
        protocol: Protocol,
        peer: str,
        catalogue: Catalogue,
        pump: Pump,
        scope: Callable[[Callable[[], None]], Handle[Scope]],
        events: Events,
        memory: Memory | None = None,
    ) -> None:
        self.proxy = proxy
        self.node_id = node_id
        self.protocol: Protocol = protocol
        self.peer = peer
        self.subscriptions: dict[int, Subscription] = {}
        self.lags = Lags()
        self.outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._catalogue = catalogue
        self._pump = pump
        self._events = events
        self._types = catalogue.types
        self._index = {each.type_url: index for index, each in enumerate(self._types)}
        self._clusters = self._index.get(CLUSTER)
        self._endpoints = self._index.get(ENDPOINT)
        self._tables = self._index.get(ROUTE)
        self._hosts = self._index.get(VIRTUAL_HOST)
        self._scope = scope(self._rescope)
        self._sated = False  # it gets everything, whatever it could do
        self._audience = catalogue.enter(self._scope.value())
        self._demand = Demand(
            self, catalogue, self.subscriptions, lambda: self._audience, self._clusters, self._give_everything, memory
        )
        self._bodies: dict[int, dict[str, Resource]] = {}  # sotw: what the client has
        self._offered: dict[int, dict[str, Resource]] = {}  # sotw: what is in flight
        self._trials: dict[int, Trial] = {}
        self._work: deque[Callable[[], Iterator[None]]] = deque()
        self._working = False
        self._closed = False
        self._nonce = 0
        self._watermark = 0
        self._keep_until = 0.0

    # -- what the client says -------------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """Takes a request in."""
        index = self._index.get(request.type_url)
        if index is None:
            if not request.nonce:
                self._answer_unknown(request)
            return
        self._do(lambda: self._handle(index, request))

    def close(self) -> None:
        """The client is gone."""
        self._closed = True
        for trial in self._trials.values():
            trial.answer.cancel()
        self._do(self._detach)

    def _do(self, work: Callable[[], Iterator[None]]) -> None:
        self._work.append(work)
        if not self._working:
            self._working = True
            self._pump.job(self._run())

    def _run(self) -> Iterator[None]:
        while self._work:
            yield from self._work.popleft()()
        self._working = False
        self._events.ready(self)

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
            self._keep_until = asyncio.get_running_loop().time() + SETTLE_S
        yield from self._unsubscribe(index, subscription, unsubscribe)
        yield from self._subscribe(index, subscription, subscribe)
        if known is None:
            yield from self._demand.warm(index)

    def _subscribe(self, index: int, subscription: Subscription, names: tuple[str, ...]) -> Iterator[None]:
        by_name = self._demand.names(index)
        subscription.subscribe(each for each in names if each == "*" or not by_name)
        for name in names:
            if name == "*":
                yield from self._catalogue.join(self, self._audience, index)
            elif by_name:
                self._demand.ask(index, name)
                yield
            else:
                self._catalogue.ask(self, self._audience, index, name)
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
        entries = self._audience.entries[index]
        if request.error is None:
            offer = subscription.accept(request.nonce)
            if offer is None:
                return
            self._events.answered(self._types[index].short, True)
            self._bodies.setdefault(index, {}).update(self._offered.pop(index, {}))
            if not offer.trial:
                for name, version in offer.sent.items():
                    if (entry := entries.get(name)) is not None:
                        self._catalogue.accepted(entry, version)
                self._caught_up(index, subscription, offer)
        else:
            offer = subscription.refuse(request.nonce, request.error)
            if offer is None:
                return
            self._events.answered(self._types[index].short, False)
            name = None if offer.trial else subscription.alone_refused(offer)
            if name is not None and (entry := entries.get(name)) is not None:
                self._events.refused(self, entry, offer.sent[name], request.error)
        if offer.trial and (trial := self._trials.pop(index, None)) is not None and not trial.answer.done():
            trial.answer.set_result(request.error or "")

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
            self._rescope()

    def _rescope(self) -> None:
        self._do(self._move)

    def _move(self) -> Iterator[None]:
        try:
            scope = self._scope.value()
        except Exception:  # a bug: the client stays what it was
            log.exception("scope query failed", proxy=f"{self.proxy.namespace}/{self.proxy.name}")
            return
        if self._sated:
            scope = replace(scope, on_demand=False)
        if scope == self._audience.scope or self._closed:
            return
        asks = self._demand.leave()
        before, after = self._audience, self._catalogue.enter(scope)
        self._audience = after
        for index, subscription in self.subscriptions.items():
            subscription.dirty.update(subscription.held)
            for name in subscription.held:
                self.lags.note(index, name, NOTHING, asyncio.get_running_loop().time(), listed=True)
            if subscription.wildcard:
                yield from self._catalogue.join(self, after, index)
                self._catalogue.leave(self, before, index)
            for name in sorted(subscription.asked):
                self._catalogue.ask(self, after, index, name)
                self._catalogue.unask(self, before, index, name)
                yield
        yield from in_steps(asks, self._demand)
        for index in tuple(self.subscriptions):
            yield from self._demand.warm(index)
        if scope.on_demand and self._hosts in self.subscriptions:
            self.subscriptions[self._hosts].withdraw_unnamed()
        self._catalogue.exit(before)

    def _detach(self) -> Iterator[None]:
        self._demand.leave()
        for index, subscription in self.subscriptions.items():
            yield from self._unsubscribe(index, subscription, tuple(subscription.asked))
            self._catalogue.leave(self, self._audience, index)
        self._catalogue.exit(self._audience)
        self._scope.close()

    # -- what goes out --------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """True when the client has everything."""
        return not self._working and all(each.settled for each in self.subscriptions.values())

    @property
    def acked_revision(self) -> int:
        """The newest revision of which the client has, and has answered for, everything."""
        return self._pump.drained if self.settled else self._watermark

    def _caught_up(self, index: int, subscription: Subscription, offer: Offer) -> None:
        """The client took an offer. What it got of a frozen resource is an older version: that lag stays."""
        entries = self._audience.entries[index]
        names = [
            name
            for name in (*offer.sent, *offer.removed)
            if (entry := entries.get(name)) is None or not self._catalogue.frozen(entry)
        ]
        self.lags.acked(index, names, offer.revision, subscription.dirty.__contains__)

    def _waits(self, index: int) -> Callable[[str], bool]:
        """Of a name of a type: the client does not hold what it is now."""
        subscription, entries = self.subscriptions[index], self._audience.entries[index]
        sent = subscription.in_flight

        def behind(name: str) -> bool:
            if name in subscription.dirty or (sent is not None and (name in sent.sent or name in sent.removed)):
                return True
            entry = entries.get(name)
            if entry is None or not subscription.wants(name):
                return False
            refused = subscription.refused.get(name)
            return self._catalogue.frozen(entry) or (refused is not None and refused == entry.version)

        return behind

    def objection(self, index: int, name: str) -> str:
        """Envoy's words against what a name is now; empty when nobody refuses it."""
        entry = self._audience.entries[index].get(name)
        return self.subscriptions[index].errors.get(name) or (entry.refusal if entry is not None else "")

    def missing(self, index: int, name: str, lag: Lag) -> tuple[Collection[Ref], int]:
        """The objects a resource that is behind is or was made from, and the newest revision of theirs that the client
        holds there. Of a frozen resource only those count that were otherwise in the version it holds."""
        entry = self._audience.entries[index].get(name)
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
            self._trials[entry.type_index] = trial
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
        if self._working or self._closed:
            return
        deferred: list[tuple[int, list[str]]] = []
        blocked = False
        for index in sorted(self.subscriptions):
            subscription = self.subscriptions[index]
            if blocked and self._types[index].type_url not in (*WARMING, VIRTUAL_HOST):
                continue
            if subscription.in_flight is not None:
                blocked = blocked or self._blocks(subscription)
                continue
            if (trial := self._trials.get(index)) is not None:
                self._send(index, subscription, {trial.resource.name: trial.resource}, (), trial=True)
                continue
            waits = self._wait_for_clusters if index == self._hosts else None
            sends, removes = subscription.plan(lambda name, index=index: self._version(index, name), waits)
            if self.protocol == "sotw" and not self._types[index].wildcard:
                subscription.gone(removes)
                removes = []
            if index == self._hosts and not self._audience.scope.on_demand:
                subscription.keep(removes)  # it would not hear: the tables it has now have no such source
                removes = []
            elif index == self._hosts and not self._has_tables():
                removes = []  # later: it may still have tables without such a source
            late = removes if index in (self._clusters, self._endpoints) else []
            if late:
                deferred.append((index, late))
                removes = []
            if sends or removes or subscription.due:
                self._send(index, subscription, self._resources(index, sends), tuple(removes))
            if subscription.refused:
                subscription.forgive(lambda name, index=index: self._open_version(index, name))
            blocked = blocked or self._blocks(subscription)
        if deferred:
            self._remove(deferred)
        for index in self.subscriptions:
            self.lags.settle(index, self._waits(index))

    def _has_tables(self) -> bool:
        """True when the client has its route tables as they are now."""
        tables = self.subscriptions.get(self._tables) if self._tables is not None else None
        return tables is None or tables.settled

    def _wait_for_clusters(self, host: str) -> bool:
        """True for a virtual host some cluster of which has not been sent."""
        entry = self._audience.entries[self._hosts or 0].get(host)
        made = entry.serving if entry is not None else None
        early = [self.subscriptions[each] for each in (self._clusters, self._endpoints) if each in self.subscriptions]
        now = asyncio.get_running_loop().time()
        in_flight = [each.in_flight for each in early if each.in_flight is not None]
        if made is None or not any(now < each.sent_at + BARRIER_S for each in in_flight):
            return False
        return any(cluster in each.dirty for each in early for cluster in made.clusters)

    def _blocks(self, subscription: Subscription) -> bool:
        """True while this type has more to send than is in flight, for a while: Envoy answers for clusters when they
        are warm, and one that never gets warm must not keep routes from changing."""
        offer = subscription.in_flight
        if offer is None or not subscription.dirty:
            return False
        loop = asyncio.get_running_loop()
        left = offer.sent_at + BARRIER_S - loop.time()
        if left > 0:
            loop.call_later(left, self._events.ready, self)
        return left > 0

    def _remove(self, deferred: list[tuple[int, list[str]]]) -> None:
        loop = asyncio.get_running_loop()
        if (left := self._keep_until - loop.time()) > 0:
            loop.call_later(left, self._events.ready, self)
            return
        early = (self._clusters, self._endpoints)
        if all(each.settled for index, each in self.subscriptions.items() if index not in early):
            for index, names in deferred:
                if self.subscriptions[index].in_flight is None:
                    self._send(index, self.subscriptions[index], {}, tuple(names))

    def _version(self, index: int, name: str) -> str | None:
        entry = self._audience.entries[index].get(name)
        subscription = self.subscriptions[index]
        if entry is None or not (subscription.named(name) or (subscription.wildcard and entry.wildcard)):
            return None
        version = entry.version
        if version and subscription.held.get(name) == version:
            self._catalogue.accepted(entry, version)
        return version

    def _open_version(self, index: int, name: str) -> str | None:
        """The version that is to be given, UNKNOWN while what the resource is now is held back."""
        entry = self._audience.entries[index].get(name)
        return UNKNOWN if entry is not None and self._catalogue.frozen(entry) else self._version(index, name)

    def _resources(self, index: int, names: list[str]) -> dict[str, Resource]:
        found: dict[str, Resource] = {}
        for name in names:
            serving = self._audience.entries[index][name].serving
            assert serving is not None
            found[name] = serving
        return found

    def _send(
        self,
        index: int,
        subscription: Subscription,
        resources: dict[str, Resource],
        removed: tuple[str, ...],
        trial: bool = False,
    ) -> None:
        self._nonce += 1
        row = self._types[index]
        sent = {name: each.version for name, each in resources.items()}
        now = asyncio.get_running_loop().time()
        offer = Offer(str(self._nonce), self._pump.drained, now, sent, removed, trial)
        if index == self._clusters:
            self._endpoints_follow(subscription, resources)
        subscription.offer(offer)
        if self.protocol == "delta":
            chunks = [self._chunk(index, each) for each in resources.values()]
            data = delta_response(row.type_url, chunks, removed, str(offer.revision), offer.nonce)
        else:
            self._offered[index] = resources
            if row.wildcard:  # absent means removed, so what it keeps is sent along
                kept = self._bodies.get(index, {})
                full = {name: kept[name] for name in subscription.held if name in kept and name not in removed}
                resources = full | resources
            chunks = [self._chunk(index, each) for each in resources.values()]
            data = sotw_response(row.type_url, chunks, _version_of(resources), offer.nonce)
        self.outbox.put_nowait(data)
        self._events.sent(row.short)

    def _chunk(self, index: int, resource: Resource) -> bytes:
        if aliases := self.subscriptions[index].aliases.get(resource.name):
            return delta_chunk(self._types[index].type_url, resource, sorted(aliases - {resource.name}))
        entry = self._audience.entries[index].get(resource.name) or Entry(index, self._audience.scope, resource.name)
        return entry.chunk(self._types[index].type_url, resource, self.protocol == "delta")

    def _endpoints_follow(self, clusters: Subscription, sent: dict[str, Resource]) -> None:
        index = self._endpoints
        endpoints = self.subscriptions.get(index) if index is not None else None
        if index is None or endpoints is None:
            return
        for name in (made.endpoints or each for each, made in sent.items()):
            if name in endpoints.asked:
                endpoints.force(name)
            elif clusters.answered:
                self._catalogue.ask(self, self._audience, index, name)
                if self._audience.entries[index][name].current is None:
                    self._catalogue.unask(self, self._audience, index, name)
                else:
                    endpoints.subscribe([name])

    def _answer_unknown(self, request: Request) -> None:
        self._nonce += 1
        if self.protocol == "delta":
            answer = delta_response(request.type_url, (), request.subscribe, "", str(self._nonce))
        else:
            answer = sotw_response(request.type_url, (), "", str(self._nonce))
        self.outbox.put_nowait(answer)


def _version_of(resources: dict[str, Resource]) -> str:
    digest = blake2b(digest_size=8)
    for name in sorted(resources):
        digest.update(f"{name}\0{resources[name].version}\0".encode())
    return digest.hexdigest()
