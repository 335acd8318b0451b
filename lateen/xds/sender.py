"""What goes out to one client next, and in which order.

What goes out is decided only when a revision has drained (`flush`):

- Types in the order of the type table (clusters, endpoints, listeners, routes, secrets). One response in flight
  per type; while clusters or endpoints wait to be sent, listeners and routes wait too, so a route never overtakes its
  cluster.
- A cluster is removed only when listeners and routes have nothing outstanding: whatever still used it is gone.
- A changed cluster warms anew and Envoy does not ask for its endpoints again: they follow at once. Endpoints of a
  new cluster follow unasked too, so that it is warm before the route that needs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lateen.envoy.resource import Resource
from lateen.xds.audience import Audience, Reader
from lateen.xds.catalogue import Catalogue
from lateen.xds.lags import Lags
from lateen.xds.pump import Pump
from lateen.xds.request import Protocol
from lateen.xds.responses import Responses
from lateen.xds.subscription import UNKNOWN, Offer, Subscription

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


@dataclass(frozen=True, slots=True)
class Trial:
    """One resource to be tried on one client; the answer is its words against it, empty when it took it."""

    resource: Resource
    answer: asyncio.Future[str]


@dataclass(frozen=True, slots=True)
class Out:
    """Where responses go: `write` takes one, `wake` asks for a `flush`, `sent` counts one of a type."""

    write: Callable[[bytes], None]
    wake: Callable[[], None]
    sent: Callable[[Audience, str, int, int, float, bool], None]


class Sender:
    """Decides what one client gets. `subscriptions` and `lags` are the stream's."""

    def __init__(
        self,
        reader: Reader,
        protocol: Protocol,
        catalogue: Catalogue,
        responses: Responses,
        pump: Pump,
        subscriptions: dict[int, Subscription],
        lags: Lags,
        out: Out,
    ) -> None:
        self.trials: dict[int, Trial] = {}
        self._reader = reader
        self._protocol: Protocol = protocol
        self._catalogue = catalogue
        self._responses = responses
        self._pump = pump
        self._subscriptions = subscriptions
        self._lags = lags
        self._out = out
        self._types = catalogue.types
        index = {each.type_url: number for number, each in enumerate(self._types)}
        self.clusters = index.get(CLUSTER)
        self.hosts = index.get(VIRTUAL_HOST)
        self._endpoints = index.get(ENDPOINT)
        self._tables = index.get(ROUTE)
        self._never_wait = frozenset(index[each] for each in (*WARMING, VIRTUAL_HOST) if each in index)
        self._bodies: dict[int, dict[str, Resource]] = {}  # sotw: what the client has
        self._offered: dict[int, dict[str, Resource]] = {}  # sotw: what is in flight
        self._keep_until = 0.0

    def reconnected(self) -> None:
        """The client brings what it had on an earlier stream."""
        self._keep_until = asyncio.get_running_loop().time() + SETTLE_S

    def taken(self, index: int) -> None:
        """The client took the response of a type that was in flight."""
        if (offered := self._offered.pop(index, None)) is not None:
            self._bodies.setdefault(index, {}).update(offered)

    def behind(self, audience: Audience, index: int) -> Callable[[str], bool]:
        """Of a name of a type: the client does not hold what it is now."""
        subscription = self._subscriptions[index]
        sent = subscription.in_flight

        def waits(name: str) -> bool:
            if name in subscription.dirty or (sent is not None and (name in sent.sent or name in sent.removed)):
                return True
            entry = audience.find(index, name)
            if entry is None or not subscription.wants(name):
                return False
            refused = subscription.refused.get(name)
            return entry.frozen or (refused is not None and refused == entry.version)

        return waits

    def flush(self, audience: Audience) -> None:
        """Sends what may be sent now."""
        deferred: list[tuple[int, list[str]]] = []
        blocked = False
        for index in sorted(self._subscriptions):
            subscription = self._subscriptions[index]
            if blocked and index not in self._never_wait:
                continue
            if subscription.in_flight is not None:
                blocked = blocked or self._blocks(subscription)
                continue
            if (trial := self.trials.get(index)) is not None:
                self._send(audience, index, subscription, {trial.resource.name: trial.resource}, (), trial=True)
                continue
            if subscription.idle:
                continue
            late = self._plan(audience, index, subscription)
            if late:
                deferred.append((index, late))
            blocked = blocked or self._blocks(subscription)
        if deferred:
            self._remove(audience, deferred)
        for index, subscription in self._subscriptions.items():
            if subscription.ended:
                self._lags.settle(index, self.behind(audience, index), subscription.take_ended())

    def _plan(self, audience: Audience, index: int, subscription: Subscription) -> list[str]:
        """Sends what one type may send now; the names whose removal has to wait for other types."""

        def version(name: str) -> str | None:
            return self._version(audience, index, subscription, name)

        def waits(name: str) -> bool:
            return self._wait_for_clusters(audience, name)

        sends, removes = subscription.plan(version, waits if index == self.hosts else None)
        if self._protocol == "sotw" and not self._types[index].wildcard:
            subscription.gone(removes)
            removes = []
        if index == self.hosts and not audience.place.scope.on_demand:
            subscription.keep(removes)  # it would not hear: the tables it has now have no such source
            removes = []
        elif index == self.hosts and not self._has_tables():
            removes = []  # later: it may still have tables without such a source
        late = removes if index in (self.clusters, self._endpoints) else []
        if late:
            removes = []
        if sends or removes or subscription.due:
            self._send(audience, index, subscription, self._resources(audience, index, sends), tuple(removes))
        if subscription.refused:
            subscription.forgive(lambda name: self._open_version(audience, index, subscription, name))
        return late

    def _has_tables(self) -> bool:
        """True when the client has its route tables as they are now."""
        tables = self._subscriptions.get(self._tables) if self._tables is not None else None
        return tables is None or tables.settled

    def _wait_for_clusters(self, audience: Audience, host: str) -> bool:
        """True for a virtual host some cluster of which has not been sent."""
        entry = audience.find(self.hosts or 0, host)
        made = entry.serving if entry is not None else None
        early = [self._subscriptions[each] for each in (self.clusters, self._endpoints) if each in self._subscriptions]
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
            loop.call_later(left, self._out.wake)
        return left > 0

    def _remove(self, audience: Audience, deferred: list[tuple[int, list[str]]]) -> None:
        loop = asyncio.get_running_loop()
        if (left := self._keep_until - loop.time()) > 0:
            loop.call_later(left, self._out.wake)
            return
        early = (self.clusters, self._endpoints)
        if all(each.settled for index, each in self._subscriptions.items() if index not in early):
            for index, names in deferred:
                if self._subscriptions[index].in_flight is None:
                    self._send(audience, index, self._subscriptions[index], {}, tuple(names))

    def _version(self, audience: Audience, index: int, subscription: Subscription, name: str) -> str | None:
        entry = audience.find(index, name)
        if entry is None or not (subscription.named(name) or (subscription.wildcard and entry.wildcard)):
            return None
        version = entry.version
        if version and subscription.held.get(name) == version:
            self._catalogue.accepted(entry, version)
        return version

    def _open_version(self, audience: Audience, index: int, subscription: Subscription, name: str) -> str | None:
        """The version that is to be given, UNKNOWN while what the resource is now is held back."""
        entry = audience.find(index, name)
        if entry is not None and entry.frozen:
            return UNKNOWN
        return self._version(audience, index, subscription, name)

    def _resources(self, audience: Audience, index: int, names: list[str]) -> dict[str, Resource]:
        found: dict[str, Resource] = {}
        for name in names:
            entry = audience.find(index, name)
            assert entry is not None
            assert entry.serving is not None
            found[name] = entry.serving
        return found

    def _send(
        self,
        audience: Audience,
        index: int,
        subscription: Subscription,
        resources: dict[str, Resource],
        removed: tuple[str, ...],
        trial: bool = False,
    ) -> None:
        started = time.perf_counter()
        if self._protocol == "delta":
            aliases = {
                name: tuple(sorted(found - {name}))
                for name in resources
                if (found := subscription.aliases.get(name)) is not None
            }
            body = self._responses.delta(audience, index, resources, removed, aliases)
        else:
            full = resources
            self._offered[index] = resources
            if self._types[index].wildcard:  # absent means removed, so what it keeps is sent along
                kept = self._bodies.get(index, {})
                held = {name: kept[name] for name in subscription.held if name in kept and name not in removed}
                full = held | resources
            body = self._responses.sotw(audience, index, full, resources)
        if index == self.clusters:
            self._endpoints_follow(audience, subscription, resources)
        now = asyncio.get_running_loop().time()
        subscription.offer(Offer(body.nonce, self._pump.drained, now, body.sent, removed, trial))
        self._out.write(body.data)
        changed = not trial and self._lags.moved(index, (*body.sent, *removed))
        names, took_s = len(body.sent) + len(removed), time.perf_counter() - started
        self._out.sent(audience, self._types[index].short, names, len(body.data), took_s, changed)

    def _endpoints_follow(self, audience: Audience, clusters: Subscription, sent: dict[str, Resource]) -> None:
        index = self._endpoints
        endpoints = self._subscriptions.get(index) if index is not None else None
        if index is None or endpoints is None:
            return
        for name in (made.endpoints or each for each, made in sent.items()):
            if name in endpoints.asked:
                endpoints.force(name)
            elif clusters.answered:
                self._catalogue.ask(self._reader, audience, index, name)
                entry = audience.find(index, name)
                if entry is None or entry.current is None:
                    self._catalogue.unask(self._reader, audience, index, name)
                else:
                    endpoints.subscribe([name])
