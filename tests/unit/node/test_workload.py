"""One Pod's certificate over its life: obtained, renewed, held on to, kept on disk; served to streams of both kinds."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import grpc
import grpc.aio
import pytest
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.message import Message

from lateen.lib.keypair import new_request
from lateen.lib.signing import SigningError
from lateen.lib.spiffe import SpiffeId
from lateen.node.identity import from_answer, load, save
from lateen.node.sds import SERVICE, TYPE_URL
from lateen.node.workload import PodSpec, Workload
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity
from tests.envoy.harness import short_directory

Asked = TypeVar("Asked", bound=Message)
Answered = TypeVar("Answered", bound=Message)

WEB = PeerIdentity(spiffe=SpiffeId("cluster.local", "default", "web"), pod="web-1", uid="u1")


class Clock:
    """Real time, moved forward by tests."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta(0)

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead


class Signer:
    """A real CA behind the seam, with failures on order and a record of how it was asked."""

    def __init__(self, directory: Path, now: Clock) -> None:
        self.ca = open_ca(directory, now=now)
        self.asked: list[str] = []
        self.failing: set[str] = set()

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        return self._answer(csr, f"token {token}")

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        assert "PRIVATE KEY" in key
        assert "CERTIFICATE" in chain
        return self._answer(csr, "certificate")

    def _answer(self, csr: str, how: str) -> tuple[str, ...]:
        self.asked.append(how)
        if how.split()[0] in self.failing:
            raise SigningError("UNAVAILABLE: the control plane is away")
        return self.ca.issue(csr, WEB)

    async def was_asked(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.asked) < count:
                await asyncio.sleep(0.005)


class Pod:
    """A workload in a folder, with a clock and a signer; `start` starts it anew, as a new agent would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.signer = Signer(directory / "ca", self.clock)
        self.token = directory / "token"
        self.token.write_text("t1\n")
        self.spec = PodSpec(
            uid="u1",
            namespace="default",
            name="web-1",
            service_account="web",
            token_path=str(self.token),
            sds_socket=str(directory / "sds.sock"),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Workload]:
        workload = Workload(self.spec, self.signer, now=self.clock, jitter=lambda: 0.0)
        await workload.start()
        task = asyncio.create_task(workload.run())
        try:
            yield workload
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await workload.stop()

    async def pass_time(self, workload: Workload, ahead: dt.timedelta) -> None:
        """Moves the clock and makes the workload look at it, as its minute's wait would."""
        self.clock.ahead += ahead
        workload.refresh()


@pytest.fixture
def pod() -> Iterator[Pod]:
    made = Pod(short_directory())
    yield made
    shutil.rmtree(made.directory)


async def test_the_first_certificate_is_by_token_and_the_next_by_certificate(pod: Pod) -> None:
    async with pod.running() as workload:
        await pod.signer.was_asked(1)
        workload.refresh()
        await pod.signer.was_asked(2)
        assert pod.signer.asked == ["token t1", "certificate"]
        assert workload.state.error == ""


async def test_the_renewal_is_at_half_life(pod: Pod) -> None:
    async with pod.running() as workload:
        await pod.signer.was_asked(1)
        await asyncio.sleep(0)
        start = pod.clock().timestamp()
        assert workload.state.ends == pytest.approx(start + 24 * 3600, abs=10)
        assert workload.state.renew_at == pytest.approx(start + 12 * 3600, abs=10)


