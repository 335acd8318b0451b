"""The node's view of the local platform: an asyncio client that makes, watches and ends Pods.

    platform = Platform(layout, PlatformSettings())
    await platform.start()                       # finds the running spawner or starts one; adopts running Pods
    platform.pods()                              # uid -> PodState, adopted ones included
    async for event in platform.events(): ...    # PodChanged(state) | PodGone(uid); first one per adopted Pod
    state = await platform.create(PodSandbox(...))   # returns when the Pod's network is up: state.ip, state.pid
    await platform.restart(uid, "reviews")
    await platform.delete(uid, grace_s=10)       # applications stop first, then the proxy drains; ends with PodGone
    await platform.services((ServiceVip(...), ...))  # the whole table, each time
    await platform.close()                       # Pods go on running

Behind it are a spawner (one process per mesh, `lateen.platform.spawner`) and one init per Pod
(`lateen.platform.init`), reached over Unix sockets under `layout.run`: `platform.sock` and `inits/<uid>/init.sock`.
Both speak JSON lines (`lateen.platform.wire`). An init sends the Pod's whole state on every change, the latest only,
so a slow reader never holds a Pod up and a reconnecting one misses nothing that still matters. There is no record of
Pods apart from the processes themselves and `inits/<uid>/{spec,pod}.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path

import msgspec
import structlog

from lateen.lib.errors import LateenError
from lateen.lib.layout import Layout
from lateen.platform import paths
from lateen.platform.link import Link, LinkLost
from lateen.platform.paths import PodPaths, Record
from lateen.platform.pod import ContainerState, PodSandbox, PodState, ServiceVip
from lateen.platform.settings import PlatformSettings

RETRY_S = 0.1
ENDING_S = 0.005
RETRY_MAX_S = 5

log = structlog.get_logger("lateen.platform")


class PodChanged(msgspec.Struct, frozen=True):
    """A Pod's state, the latest only."""

    state: PodState


class PodGone(msgspec.Struct, frozen=True):
    """A Pod's init has ended, asked to (`delete`) or not; nothing of the Pod is left."""

    uid: str


class PlatformError(LateenError):
    """The platform refused or failed."""


class ExecResult(msgspec.Struct, frozen=True):
    """How a command inside a container went: exit code (negative: a signal; -9 also when it took too long) and the
    first MiB of what it printed."""

    exit_code: int
    output: str


