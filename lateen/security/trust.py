"""The trust service: tells agents what the mesh trusts, at once when it changes, and knows who uses it by now.

Roots and revocation lists are no secrets, so a follower is not asked who it is beyond what its port asks. What it
says of Pods counts when the port is the mesh's own (a Unix socket); one with a certificate speaks for its Pod alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from lateen.lib.request_counts import Report, RequestCount
from lateen.lib.signing import TRUST_SERVICE, Trust, TrustAnswer
from lateen.security.peer import peer_of
from lateen.security.protos import trust_pb2

Context = grpc.aio.ServicerContext[bytes, trust_pb2.Trust]


class _Follower:
    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.gone = False
        self.bad = False
        self.answer = TrustAnswer("", ())


class TrustService:
    """Serves Follow on any number of gRPC servers. `on_answer` is called whenever agents have said something of their
    Pods, `on_report` with what proxies counted."""

    def __init__(
        self,
        trust: Trust,
        on_answer: Callable[[], None] = lambda: None,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._trust = trust
        self._on_answer = on_answer
        self._on_report = on_report
        self._followers: set[_Follower] = set()

    @property
    def trust(self) -> Trust:
        """What agents are told."""
        return self._trust

    def publish(self, trust: Trust) -> None:
        """Tells everybody something else."""
        if trust != self._trust:
            self._trust = trust
            for each in self._followers:
                each.changed.set()

    def pods(self) -> dict[str, bool]:
        """The Pods (`namespace/name`) that agents serve, and whether their proxies use what is trusted now."""
        found: dict[str, bool] = {}
        for each in self._followers:
            for pod in each.answer.pods:
                found[pod] = found.get(pod, False) or each.answer.version == self._trust.version
        return found

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service; before the server starts."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._follow,
            request_deserializer=bytes,
            response_serializer=trust_pb2.Trust.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(TRUST_SERVICE, {"Follow": handler}),))

    async def _follow(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[trust_pb2.Trust]:
        follower = _Follower()
        reader = asyncio.create_task(self._read(follower, requests, context), name="answers of an agent")
        self._followers.add(follower)
        told = ""
        try:
            while not follower.gone:
                if told != self._trust.version:
                    told = self._trust.version
                    yield _message(self._trust)
                await follower.changed.wait()
                follower.changed.clear()
            if follower.bad:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no answer to the trust")
        finally:
            self._followers.discard(follower)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            self._on_answer()

    async def _read(self, follower: _Follower, requests: AsyncIterator[bytes], context: Context) -> None:
        peer = peer_of(context)
        own = f"{peer.namespace}/{peer.pod}" if peer is not None else None
        try:
            async for raw in requests:
                each = trust_pb2.TrustAnswer.FromString(raw)
                answer = TrustAnswer(each.version, tuple(each.pods) if own is None else (own,))
                if answer != follower.answer:
                    follower.answer = answer
                    self._on_answer()
                if each.counts:
                    self._on_report(_report(each))
        except DecodeError:
            follower.bad = True
        finally:
            follower.gone = True
            follower.changed.set()


def _message(trust: Trust) -> trust_pb2.Trust:
    return trust_pb2.Trust(version=trust.version, roots=trust.roots, secret=trust.secret, signer=trust.signer)


def _report(answer: trust_pb2.TrustAnswer) -> Report:
    rows = [RequestCount(row.target, row.requests, row.client_errors, row.server_errors) for row in answer.counts]
    return Report(answer.seconds, tuple(rows))
