"""Streams over real gRPC without Envoy: who gets in, what is sent to whom, and how much it costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from pathlib import Path

import grpc
import grpc.aio
import msgspec
import pytest
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.engine import Graph, Q, Transaction
from lateen.intent.scope import Proxy, Scope
from lateen.lib.ids import Ref
from lateen.security.peer import peer_of
from lateen.xds.auth import Authenticated, Believing
from lateen.xds.nack import Refusal
from lateen.xds.server import OPTIONS, SERVICE, XdsServer
from tests.envoy.certificates import Authority
from tests.envoy.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, eventually, serving
from tests.envoy.toys import TABLE, TOYS, Toy, cluster, toy_ref

METHOD = f"/{SERVICE}/DeltaAggregatedResources"


class Talk:
    """A delta client in a test's hands."""

    def __init__(self, channel: grpc.aio.Channel, node_id: str = "sidecar~10.0.0.1~a.default~x") -> None:
        self._node_id = node_id
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)

    async def say(self, request: DeltaDiscoveryRequest) -> None:
        request.node.id = self._node_id
        await self._call.write(request.SerializeToString())

    async def subscribe(self, type_url: str, *names: str, **versions: str) -> None:
        await self.say(
            DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names, initial_resource_versions=versions)
        )

    async def hear(self, deadline_s: float = 5) -> DeltaDiscoveryResponse:
        async with asyncio.timeout(deadline_s):
            raw = await self._call.read()
        assert isinstance(raw, bytes), "the stream has ended"
        return DeltaDiscoveryResponse.FromString(raw)

    async def accept(self, response: DeltaDiscoveryResponse) -> None:
        await self.say(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))

    async def refuse(self, response: DeltaDiscoveryResponse, words: str) -> None:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        request.error_detail.message = words
        await self.say(request)

    async def silent(self) -> None:
        """Nothing comes within a while in which everything that could come would."""
        read = asyncio.ensure_future(self._call.read())
        done, _ = await asyncio.wait([read], timeout=0.3)
        assert not done, await read
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await read

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        return await self._call.code(), str(await self._call.details())


def names(response: DeltaDiscoveryResponse) -> list[str]:
    return sorted(each.name for each in response.resources)


class World:
    """A server on a Unix socket; `put` and `delete` change its toys."""

    def __init__(self, directory: Path) -> None:
        self.refusals: list[Refusal] = []
        self.held: dict[Ref, str] = {}
        self.server = XdsServer(Graph(), TOYS, scope_by_label, Believing(), self, self.refusals.append)
        self.address = f"unix:{directory}/xds.sock"

    async def leave_out(self, ref: Ref, reasons: Mapping[str, str]) -> None:
        raise AssertionError("toys have no parts")

    async def hold(self, ref: Ref, reason: str) -> None:
        self.held[ref] = reason
        self.delete(ref)

    def put(self, *toys: Toy) -> None:
        self.server.pump.submit(Transaction(put=[(toy.ref, toy) for toy in toys]))

    def delete(self, *refs: Ref) -> None:
        self.server.pump.submit(Transaction(delete=refs))


MOVED = Ref("toys", "Moved", "", "to")


def scope_by_label(q: Q, proxy: Proxy) -> Scope:
    """The Scope's namespace can be moved by an input, as a Pod's labels can change."""
    return Scope(kind=proxy.kind, namespace=q.read(MOVED) or proxy.namespace)


@pytest.fixture
async def world(directory: Path) -> AsyncIterator[World]:
    made = World(directory)
    async with serving(made.server, made.address):
        yield made


@pytest.fixture
async def channel(world: World) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(world.address) as made:
        yield made


async def test_a_reconnect_resends_nothing_that_is_there_and_removes_what_is_gone(
    world: World, channel: grpc.aio.Channel
) -> None:
    world.put(*[Toy("Cluster", name, port=1) for name in ("same", "changed", "gone")])
    first = Talk(channel)
    await first.subscribe(CLUSTER)
    response = await first.hear()
    assert names(response) == ["changed", "gone", "same"]
    versions = {each.name: each.version for each in response.resources}
    await first.accept(response)
    world.put(Toy("Cluster", "changed", port=1, timeout_s=2), Toy("Cluster", "new", port=1))
    world.delete(toy_ref("Cluster", "gone"))
    second = Talk(channel)
    await second.subscribe(CLUSTER, "*", **versions)
    response = await second.hear()
    assert (names(response), list(response.removed_resources)) == (["changed", "new"], [])
    await second.accept(response)
    response = await second.hear()
    assert (names(response), list(response.removed_resources)) == ([], ["gone"]), "removed when the rest has settled"
    versions = {name: versions[name] for name in ("same",)}
    third = Talk(channel)
    await third.subscribe(ENDPOINT, "same")
    response = await third.hear()
    await third.accept(response)
    fourth = Talk(channel)
    await fourth.subscribe(ENDPOINT, "same", same=response.resources[0].version)
    await fourth.silent()


