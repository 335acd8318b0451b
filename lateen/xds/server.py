"""The xDS server: aggregated discovery, delta and state of the world, over grpc.aio with raw bytes.

It has no code per resource type: the table of types and `scope_of` say what there is, `identify` says who asks.
Requests are parsed with the protobuf classes; responses are joined from encoded parts (`wire`).

    server = XdsServer(graph, TYPES, scope_of, Authenticated(...), quarantine=...)
    grpc_server.add_generic_rpc_handlers((server.handler(),))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run())
        server.pump.submit(transaction)         # every change of the graph goes through the pump
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from typing import Any, Final, cast

import grpc
import grpc.aio
import msgspec
import structlog
from google.protobuf.message import DecodeError

from lateen.engine import Graph, Q
from lateen.envoy.resource import ResourceType
from lateen.intent.scope import Proxy, Scope
from lateen.lib.bucket import Bucket
from lateen.lib.ids import Ref
from lateen.xds.audience import Place
from lateen.xds.auth import Context as AuthContext
from lateen.xds.auth import Identify, Refused
from lateen.xds.catalogue import Catalogue
from lateen.xds.journal import Journal
from lateen.xds.learned import Memory
from lateen.xds.nack import Court, Divide, Quarantine, Refusal
from lateen.xds.pace import Pace
from lateen.xds.progress import Behind, Progress, lagging, progress
from lateen.xds.pump import Pump
from lateen.xds.request import Protocol, Requests
from lateen.xds.responses import Responses
from lateen.xds.stream import Events, Stream

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", -1),
)
"""gRPC options this service needs: a dead client is noticed in 40 s, a reconnect may list 100,000 versions."""

FIRST_REQUEST_S: Final = 10.0
"""How long a stream may be silent at its beginning."""
FAREWELL_S: Final = 1.0
"""How long a client may take to read why its stream ends."""
MAX_STREAMS: Final = 8
"""Streams of one proxy at a time; a restarted one may be back before the old one is known to be gone."""
COLLECT_AFTER: Final = 250
"""Closed streams (some 50 kB each) until their memory is collected, which takes a third of a second."""
REQUESTS: Final = (200.0, 2_000.0)
"""How many requests a second one stream may send for long, and at once; beyond that it is read more slowly."""

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[bytes, bytes]


class TypeStatus(msgspec.Struct, frozen=True):
    """One type of one stream. `subscribed` counts names asked for; `held` names the client has; `errors` are refused
    names with Envoy's words; revisions are those of the newest response sent and accepted."""

    type_url: str
    short: str
    wildcard: bool
    subscribed: int
    held: int
    sent_nonce: str
    acked_nonce: str
    acked_revision: int
    synced: bool
    errors: dict[str, str]
    last_error: str


class ProxyStatus(msgspec.Struct, frozen=True):
    """One connected proxy."""

    proxy: Proxy
    node_id: str
    protocol: str
    peer: str
    acked_revision: int
    types: tuple[TypeStatus, ...]
    behind: tuple[Behind, ...] = ()
    sated: bool = False
    """It has asked for so many unknown names that it gets everything at once."""