class Platform:
    """One mesh's Pods. Not for several nodes at once; made in a running event loop."""

    def __init__(self, layout: Layout, settings: PlatformSettings = PlatformSettings()) -> None:  # noqa: B008 - frozen
        self._layout = layout
        self._run = str(layout.run)
        self._settings = settings
        self._spawner: Link | None = None
        self._services: tuple[ServiceVip, ...] | None = None
        self._states: dict[str, PodState] = {}
        self._links: dict[str, Link] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[str, PodChanged | PodGone] = {}
        self._news = asyncio.Event()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Have a spawner and watch the Pods that run already; files of those that don't are removed.

        PlatformError when no spawner can be started here (see `lateen.platform.preflight`).
        """
        for directory in (self._layout.run / "pods", self._layout.run / "inits", self._layout.state):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._connect()
        self._own(self._keep_spawner())
        for uid in paths.recorded_pods(self._run):
            record = paths.read_record(PodPaths(self._run, uid))
            if record and paths.alive(record):
                with contextlib.suppress(OSError, LinkLost):
                    await self._adopt(uid, record)
            else:
                await self._ask({"do": "collect", "uid": uid})

    async def close(self) -> None:
        """Let go of everything; spawner and Pods go on."""
        async with self._starting:  # not in the middle of starting a spawner
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in (*self._links.values(), self._spawner):
            if link:
                await link.close()

    def pods(self) -> Mapping[str, PodState]:
        """All Pods now, by uid."""
        return dict(self._states)

    def spec(self, uid: str) -> PodSandbox:
        """What a running Pod was made from. KeyError when there is no such Pod."""
        if uid not in self._states:
            raise KeyError(uid)
        return msgspec.json.decode(Path(PodPaths(self._run, uid).spec).read_bytes(), type=PodSandbox)

    async def events(self) -> AsyncIterator[PodChanged | PodGone]:
        """What happens, for one reader: the latest state per Pod, none skipped for good."""
        while True:
            await self._news.wait()
            while self._pending:
                yield self._pending.pop(next(iter(self._pending)))
            self._news.clear()

    async def create(self, spec: PodSandbox) -> PodState:
        """Make a Pod and return its state once its network is up; its programs start meanwhile.

        The directory `layout.pod(uid)` may hold files already (the proxy's); they stay. PlatformError when the Pod
        exists, its address is taken or the machine refuses.
        """
        pod = PodPaths(self._run, spec.uid)
        os.makedirs(pod.directory, mode=0o700, exist_ok=True)
        os.makedirs(spec.log_dir, mode=0o700, exist_ok=True)
        paths.write_file(pod.spec, msgspec.json.encode(spec))
        await self._ask({"do": "create", "uid": spec.uid})
        record = paths.read_record(pod)
        if record is None:
            raise PlatformError(f"Pod {spec.namespace}/{spec.name} has no record in {pod.record}")
        try:
            await self._adopt(spec.uid, record)
        except (OSError, LinkLost) as error:
            raise PlatformError(f"Pod {spec.namespace}/{spec.name} ended at once: {error}") from error
        return self._states[spec.uid]

    async def delete(self, uid: str, grace_s: float) -> None:
        """End a Pod and wait until nothing of it is left; an unknown one is no error. 0 kills at once."""
        gone = self._gone.get(uid)
        link = self._links.get(uid)
        if gone is None or link is None:
            return
        with contextlib.suppress(LinkLost):
            await link.ask({"do": "stop", "grace_s": grace_s})
            await link.ask({"do": "exit"})
        await gone.wait()

    async def restart(self, uid: str, container: str, grace_s: float = 30) -> None:
        """End a container's run (or its wait); it is started again by its restart policy. `istio-proxy` is the
        proxy. PlatformError for an unknown Pod or container."""
        await self._ask_pod(uid, {"do": "restart", "container": container, "grace_s": grace_s})

    async def execute(self, uid: str, container: str, argv: tuple[str, ...], timeout_s: float = 10) -> ExecResult:
        """Run a command inside a container, with its rights and view."""
        request = {"do": "exec", "container": container, "argv": argv, "timeout_s": timeout_s}
        return msgspec.convert(await self._ask_pod(uid, request), ExecResult)

    async def lock(self, uid: str, *, on: bool) -> None:
        """Let only the Pod's proxy open connections that leave it, or anybody again. PlatformError as above."""
        await self._ask_pod(uid, {"do": "lock", "on": on})

    async def services(self, services: tuple[ServiceVip, ...]) -> None:
        """Make this the table of Services; what didn't change is not touched. Open connections go on."""
        self._services = services
        await self._ask({"do": "services", "services": services})

    async def _ask_pod(self, uid: str, request: Mapping[str, object]) -> object:
        link = self._links.get(uid)
        if link is None:
            raise PlatformError(f"no Pod {uid} is running")
        try:
            return await link.ask(request)
        except LinkLost as error:
            raise PlatformError(f"Pod {uid} has ended") from error
        except OSError as error:
            raise PlatformError(str(error)) from error

    async def _ask(self, request: Mapping[str, object]) -> object:
        """Ask the spawner, once more if it has just been replaced."""
        for attempt in (1, 2):
            link = await self._connect()
            try:
                return await link.ask(request)
            except LinkLost:
                if attempt == 2:
                    raise PlatformError("the spawner ended twice over one request") from None
            except OSError as error:
                raise PlatformError(str(error)) from error
        raise AssertionError

    async def _connect(self) -> Link:
        """The spawner's link, started if need be."""
        async with self._starting:
            if self._spawner and not self._spawner.lost.is_set():
                return self._spawner
            address = paths.spawner_socket(self._run)
            try:
                link = await Link.open(address)
            except OSError:
                await self._launch()
                link = await Link.open(address)
            self._spawner = link
            if self._services is not None:
                await link.ask({"do": "services", "services": self._services})
            return link

    async def _launch(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "lateen.platform.spawner",
            self._run,
            self._run,
            str(self._layout.state),
            env={**os.environ, **paths.marker(self._layout)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate(msgspec.json.encode(self._settings))
        if process.returncode:
            raise PlatformError(
                f"the Pods' spawner did not start: {errors.decode(errors='replace').strip()}",
                remedy="`lateen up` names what this machine lacks",
            )

    async def _keep_spawner(self) -> None:
        """Replace a spawner that has ended."""
        wait_s = RETRY_S
        while True:
            try:
                link = await self._connect()
                wait_s = RETRY_S
                await link.lost.wait()
                log.warning("spawner ended")
            except (PlatformError, OSError, LinkLost) as error:
                log.error("spawner failed", error=str(error), retry_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2)

    async def _adopt(self, uid: str, record: Record) -> None:
        link = await Link.open(PodPaths(self._run, uid).control)
        self._links[uid] = link
        self._gone[uid] = asyncio.Event()
        try:
            self._changed(record, await link.news())
        except LinkLost:
            await self._over(uid)
            raise
        self._own(self._watch(uid, record))

    async def _watch(self, uid: str, record: Record) -> None:
        """Follow one Pod until its init has ended; a lost connection to a live init is opened anew."""
        while True:
            try:
                while True:
                    self._changed(record, await self._links[uid].news())
            except LinkLost:
                await self._links[uid].close()
            while paths.alive(record):
                try:
                    self._links[uid] = await Link.open(PodPaths(self._run, uid).control)
                    break
                except OSError:
                    await asyncio.sleep(ENDING_S)
            else:
                break
        await self._over(uid)

    async def _over(self, uid: str) -> None:
        with contextlib.suppress(PlatformError):
            await self._ask({"do": "collect", "uid": uid})
        self._links.pop(uid, None)
        self._states.pop(uid, None)
        self._tell(uid, PodGone(uid))
        self._gone.pop(uid).set()

    def _changed(self, record: Record, news: object) -> None:
        reported = msgspec.convert(news, PodState)
        pids = _host_pids(record.pid)
        state = msgspec.structs.replace(
            reported,
            pid=record.pid,
            proxy=_seen_from_host(reported.proxy, pids) if reported.proxy else None,
            containers=tuple(_seen_from_host(container, pids) for container in reported.containers),
        )
        self._states[state.uid] = state
        self._tell(state.uid, PodChanged(state))

    def _tell(self, uid: str, event: PodChanged | PodGone) -> None:
        self._pending.pop(uid, None)
        self._pending[uid] = event
        self._news.set()

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _seen_from_host(container: ContainerState, pids: Mapping[int, int]) -> ContainerState:
    return msgspec.structs.replace(container, pid=pids.get(container.pid, 0))


def _host_pids(init: int) -> dict[int, int]:
    """The init's children: their pid in the Pod's namespace -> on the host."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{init}/task/{init}/children").read_text().split():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
                numbers = [int(number) for number in line.split()[1:]]
                if len(numbers) >= 3:
                    found[numbers[-2]] = int(pid)
    return found