async def test_changes_gather_while_a_response_is_in_flight(world: World, channel: grpc.aio.Channel) -> None:
    world.put(Toy("Host", "a"))
    talk = Talk(channel)
    await talk.subscribe(ROUTE, TABLE)
    first = await talk.hear()
    for i in range(20):
        world.put(Toy("Host", f"h{i}"))
        await asyncio.sleep(0.005)
    await talk.accept(first)
    second = await talk.hear()
    assert second.resources[0].resource.value.count(b"h19") > 0
    await talk.accept(second)
    await talk.silent()


async def test_only_streams_that_need_a_change_hear_of_it_and_share_its_bytes(
    world: World, channel: grpc.aio.Channel
) -> None:
    world.put(Toy("Cluster", "one", port=1), Toy("Cluster", "two", port=2))
    talks = {
        name: [Talk(channel, f"sidecar~10.0.0.1~{name}-{i}.default~x") for i in range(5)] for name in ("one", "two")
    }
    for name, group in talks.items():
        for talk in group:
            await talk.subscribe(ENDPOINT, name)
            await talk.accept(await talk.hear())
    await eventually(lambda: all(each.acked_revision == 1 for each in world.server.proxies()), "all acked")
    with world.server.pump.graph.tracing() as ran:
        world.put(Toy("Cluster", "one", port=3))
        bodies = {(await talk.hear()).resources[0].resource.value for talk in talks["one"]}
        assert len(bodies) == 1
    assert [each for each in ran if each.startswith("endpoints(")] == [
        f"endpoints({Scope(kind=world.server.proxies()[0].proxy.kind, namespace='default')}, one)"
    ], "made once for all five"
    assert world.server.counters["sent EDS"] == 15
    waiting = {each.proxy.name for each in world.server.proxies() if each.acked_revision < 2}
    assert waiting == {f"one-{i}" for i in range(5)}
    await talks["two"][0].silent()


async def test_names_come_and_go_and_unknown_types_are_answered(world: World, channel: grpc.aio.Channel) -> None:
    talk = Talk(channel)
    await talk.subscribe(LISTENER)
    response = await talk.hear()
    assert (names(response), response.type_url) == ([], LISTENER), "an empty wildcard is answered too"
    await talk.accept(response)
    world.put(Toy("Port", "p", port=80))
    response = await talk.hear()
    assert names(response) == ["p"]
    await talk.accept(response)
    world.delete(toy_ref("Port", "p"))
    response = await talk.hear()
    assert list(response.removed_resources) == ["p"]
    await talk.accept(response)
    await talk.subscribe("type.googleapis.com/of.no.Kind", "x")
    response = await talk.hear()
    assert (response.type_url, list(response.removed_resources)) == ("type.googleapis.com/of.no.Kind", ["x"])
    await talk.silent()


async def test_a_scope_that_changes_sends_only_what_differs(world: World, channel: grpc.aio.Channel) -> None:
    world.put(Toy("Cluster", "c", port=1))
    talk = Talk(channel)
    await talk.subscribe(CLUSTER)
    await talk.accept(await talk.hear())
    await eventually(lambda: world.server.proxies()[0].acked_revision == 1, "acked")
    world.server.pump.submit(Transaction(put=[(MOVED, "elsewhere")]))
    await eventually(lambda: world.server.pump.drained == 2, "moved")
    world.put(Toy("Cluster", "d", port=1))
    response = await talk.hear()
    assert names(response) == ["d"], "c is the same bytes in the other Scope"


async def test_who_is_expelled_is_told_why_and_others_stay(world: World, channel: grpc.aio.Channel) -> None:
    world.put(Toy("Cluster", "one", port=1))
    talks = [Talk(channel), Talk(channel, "sidecar~10.0.0.2~b.default~x")]
    for each in talks:
        await each.subscribe(CLUSTER)
        await each.accept(await each.hear())
    world.server.expel(lambda proxy: "you are gone" if proxy.name == "a" else "")
    assert await talks[0].refusal() == (grpc.StatusCode.PERMISSION_DENIED, "you are gone")
    world.put(Toy("Cluster", "one", port=1, timeout_s=2))
    assert names(await talks[1].hear()) == ["one"]
    assert [each.proxy.name for each in world.server.proxies()] == ["b"]


