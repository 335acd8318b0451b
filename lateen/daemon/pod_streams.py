"""Logs, commands and connections of the Pods on this machine, for the Kubernetes API.

A Pod's init is asked over its socket and hands descriptors over: the ends of a command's streams, or a connected
socket from inside the Pod's network. Logs are the files that the init writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncGenerator, Mapping

from lateen.api.core.pod import Pod
from lateen.api.objects import ref_of
from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.errors import ApiError, BadRequestError, UnreachableError
from lateen.apiserver.store import Store
from lateen.apiserver.streams import ExecOptions, LogOptions, pod_not_found
from lateen.daemon import pod_logs
from lateen.lib.layout import Layout
from lateen.platform import wire
from lateen.platform.init import PROXY
from lateen.platform.logs import log_files
from lateen.platform.paths import PodPaths


class PodStreams:
    """See `lateen.apiserver.streams.Pods`."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout

    # -- logs ------------------------------------------------------------------------------------------

    async def log(self, namespace: str, name: str, options: LogOptions) -> AsyncGenerator[bytes]:
        """What a container has printed, and with `follow` what it prints until it ends."""
        pod = self._pod(namespace, name)
        container = _container(pod, options.container, also=PROXY)
        directory = self._layout.logs / "pods" / f"{namespace}_{name}"
        files = log_files(directory, container, previous=options.previous)
        if not files:
            which = "previous terminated container" if options.previous else "container"
            raise BadRequestError(
                f'{which} "{container}" in pod "{name}" has printed nothing: {_state(pod, container)}',
                remedy=f"kubectl describe pod {name}",
            )
        return pod_logs.read(files, options, lambda: self._ended(namespace, name, container))

    def _ended(self, namespace: str, name: str, container: str) -> bool:
        row = self._store.get(ref_of(Pod, namespace, name))
        if row is None:
            return True
        statuses = list_at(map_at(row.decode(), "status"), "containerStatuses")
        return any("terminated" in map_at(each, "state") for each in statuses if each.get("name") == container)

    async def attach(self, namespace: str, name: str, container: str) -> Attached:
        """What a running container prints from now on."""
        pod = self._pod(namespace, name)
        container = _container(pod, container)
        if "running" not in _state(pod, container):
            raise BadRequestError(f"container {container} is not running: {_state(pod, container)}")
        files = log_files(self._layout.logs / "pods" / f"{namespace}_{name}", container)
        options = LogOptions(container=container, follow=True, tail=0)
        return Attached(pod_logs.read(files, options, lambda: self._ended(namespace, name, container)))

    # -- commands and connections ----------------------------------------------------------------------

    async def execute(self, namespace: str, name: str, options: ExecOptions) -> Command:
        """A command in a running container."""
        pod = self._pod(namespace, name)
        container = _container(pod, options.container)
        request = {"do": "attach", "container": container, "argv": list(options.argv), "terminal": options.tty}
        told, *ends = await self._ask(pod, request)
        return await Command.of(told, ends, stdin=options.stdin)

    async def dial(self, namespace: str, name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a port of a Pod, from inside of it."""
        if not 0 < port < 65536:
            raise BadRequestError(f"{port} is no port")
        (descriptor,) = await self._ask(self._pod(namespace, name), {"do": "dial", "port": port})
        return await asyncio.open_connection(sock=socket.socket(fileno=descriptor))

    async def _ask(self, pod: Json, request: Mapping[str, object]) -> tuple[int, ...]:
        paths = PodPaths(str(self._layout.run), pod["metadata"]["uid"])
        try:
            _, descriptors = await asyncio.to_thread(wire.ask, paths.control, dict(request))
        except FileNotFoundError:
            raise UnreachableError(
                f"the Pod {pod['metadata']['name']} does not run here", remedy="kubectl get pods says why"
            ) from None
        except OSError as error:
            raise BadRequestError(str(error), remedy="kubectl describe pod says how its containers are") from None
        if not descriptors:
            raise ApiError("the Pod handed nothing over", remedy="try again")
        return descriptors

    def _pod(self, namespace: str, name: str) -> Json:
        row = self._store.get(ref_of(Pod, namespace, name))
        if row is None:
            raise pod_not_found(namespace, name)
        return row.decode()


class Attached:
    """A container that was started without any input; see `lateen.apiserver.streams.Running`."""

    def __init__(self, lines: AsyncGenerator[bytes]) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.stdout = asyncio.StreamReader()
        self._reading = asyncio.create_task(self._read(lines), name="attached")

    async def _read(self, lines: AsyncGenerator[bytes]) -> None:
        async with contextlib.aclosing(lines):
            async for each in lines:
                self.stdout.feed_data(each)
        self.stdout.feed_eof()

    def resize(self, width: int, height: int) -> None:
        """It has no terminal."""

    async def wait(self) -> int:
        """Whoever looks on learns nothing of how it ends."""
        await self._reading
        return 0

    def close(self) -> None:
        """Lets go; the container goes on."""
        self._reading.cancel()


class Command:
    """A running command; see `lateen.apiserver.streams.Running`."""

    def __init__(
        self,
        told: asyncio.StreamReader,
        stdin: asyncio.StreamWriter | None,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader | None,
        transports: list[asyncio.BaseTransport],
        terminal: int | None,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._told = told
        self._transports = transports
        self._terminal = terminal

    @classmethod
    async def of(cls, told: int, ends: list[int], *, stdin: bool) -> Command:
        """From descriptors: the outcome, and one terminal or input, output and errors."""
        transports: list[asyncio.BaseTransport] = []
        outcome = await _reader(told, transports)
        terminal = os.dup(ends[0]) if len(ends) == 1 else None
        if terminal is None:
            input_end, output, errors = ends
            readers = await _reader(output, transports), await _reader(errors, transports)
        else:
            input_end = os.dup(terminal)
            readers = await _reader(ends[0], transports), None
        writer = None
        if stdin:
            writer = await _writer(input_end, transports)
        else:
            os.close(input_end)
        return cls(outcome, writer, readers[0], readers[1], transports, terminal)

    def resize(self, width: int, height: int) -> None:
        """The size of its terminal."""
        if self._terminal is not None and 0 < width < 65536 and 0 < height < 65536:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        """Its exit code."""
        said = await self._told.read()
        return int(said) if said else -1

    def close(self) -> None:
        """Lets go of it; what still runs is ended by its init."""
        for each in self._transports:
            each.close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


async def _reader(descriptor: int, transports: list[asyncio.BaseTransport]) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    transports.append(transport)
    return reader


async def _writer(descriptor: int, transports: list[asyncio.BaseTransport]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "wb", buffering=0)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    transports.append(transport)
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _container(pod: Json, wanted: str, also: str = "") -> str:
    spec = map_at(pod, "spec")
    names = [each["name"] for part in ("containers", "initContainers") for each in list_at(spec, part)]
    if not wanted:
        return names[0]
    if wanted not in (*names, also):
        raise BadRequestError(
            f"container {wanted} is not valid for pod {pod['metadata']['name']}", remedy=f"one of {', '.join(names)}"
        )
    return wanted


def _state(pod: Json, container: str) -> str:
    for each in list_at(map_at(pod, "status"), "containerStatuses"):
        if each.get("name") == container:
            for kind, state in map_at(each, "state").items():
                return f"{kind} {state.get('reason', '')}".strip()
    return "it has not been started"
