"""A machine's place in the mesh: the stream that registers it, over and over for as long as the agent runs.

The stream says hello, then how the application does whenever that changes; it brings the machine's entry, the probe
to run and the objects that names are made of (`lateen.lib.machines`). It is made with the certificate as it is at
that moment. What the control plane answers with a refusal is logged once, in its words, and tried again ever more
slowly: the group may be made, or the other machine leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import cast

import grpc
import grpc.aio
import msgspec
import structlog

from lateen.lib import machines as wire
from lateen.lib.signing import SERVER_NAMES
from lateen.node import probes
from lateen.node.identity import Identity
from lateen.node.names import Names

FIRST_RETRY_S = 0.2
LAST_RETRY_S = 10.0
LEAVE_S = 2.0
_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAMES[0]),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),
)

_log = structlog.stdlib.get_logger("lateen.node.membership")


class Membership:
    """Keeps the machine joined while `run` runs. `joined` is called with each answer that names the entry."""

    def __init__(
        self,
        target: str,
        hello: wire.Hello,
        identity: Callable[[], Identity | None],
        names: Names,
        joined: Callable[[wire.Joined], None] = lambda _: None,
    ) -> None:
        self._target = target
        self._hello = hello
        self._identity = identity
        self._names = names
        self._joined = joined
        self._health: wire.Health | None = None
        self._news = asyncio.Event()
        self._probe: wire.Json | None = None
        self._prober: asyncio.Task[None] | None = None
        self._leaving = False
        self._left = asyncio.Event()
        self._joining: asyncio.Task[None] | None = None
        self._said = ""

    async def run(self) -> None:
        """Joins until cancelled; then leaves, which the control plane is told if it can be."""
        joining = self._joining = asyncio.create_task(self._join(), name="streams of the membership")
        try:
            await asyncio.shield(joining)
        finally:
            self._leaving = True
            self._left.set()
            self._news.set()
            await asyncio.wait((joining,), timeout=LEAVE_S)
            joining.cancel()
            if self._prober is not None:
                self._prober.cancel()

    async def _join(self) -> None:
        failures = 0
        while not self._leaving:
            identity = self._identity()
            if identity is not None:
                failures = 0 if await self._stream(identity) else failures + 1
            delay = min(FIRST_RETRY_S * 2 ** min(failures, 20), LAST_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * (0.5 + random.random() / 2)):  # noqa: S311 (spreads retries)
                    await self._left.wait()

    async def _stream(self, identity: Identity) -> bool:
        """One stream to its end; True when the machine was joined."""
        credentials = grpc.ssl_channel_credentials(
            identity.roots.encode(), identity.key.encode(), identity.chain.encode()
        )
        self._news.set()
        there = False
        async with grpc.aio.secure_channel(self._target, credentials, options=_OPTIONS) as channel:
            join = cast("grpc.aio.StreamStreamMultiCallable[bytes, bytes]", channel.stream_stream(wire.METHOD))
            call = join(self._messages())
            try:
                async for raw in call:
                    message = wire.to_machine(raw)
                    there = there or isinstance(message, wire.Joined)
                    self._take(message)
                if not self._leaving:
                    self._note("the control plane ended the stream")
            except grpc.aio.AioRpcError as error:
                self._note(f"{error.code().name}: {error.details()}")
            except msgspec.MsgspecError as error:
                self._note(f"the control plane is of another version: {error}")
        return there

    async def _messages(self) -> AsyncIterator[bytes]:
        yield wire.encode(self._hello)
        while not self._leaving:
            await self._news.wait()
            self._news.clear()
            if self._health is not None and not self._leaving:
                yield wire.encode(self._health)
        yield wire.encode(wire.Leaving())

    def _take(self, message: wire.ToMachine) -> None:
        if isinstance(message, wire.Joined):
            self._said = ""
            _log.info("joined", entry=f"{message.namespace}/{message.entry}", probed=message.probe is not None)
            self._follow(message.probe)
            self._news.set()  # the entry may be a new one, which knows nothing yet
            self._joined(message)
        elif message.listing:
            for problem in self._names.replace(message.kind, message.items):
                _log.error("object has no names", reason=problem)
        else:
            for item in message.items:
                self._names.put(message.kind, item)
            for namespace, name in message.gone:
                self._names.delete(message.kind, {"metadata": {"namespace": namespace, "name": name}})

    def _follow(self, probe: wire.Json | None) -> None:
        """Runs this probe instead of an earlier one."""
        if probe == self._probe and self._prober is not None:
            return
        if self._prober is not None:
            self._prober.cancel()
        self._probe, self._prober, self._health = probe, None, None
        if probe is not None:
            parsed = msgspec.convert(probe, probes.Probe)
            self._prober = asyncio.create_task(
                probes.watch(parsed, self._hello.address, self._probed), name="probe of the application"
            )

    def _probed(self, healthy: bool, why: str) -> None:
        _log.info("application probed", healthy=healthy, reason=why)
        self._health = wire.Health(healthy, why)
        self._news.set()

    def _note(self, problem: str) -> None:
        if problem != self._said:
            _log.warning("not joined", control_plane=self._target, reason=problem)
        self._said = problem