async def test_renewals_of_many_pods_are_spread(pod: Pod) -> None:
    workload = Workload(pod.spec, pod.signer, now=pod.clock, jitter=lambda: 1.0)
    await workload.start()
    task = asyncio.create_task(workload.run())
    await pod.signer.was_asked(1)
    await asyncio.sleep(0)
    start = pod.clock().timestamp()
    assert workload.state.renew_at == pytest.approx(start + 12 * 3600 * 0.9, abs=10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await workload.stop()


async def test_what_was_got_is_kept_privately_and_served_after_a_restart_without_asking(pod: Pod) -> None:
    async with pod.running():
        await pod.signer.was_asked(1)
    kept = pod.directory / "identity.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    pod.signer.failing = {"token", "certificate"}
    async with pod.running() as workload, Streams(pod.spec.sds_socket) as streams:
        assert (await streams.delta("default"))["default"].tls_certificate.certificate_chain.inline_bytes
        assert len(pod.signer.asked) == 1
        assert workload.state.ends > 0


async def test_a_kept_certificate_that_ended_or_broke_is_not_served(pod: Pod) -> None:
    async with pod.running():
        await pod.signer.was_asked(1)
    kept = pod.directory / "identity.json"
    assert load(kept, pod.clock()) is not None
    assert load(kept, pod.clock() + dt.timedelta(hours=25)) is None
    for content in (b"", b"{}", b'{"key": "a", "chain": "b", "roots": "c"}', b"\xff"):
        kept.write_bytes(content)
        assert load(kept, pod.clock()) is None
    assert load(pod.directory / "absent", pod.clock()) is None


async def test_while_the_control_plane_is_away_the_last_certificate_stays_and_asking_goes_on(pod: Pod) -> None:
    async with pod.running() as workload, Streams(pod.spec.sds_socket) as streams:
        before = (await streams.delta("default"))["default"]
        pod.signer.failing = {"token", "certificate"}
        workload.refresh()
        await pod.signer.was_asked(7)
        assert pod.signer.asked[1:] == ["certificate", "token t1"] * 3
        assert "UNAVAILABLE" in workload.state.error
        assert (await streams.delta("default"))["default"] == before
        pod.signer.failing = set()
        workload.refresh()
        async with asyncio.timeout(30):
            while workload.state.error:
                await asyncio.sleep(0.005)
        assert (await streams.delta("default"))["default"] != before


async def test_a_certificate_that_is_refused_gives_way_to_the_token_as_it_is_now(pod: Pod) -> None:
    async with pod.running() as workload:
        await pod.signer.was_asked(1)
        pod.signer.failing = {"certificate"}
        pod.token.write_text("t2")
        workload.refresh()
        await pod.signer.was_asked(3)
        assert pod.signer.asked == ["token t1", "certificate", "token t2"]


async def test_a_certificate_that_ended_is_not_shown(pod: Pod) -> None:
    async with pod.running() as workload:
        await pod.signer.was_asked(1)
        await pod.pass_time(workload, dt.timedelta(hours=25))
        await pod.signer.was_asked(2)
        assert pod.signer.asked == ["token t1", "token t1"]


async def test_a_missing_token_is_said_and_waited_for(pod: Pod) -> None:
    pod.token.unlink()
    async with pod.running() as workload:
        async with asyncio.timeout(30):
            while "token" not in workload.state.error:
                await asyncio.sleep(0.005)
        pod.token.write_text("t1")
        await pod.signer.was_asked(1)


def test_an_answer_for_another_key_is_refused(pod: Pod) -> None:
    key, csr = new_request()
    answer = pod.signer.ca.issue(csr, WEB)
    assert from_answer(key, answer).roots == pod.signer.ca.trust_pem
    with pytest.raises(ValueError, match="for another key"):
        from_answer(new_request()[0], answer)


def test_a_key_is_not_in_what_is_printed(pod: Pod) -> None:
    key, csr = new_request()
    identity = from_answer(key, pod.signer.ca.issue(csr, WEB))
    assert "PRIVATE" not in f"{identity} {identity!r}"
    save(identity, pod.directory / "kept")
    assert load(pod.directory / "kept", pod.clock()) == identity


class Streams:
    """A client of the secret socket, as Envoy is one."""

    def __init__(self, path: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{path}")

    async def __aenter__(self) -> Streams:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def open_sotw(self) -> grpc.aio.StreamStreamCall[DiscoveryRequest, DiscoveryResponse]:
        return self._channel.stream_stream(
            f"/{SERVICE}/StreamSecrets", DiscoveryRequest.SerializeToString, DiscoveryResponse.FromString
        )()

    def open_delta(self) -> grpc.aio.StreamStreamCall[DeltaDiscoveryRequest, DeltaDiscoveryResponse]:
        return self._channel.stream_stream(
            f"/{SERVICE}/DeltaSecrets", DeltaDiscoveryRequest.SerializeToString, DeltaDiscoveryResponse.FromString
        )()

    async def delta(self, *names: str) -> dict[str, Secret]:
        """What one new delta stream is sent first."""
        call = self.open_delta()
        await call.write(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_subscribe=names))
        response = await _read(call)
        call.cancel()
        return {each.name: Secret.FromString(each.resource.value) for each in response.resources}


async def _read(call: grpc.aio.StreamStreamCall[Asked, Answered]) -> Answered:
    """The next response, within half a minute."""
    async with asyncio.timeout(30):
        response = await call.read()
    assert isinstance(response, Message), "the stream ended"
    return cast("Answered", response)


async def test_state_of_the_world_streams(pod: Pod) -> None:
    async with pod.running() as workload, Streams(pod.spec.sds_socket) as streams:
        call = streams.open_sotw()
        await call.write(DiscoveryRequest(type_url=TYPE_URL, resource_names=["default", "ROOTCA", "other"]))
        first = await _read(call)
        secrets = [Secret.FromString(each.value) for each in first.resources]
        assert [each.name for each in secrets] == ["default", "ROOTCA"]
        assert secrets[0].tls_certificate.private_key.inline_bytes.startswith(b"-----BEGIN PRIVATE KEY")
        assert secrets[1].validation_context.trusted_ca.inline_bytes == pod.signer.ca.trust_pem.encode()
        ack = DiscoveryRequest(
            type_url=TYPE_URL,
            version_info=first.version_info,
            response_nonce=first.nonce,
            resource_names=["default", "ROOTCA"],
        )
        await call.write(ack)
        workload.refresh()
        second = await _read(call)
        assert (second.version_info, second.nonce) != (first.version_info, first.nonce)
        stale = DiscoveryRequest(type_url=TYPE_URL, response_nonce=first.nonce, resource_names=["default"])
        await call.write(stale)
        workload.refresh()
        assert len((await _read(call)).resources) == 2
        assert workload.state.streams == 1
        call.cancel()
        async with asyncio.timeout(30):
            while workload.state.streams:
                await asyncio.sleep(0.005)


async def test_delta_streams_send_only_what_changed(pod: Pod) -> None:
    async with pod.running() as workload, Streams(pod.spec.sds_socket) as streams:
        call = streams.open_delta()
        await call.write(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_subscribe=["default", "ROOTCA"]))
        first = await _read(call)
        versions = {each.name: each.version for each in first.resources}
        assert sorted(versions) == ["ROOTCA", "default"]
        workload.refresh()
        second = await _read(call)
        assert [each.name for each in second.resources] == ["default"]
        versions |= {each.name: each.version for each in second.resources}
        call.cancel()

        again = streams.open_delta()
        await again.write(
            DeltaDiscoveryRequest(
                type_url=TYPE_URL,
                resource_names_subscribe=["default", "ROOTCA"],
                initial_resource_versions=versions,
            )
        )
        await again.write(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_unsubscribe=["ROOTCA"]))
        await again.write(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_subscribe=["default"]))
        assert [each.name for each in (await _read(again)).resources] == ["default"]
        again.cancel()


async def test_a_stream_waits_for_the_first_certificate(pod: Pod) -> None:
    pod.signer.failing = {"token"}
    async with pod.running() as workload, Streams(pod.spec.sds_socket) as streams:
        asked = asyncio.create_task(streams.delta("default"))
        await pod.signer.was_asked(2)
        assert not asked.done()
        pod.signer.failing = set()
        workload.refresh()
        assert "default" in await asked


async def test_the_socket_is_this_users_only_and_replaces_a_dead_one(pod: Pod) -> None:
    path = Path(pod.spec.sds_socket)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with pod.running():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