async def test_a_lone_client_that_refuses_what_others_run_harms_nobody(world: World, channel: grpc.aio.Channel) -> None:
    good, broken = Talk(channel, "sidecar~10.0.0.1~good.default~x"), Talk(channel, "sidecar~10.0.0.2~broken.default~x")
    for talk in (good, broken):
        await talk.subscribe(ROUTE, TABLE)
        await talk.accept(await talk.hear())
    world.put(Toy("Host", "fine"))
    refused, accepted = await broken.hear(), await good.hear()
    await broken.refuse(refused, "I am old")
    await asyncio.sleep(0.05)
    await good.accept(accepted)
    await eventually(lambda: len(world.refusals) == 1, "reported")
    assert world.refusals[0].only_this_proxy
    assert world.refusals[0].proxy.name == "broken"
    assert world.held == {}
    world.put(Toy("Host", "more"))
    assert names(await good.hear()) == names(await broken.hear()) == [TABLE]


async def test_one_that_connects_later_gets_what_was_accepted_last(world: World, channel: grpc.aio.Channel) -> None:
    """Also while nobody has found out who is at fault."""
    world.put(Toy("Host", "a"))
    first = Talk(channel)
    await first.subscribe(ROUTE, TABLE)
    accepted = await first.hear()
    await first.accept(accepted)
    await eventually(lambda: world.server.proxies()[0].acked_revision == 1, "acked")
    world.put(Toy("Host", "b"), Toy("Host", "c"))
    refused = await first.hear()
    await first.refuse(refused, "no")
    trial = await first.hear()  # the accused are tried one after the other
    assert trial.resources[0].version not in (accepted.resources[0].version, refused.resources[0].version)
    later = Talk(channel, "sidecar~10.0.0.2~later.default~x")
    await later.subscribe(ROUTE, TABLE)
    assert (await later.hear()).resources[0].version == accepted.resources[0].version
    await first.refuse(trial, "b is bad")
    await first.accept(await first.hear())  # the other one alone
    await eventually(lambda: bool(world.held), "a verdict")
    assert world.held == {toy_ref("Host", "b"): "b is bad"}


async def test_what_was_taken_in_a_trial_is_not_taken_back(world: World, channel: grpc.aio.Channel) -> None:
    first = Talk(channel)
    world.put(Toy("Host", "first"))
    await first.subscribe(ROUTE, TABLE)
    accepted = await first.hear()
    await first.accept(accepted)
    await eventually(lambda: world.server.proxies()[0].acked_revision == 1, "acked")
    world.put(*[Toy("Host", name) for name in "abcdefgh"])
    taken = [{"first"}]
    while taken[-1] != {"first", *"abcdefh"}:
        response = await first.hear()
        table = RouteConfiguration.FromString(response.resources[0].resource.value)
        hosts = {each.name for each in table.virtual_hosts}
        if "g" in hosts:
            await first.refuse(response, "no")
        else:
            taken.append(hosts)
            await first.accept(response)
    assert all(before < after for before, after in pairwise(taken)), taken
    await eventually(lambda: bool(world.held), "a verdict")
    assert world.held == {toy_ref("Host", "g"): "no"}


async def test_a_query_that_fails_leaves_clients_what_they_have(directory: Path) -> None:
    def failing(q: Q, scope: Scope, name: str) -> object:
        made = cluster(q, scope, name)
        if name == "poison" and made is not None and q.read(toy_ref("Cluster", name)).timeout_s == 13:
            raise ValueError("a bug")
        return made

    types = (msgspec.structs.replace(TOYS[0], resource=failing), *TOYS[1:])
    server = XdsServer(Graph(), types, scope_by_label, Believing())
    async with (
        serving(server, f"unix:{directory}/xds.sock"),
        grpc.aio.insecure_channel(f"unix:{directory}/xds.sock") as channel,
    ):
        server.pump.submit(Transaction(put=[(toy_ref("Cluster", "poison"), Toy("Cluster", "poison"))]))
        talk = Talk(channel)
        await talk.subscribe(CLUSTER)
        await talk.accept(await talk.hear())
        put = [(toy.ref, toy) for toy in (Toy("Cluster", "poison", timeout_s=13), Toy("Cluster", "other"))]
        server.pump.submit(Transaction(put=put))
        response = await talk.hear()
        assert (names(response), list(response.removed_resources)) == (["other"], [])
        await talk.accept(response)
        server.pump.submit(Transaction(put=[(toy_ref("Cluster", "poison"), Toy("Cluster", "poison", timeout_s=14))]))
        assert names(await talk.hear()) == ["poison"]


