"""From "Envoy refused this resource" to "this object is at fault", with nobody else harmed.

A stream finds out which resource is refused (`subscription`). A refused content that some client runs is that
client's own trouble: it keeps what it had and is reported. A content that nobody has accepted is held back from
everybody at once (`Catalogue.refused`), and the court looks for the object behind it among those it was made from
and that no accepted resource of its type was made from as they are now. With several suspects the question is
settled by trial: in a fork of the graph suspects are set back to what was last accepted, and the resource made
there is offered to the one client that refused. It starts with all set back, so the client never gets more than it
had, and lets them in again in halves: n suspects with one guilty take about 2 log2 n round trips, while all others
keep what they run. Of a guilty object that has parts (the patches of an EnvoyFilter) each is tried by itself. The
verdict goes to the quarantine, which sets back the object, or leaves out its guilty parts, for everybody; then the rest
goes live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec
import structlog

from lateen.engine import Graph, Transaction
from lateen.envoy.resource import Resource, ResourceType
from lateen.intent.scope import Proxy
from lateen.lib.ids import Ref
from lateen.xds.audience import Entry
from lateen.xds.catalogue import Catalogue
from lateen.xds.pump import Pump
from lateen.xds.stream import Stream
from lateen.xds.wire import brief

OTHERS_S: Final = 1.0
"""How long other clients that were sent the same content are waited for."""
TRIAL_S: Final = 10.0

log = structlog.get_logger()


class Quarantine(Protocol):
    """Where a verdict goes."""

    async def hold(self, ref: Ref, reason: str) -> None:
        """Sets the accepted spec of that object back to the one before (none if new), with a finding. A later change
        of the object ends it."""
        ...

    async def leave_out(self, ref: Ref, reasons: Mapping[str, str]) -> None:
        """Makes an object without its guilty parts the accepted one; `reasons` are Envoy's words by the place of each.
        A later change of the object ends it."""
        ...


class Divide(Protocol):
    """How objects are taken apart."""

    def parts(self, value: Any) -> tuple[str, ...]:
        """The places in an object of what can be left out by itself; mostly none."""
        ...

    def without(self, value: Any, parts: Collection[str]) -> Any:
        """The object without what is at those places; the places of all else stay the same."""
        ...


class Refusal(msgspec.Struct, frozen=True):
    """What Envoy refused, and who is held to be at fault (`guilty` may be empty: not found)."""

    proxy: Proxy
    type: str
    name: str
    version: str
    error: str
    guilty: tuple[Ref, ...] = ()
    only_this_proxy: bool = False


class Court:
    """Judges refused resources, one at a time."""

    def __init__(
        self,
        pump: Pump,
        catalogue: Catalogue,
        streams: Callable[[], list[Stream]],
        quarantine: Quarantine | None,
        report: Callable[[Refusal], None],
        divide: Divide | None = None,
    ) -> None:
        self._pump = pump
        self._catalogue = catalogue
        self._types: tuple[ResourceType, ...] = catalogue.types
        self._streams = streams
        self._quarantine = quarantine
        self._report = report
        self._divide = divide
        self._cases: asyncio.Queue[tuple[Entry, Stream]] = asyncio.Queue()
        self._heard = asyncio.Event()

    def refused(self, stream: Stream, entry: Entry, version: str, error: str) -> None:
        """A client refused that version of an entry when it was alone in a response."""
        error = brief(error)
        if self._catalogue.refused(entry, version, error):
            self._cases.put_nowait((entry, stream))
        else:
            self._say(stream, entry, version, error, (), only_this_proxy=True)

    def heard(self) -> None:
        """Some client has answered something."""
        self._heard.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            entry, stream = await self._cases.get()
            version = entry.current.version if entry.current is not None else ""
            if entry.refusal:
                await self._judge(entry, stream, version, entry.refusal)

    async def _judge(self, entry: Entry, stream: Stream, version: str, error: str) -> None:
        await self._others(entry, version)
        if self._open(entry, version) and self._catalogue.pardoned(entry):
            self._say(stream, entry, version, error, (), only_this_proxy=True)
            return
        if not self._open(entry, version):
            if entry.good is not None and entry.good.version == version:
                self._say(stream, entry, version, error, (), only_this_proxy=True)
            return
        suspects = self._catalogue.suspects(entry)
        divided = {ref: None for ref in entry.inputs if self._parts(entry, ref)}
        if len(suspects) < 2 and not divided:
            await self._sentence(entry, stream, version, error, dict.fromkeys(suspects, error), {})
            return
        verdict: dict[Ref, str] | None = {}
        try:
            # An object with parts may be accepted in one resource for the sake of a part and refused in another.
            for back in (suspects, self._catalogue.changed(entry), divided):
                verdict = await self._try(entry, stream, version, back) if back else {}
                if verdict is None:
                    return
                if verdict:
                    others = {ref: back[ref] for ref in verdict}
                    guilty = {ref: await self._try_parts(entry, stream, version, ref, others) for ref in verdict}
                    await self._sentence(entry, stream, version, error, verdict, guilty)
                    return
            await self._sentence(entry, stream, version, error, {}, {})
        finally:
            self._pump.job(self._tried(stream, entry, verdict or {}))

    async def _in_force(self, ref: Ref) -> None:
        """Waits until the change of an object is part of what is made of it."""
        drained = asyncio.Event()

        def wait() -> Iterator[None]:
            while self._pump.waiting(ref):
                yield
            yield  # jobs run when a revision is through
            drained.set()

        self._pump.job(wait())
        await drained.wait()

    def _tried(self, stream: Stream, entry: Entry, verdict: Iterable[Ref]) -> Iterator[None]:
        """Ends the trials when the verdict is in force: what the client took in them is not taken back in between."""
        while any(self._pump.waiting(each) for each in verdict):
            yield
        stream.tried(entry)

    def _parts(self, entry: Entry, ref: Ref) -> tuple[str, ...]:
        return self._divide.parts(entry.inputs[ref]) if self._divide is not None else ()

    async def _sentence(
        self,
        entry: Entry,
        stream: Stream,
        version: str,
        error: str,
        verdict: Mapping[Ref, str],
        guilty: Mapping[Ref, Mapping[str, str]],
    ) -> None:
        self._say(stream, entry, version, error, tuple(sorted(verdict)), only_this_proxy=False)
        if self._quarantine is not None:
            for ref, reason in sorted(verdict.items()):
                if self._pump.graph.input(ref) != entry.inputs.get(ref):  # changed meanwhile, maybe elsewhere in it
                    await self._in_force(ref)
                    if not self._open(entry, version):
                        continue
                if parts := guilty.get(ref):
                    await self._quarantine.leave_out(ref, parts)
                else:
                    await self._quarantine.hold(ref, reason)

    def _open(self, entry: Entry, version: str) -> bool:
        current = entry.current
        return entry.handle is not None and bool(entry.refusal) and current is not None and current.version == version

    async def _others(self, entry: Entry, version: str) -> None:
        """Waits for the other clients that were sent the same."""
        try:
            async with asyncio.timeout(OTHERS_S):
                while any(each.waits_for(entry, version) for each in self._streams()):
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            log.info("judged without all clients", type=self._types[entry.type_index].short, name=entry.name)

    async def _try(self, entry: Entry, stream: Stream, version: str, back: Mapping[Ref, Any]) -> dict[Ref, str] | None:
        """The guilty among several suspects with Envoy's words; None when the case has become void."""
        fork = self._pump.graph.fork()
        suspects = list(back)
        now = {ref: entry.inputs[ref] for ref in suspects}
        held_back = set(suspects)
        verdict: dict[Ref, str] = {}

        async def objection(admitted: set[Ref]) -> str | None:
            if not self._open(entry, version):
                return None
            choice = {ref: back[ref] if ref in held_back - admitted else now[ref] for ref in suspects}
            made = self._made(fork, entry, choice)
            if made is None or (entry.good is not None and made.version == entry.good.version):
                return ""
            if made.version == version:
                return entry.refusal
            return await self._offer(stream, entry, made)

        if (without := await objection(set())) != "":
            return None if without is None else {}
        groups = _halves(suspects)
        while groups:
            group = groups.pop(0)
            words = await objection(set(group))
            if words is None:
                return None
            if not words:
                held_back -= set(group)
            elif len(group) == 1:
                verdict[group[0]] = words
            else:
                groups[:0] = _halves(group)
        return verdict

    async def _try_parts(
        self, entry: Entry, stream: Stream, version: str, ref: Ref, back: Mapping[Ref, Any]
    ) -> dict[str, str]:
        """The guilty among the parts of a guilty object with Envoy's words; none when it has no parts, is refused
        without any of them, or the case has become void."""
        paths, divide = self._parts(entry, ref), self._divide
        if not paths or divide is None:
            return {}
        fork = self._pump.graph.fork()
        taken = {entry.good.version} if entry.good is not None else set[str]()

        async def objection(left_out: Collection[str]) -> str | None:
            if not self._open(entry, version):
                return None
            made = self._made(fork, entry, {**back, ref: divide.without(entry.inputs[ref], left_out)})
            if made is None or made.version in taken:
                return ""
            words = entry.refusal if made.version == version else await self._offer(stream, entry, made)
            if words == "":
                taken.add(made.version)
            return words

        left_out = set(paths)
        if await objection(left_out) != "":
            return {}
        guilty: dict[str, str] = {}
        for path in paths:
            words = await objection(left_out - {path})
            if words is None:
                return {}
            if words:
                guilty[path] = words
            else:
                left_out.discard(path)
        return guilty

    def _made(self, fork: Graph, entry: Entry, inputs: Mapping[Ref, object]) -> Resource | None:
        fork.commit(
            Transaction(
                put=[(ref, value) for ref, value in inputs.items() if value is not None],
                delete=[ref for ref, value in inputs.items() if value is None],
            )
        )
        return fork.pull(self._types[entry.type_index].resource, entry.scope, entry.name)

    async def _offer(self, stream: Stream, entry: Entry, made: Resource) -> str | None:
        answer = stream.try_out(entry, made)
        try:
            async with asyncio.timeout(TRIAL_S):
                await asyncio.wait([answer])
        except TimeoutError:
            return None
        return None if answer.cancelled() else brief(answer.result())

    def _say(
        self,
        stream: Stream,
        entry: Entry,
        version: str,
        error: str,
        guilty: tuple[Ref, ...],
        *,
        only_this_proxy: bool,
    ) -> None:
        short = self._types[entry.type_index].short
        log.warning(
            "resource refused",
            proxy=f"{stream.proxy.namespace}/{stream.proxy.name}",
            type=short,
            name=entry.name,
            error=error,
            guilty=[each.short for each in guilty],
            only_this_proxy=only_this_proxy,
        )
        self._report(Refusal(stream.proxy, short, entry.name, version, error, guilty, only_this_proxy))


def _halves(refs: list[Ref]) -> list[list[Ref]]:
    middle = len(refs) // 2
    return [half for half in (refs[:middle], refs[middle:]) if half]