class XdsServer:
    """Streams of proxies over one graph."""

    def __init__(
        self,
        graph: Graph,
        types: tuple[ResourceType, ...],
        scope_of: Callable[[Q, Proxy], Scope],
        identify: Identify,
        quarantine: Quarantine | None = None,
        on_nack: Callable[[Refusal], None] = lambda _: None,
        tracked: Callable[[Ref], bool] = lambda _: True,
        divide: Divide | None = None,
        memory_of: Callable[[Proxy], Memory] | None = None,
    ) -> None:
        """`memory_of` is what a proxy's workload was seen to call before."""
        self.pump = Pump(graph)
        self.counters: Counter[str] = Counter()
        self._news: list[Callable[[], None]] = []
        self._responses = Responses(types, self.pump)
        self._proxies: Counter[Proxy] = Counter()
        self._pace = Pace(self.pump.wake)

        def place_of(q: Q, proxy: Proxy, everything: bool) -> Place:
            scope = q(scope_of, proxy)
            if everything and scope.on_demand:
                scope = msgspec.structs.replace(scope, on_demand=False)
            return Place(scope, tuple(q(each.shares, scope) for each in types))

        self._place_of = place_of
        self._identify = identify
        self._catalogue = Catalogue(self.pump, types, tracked)
        self._memory_of = memory_of
        self._gone = 0
        self._streams: dict[Stream, None] = {}
        self._ends: dict[Stream, Callable[[Refused], None]] = {}
        self._ready: dict[Stream, None] = {}
        self._court = Court(self.pump, self._catalogue, lambda: list(self._streams), quarantine, on_nack, divide)
        self._events = Events(self._wake, self._court.refused, self._sent, self._answered, self._overrun)
        type_urls = tuple(each.type_url for each in types)
        self._requests = {
            "delta": Requests("delta", type_urls),
            "sotw": Requests("sotw", type_urls),
        }
        self.pump.on_drained(self._flush)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.pump.run(), name="xds pump")
            tasks.create_task(self._court.run(), name="xds court")

    def handler(self, identify: Identify | None = None) -> grpc.GenericRpcHandler:
        """The gRPC service, for `add_generic_rpc_handlers`; a port may have its own rule of who is who."""
        rule = identify or self._identify

        async def delta(requests: AsyncIterator[bytes], context: Context) -> None:
            await self._serve("delta", requests, context, rule)

        async def sotw(requests: AsyncIterator[bytes], context: Context) -> None:
            await self._serve("sotw", requests, context, rule)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(delta),
                "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(sotw),
            },
        )

    def proxies(self) -> list[ProxyStatus]:
        """All connected proxies, by namespace and name."""
        found = [self._status(each) for each in self._streams]
        return sorted(found, key=lambda each: (each.proxy.namespace, each.proxy.name, each.node_id))

    @property
    def journal(self) -> Journal:
        """What each change became."""
        return self.pump.journal

    @property
    def connected(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def sated(self) -> set[Proxy]:
        """The proxies that have asked for so many unknown names that they get everything at once."""
        return {each.proxy for each in self._streams if each.sated}

    def progress(self, refs: Collection[Ref]) -> dict[Ref, Progress]:
        """On how many proxies some objects are live now; `tracked` ones only."""
        return progress(self.pump.graph, self._catalogue, self._streams, refs)

    def expel(self, reason: Callable[[Proxy], str]) -> None:
        """Ends the streams of the proxies for which there is a reason (not empty)."""
        for stream, end in list(self._ends.items()):
            if why := reason(stream.proxy):
                end(Refused(grpc.StatusCode.PERMISSION_DENIED, why))

    def touched(self) -> set[Ref]:
        """The objects that other proxies need than when this was last asked."""
        return self._catalogue.uses.take()

    def on_news(self, callback: Callable[[], None]) -> None:
        """Calls back whenever a proxy has answered, come or gone: the progress of objects may be another."""
        self._news.append(callback)

    def _tell(self) -> None:
        for callback in self._news:
            callback()

    # -- streams --------------------------------------------------------------------------------------------

    async def _serve(
        self, protocol: Protocol, requests: AsyncIterator[bytes], context: Context, rule: Identify
    ) -> None:
        reading = self._requests[protocol]
        try:
            async with asyncio.timeout(FIRST_REQUEST_S):
                node, first = reading.first(await anext(requests))
        except StopAsyncIteration:
            return
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no request within {FIRST_REQUEST_S:g} s")
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no discovery request")
        try:
            proxy = rule(cast("AuthContext", context), node)
        except Refused as refused:
            log.warning("stream refused", node=node.id, peer=context.peer(), reason=str(refused))
            await context.abort(refused.code, str(refused))
        if self._proxies[proxy] >= MAX_STREAMS:
            log.warning("stream refused", node=node.id, peer=context.peer(), reason="too many streams")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"this proxy has {MAX_STREAMS} streams already")
        stream = Stream(
            proxy,
            node.id,
            protocol,
            context.peer(),
            self._catalogue,
            self._responses,
            self.pump,
            lambda on_change, everything: self.pump.watch(on_change, self._place_of, proxy, everything),
            self._events,
            self._pace,
            self._memory_of(proxy) if self._memory_of is not None else None,
        )
        self._streams[stream] = None
        self._proxies[proxy] += 1
        log.info("proxy connected", proxy=f"{proxy.namespace}/{proxy.name}", protocol=protocol, peer=stream.peer)
        try:
            stream.receive(first)
            writer = asyncio.create_task(_write(stream, context), name=f"xds writer {node.id}")
            try:
                await self._until_expelled(stream, self._read(stream, requests, reading, writer))
            except Refused as refused:
                try:
                    async with asyncio.timeout(FAREWELL_S):
                        await context.abort(refused.code, str(refused))
                except TimeoutError:  # it does not read: the call ends without a word
                    raise asyncio.CancelledError from None
            finally:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer
        finally:
            del self._streams[stream]
            self._proxies[proxy] -= 1
            if not self._proxies[proxy]:
                del self._proxies[proxy]
            self._ready.pop(stream, None)
            stream.close()
            self._tell()
            self._collect()
            log.info("proxy gone", proxy=f"{proxy.namespace}/{proxy.name}", protocol=protocol, peer=stream.peer)

    async def _until_expelled(self, stream: Stream, reading: Coroutine[Any, Any, None]) -> None:
        """Reads to the end of the stream. Refused when it is expelled before."""
        reasons: list[Refused] = []

        def end(reason: Refused) -> None:
            reasons.append(reason)
            limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as limit:
                self._ends[stream] = end
                try:
                    await reading
                finally:
                    del self._ends[stream]
        except TimeoutError:
            log.warning("stream ended", node=stream.node_id, peer=stream.peer, reason=str(reasons[0]))
            raise reasons[0] from None

    def _collect(self) -> None:
        """A stream is a cycle, and lives long: the collector of a process that leaves old objects alone would never
        free it (decision 0001), and one that was frozen while it lived not even by a full collection. That stops the
        loop, so it waits for many."""
        self._gone += 1
        if self._gone >= COLLECT_AFTER:
            self._gone = 0
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    async def _read(
        self, stream: Stream, requests: AsyncIterator[bytes], reading: Requests, writer: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        bucket = Bucket(*REQUESTS, loop.time())
        try:
            async for raw in requests:
                if writer.done():
                    return
                stream.receive(reading.later(raw))
                if (wait_s := bucket.take(loop.time())) > 0:
                    await asyncio.sleep(wait_s)
        except DecodeError:
            log.warning("stream ended", node=stream.node_id, peer=stream.peer, reason="not a discovery request")
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the request is no discovery request") from None

    def _wake(self, stream: Stream) -> None:
        if stream in self._streams:
            self._ready[stream] = None
            self.pump.wake()

    def _flush(self) -> Iterator[None]:
        ready, self._ready = self._ready, {}
        for stream in ready:
            if self._pace.full:
                if stream in self._streams:
                    self._ready[stream] = None
                continue
            stream.flush()
            yield
        self._responses.end_round()

    def _overrun(self, stream: Stream) -> None:
        if (end := self._ends.get(stream)) is not None:
            end(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "it answers for responses that it has not read"))

    def _sent(self, short: str) -> None:
        self.counters[f"sent {short}"] += 1

    def _answered(self, short: str, accepted: bool) -> None:
        self.counters[f"{'acked' if accepted else 'refused'} {short}"] += 1
        self._court.heard()
        self._tell()

    def _status(self, stream: Stream) -> ProxyStatus:
        rows: list[TypeStatus] = []
        for index, each in sorted(stream.subscriptions.items()):
            row = self._catalogue.types[index]
            rows.append(
                TypeStatus(
                    type_url=row.type_url,
                    short=row.short,
                    wildcard=each.wildcard,
                    subscribed=len(each.asked),
                    held=len(each.held),
                    sent_nonce=each.nonce,
                    acked_nonce=each.acked.nonce if each.acked else "",
                    acked_revision=each.acked.revision if each.acked else 0,
                    synced=each.settled,
                    errors=dict(each.errors),
                    last_error=each.last_error,
                )
            )
        return ProxyStatus(
            stream.proxy,
            stream.node_id,
            stream.protocol,
            stream.peer,
            stream.acked_revision,
            tuple(rows),
            tuple(lagging(self._catalogue, stream)),
            stream.sated,
        )


async def _write(stream: Stream, context: Context) -> None:
    while True:
        data, written = await stream.outbox.get()
        await context.write(data)
        written()