async def test_a_client_that_does_not_read_is_let_go(directory: Path) -> None:
    """Whatever it asks for, no more than a few responses wait for it."""
    server = XdsServer(Graph(), TOYS, scope_by_label, Believing())
    async with (
        serving(server, f"unix:{directory}/xds.sock"),
        grpc.aio.insecure_channel(f"unix:{directory}/xds.sock") as channel,
    ):
        talk = Talk(channel)
        await talk.subscribe(CLUSTER)

        async def ask() -> None:
            for number in range(1_500):
                await talk.subscribe("type.googleapis.com/unknown", f"{number}" * 2_000)

        async with asyncio.timeout(30):
            while not server.proxies():
                await asyncio.sleep(0.01)
            asking = asyncio.create_task(ask())
            while server.proxies():
                await asyncio.sleep(0.01)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await asking


# -- who gets in --------------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded(directory: Path) -> AsyncIterator[tuple[Authority, str]]:
    """A server with mutual TLS and one Pod, default/a, of account default."""
    authority = Authority()
    accounts = {("default", "a"): "default", ("default", "b"): "admin"}
    rule = Authenticated(peer_of, lambda _: None, lambda namespace, name: accounts.get((namespace, name)))
    server = XdsServer(Graph(), TOYS, scope_by_label, rule)
    transport = grpc.aio.server(options=OPTIONS)
    transport.add_generic_rpc_handlers((server.handler(),))
    certificate, key = authority.leaf("spiffe://cluster.local/ns/istio-system/sa/istiod", "localhost")
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.pem, require_client_auth=True)
    address = f"unix:{directory}/tls.sock"
    transport.add_secure_port(address, credentials)
    await transport.start()
    running = asyncio.create_task(server.run())
    yield authority, address
    await transport.stop(None)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@contextlib.asynccontextmanager
async def secure(authority: Authority, address: str, leaf: tuple[bytes, bytes]) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(authority.pem, leaf[1], leaf[0])
    options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


@pytest.mark.parametrize(
    ("uri", "node", "code", "words"),
    [
        ("spiffe://cluster.local/ns/default/sa/default", "sidecar~1~a.default~x", None, ""),
        ("spiffe://cluster.local/ns/other/sa/default", "sidecar~1~a.default~x", "PERMISSION_DENIED", "other/default"),
        ("spiffe://cluster.local/ns/default/sa/default", "sidecar~1~b.default~x", "PERMISSION_DENIED", "admin"),
        ("spiffe://cluster.local/ns/default/sa/default", "sidecar~1~c.default~x", "PERMISSION_DENIED", "no Pod"),
        ("https://example.com/", "sidecar~1~a.default~x", "UNAUTHENTICATED", "certificate"),
    ],
)
async def test_the_certificate_decides(
    guarded: tuple[Authority, str], uri: str, node: str, code: str | None, words: str
) -> None:
    authority, address = guarded
    async with secure(authority, address, authority.leaf(uri)) as channel:
        talk = Talk(channel, node)
        await talk.subscribe(LISTENER)
        if code is None:
            assert (await talk.hear()).type_url == LISTENER
        else:
            got, details = await talk.refusal()
            assert got is grpc.StatusCode[code]
            assert words in details


async def test_a_certificate_of_another_authority_does_not_get_to_speak(guarded: tuple[Authority, str]) -> None:
    authority, address = guarded
    stranger = Authority("stranger").leaf("spiffe://cluster.local/ns/default/sa/default")
    async with secure(authority, address, stranger) as channel:
        talk = Talk(channel)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await talk.subscribe(LISTENER)
        assert (await talk.refusal())[0] is grpc.StatusCode.UNAVAILABLE


async def test_what_is_no_request_is_refused_in_words(world: World, channel: grpc.aio.Channel) -> None:
    call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()  # pyright: ignore[reportUnknownVariableType] (bytes, without codecs)
    await call.write(b"\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
