"""What kubectl does with a running Pod: logs, exec and attach, port-forward.

Logs are an answer that goes on. Exec is a websocket whose messages begin with the number of a channel (0 input, 1
output, 2 errors, 3 the outcome, 4 the terminal's size, 255 a channel's end); port-forward is a websocket that carries
SPDY. Both are what kubectl 1.32 and newer speak; the SPDY upgrade of older ones is refused with a word on why.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/, KEP-4006 (SPDY to WebSockets).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from lateen.api.struct import Json
from lateen.apiserver.bodies import number
from lateen.apiserver.errors import ApiError, BadRequestError, NotFoundError
from lateen.apiserver.reading import truth
from lateen.apiserver.spdy import Data, Event, GoAway, Opened, Ping, Reset, Spdy, SpdyError

EXEC_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FORWARD_PROTOCOL: Final = "SPDY/3.1+portforward.k8s.io"
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK: Final = 32 * 1024
_STREAMS_MAX: Final = 1_000

_log = structlog.stdlib.get_logger("lateen.apiserver.streams")


class LogOptions(msgspec.Struct, frozen=True):
    """Which part of a log."""

    container: str = ""
    previous: bool = False
    follow: bool = False
    tail: int | None = None
    limit_bytes: int | None = None
    since: float | None = None
    """Seconds since the epoch; only lines that came then or later."""
    timestamps: bool = False


class ExecOptions(msgspec.Struct, frozen=True):
    """A command and how it is connected."""

    container: str
    argv: tuple[str, ...]
    stdin: bool
    tty: bool


class Running(Protocol):
    """A command that runs in a container. `stdout` and `stderr` end with it."""

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader | None

    def resize(self, width: int, height: int) -> None: ...
    async def wait(self) -> int:
        """Its exit code."""
        ...

    def close(self) -> None:
        """Lets go of it; what still runs is ended."""
        ...


class Pods(Protocol):
    """The machine's Pods. Each method raises an ApiError when it cannot be done."""

    async def log(self, namespace: str, name: str, options: LogOptions) -> AsyncGenerator[bytes]: ...
    async def execute(self, namespace: str, name: str, options: ExecOptions) -> Running: ...
    async def attach(self, namespace: str, name: str, container: str) -> Running: ...
    async def dial(self, namespace: str, name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...


def log_part(pods: Pods) -> Callable[[Request], Awaitable[Response]]:
    """Answers `pods/NAME/log`."""

    async def answer(request: Request) -> Response:
        query = request.query_params
        tail, limit = query.get("tailLines"), query.get("limitBytes")
        options = LogOptions(
            query.get("container", ""),
            truth(query.get("previous", "")),
            truth(query.get("follow", "")),
            number("tailLines", tail) if tail else None,
            number("limitBytes", limit) if limit else None,
            _since(query.get("sinceSeconds", ""), query.get("sinceTime", "")),
            truth(query.get("timestamps", "")),
        )
        params = request.path_params
        lines = await pods.log(params["namespace"], params["name"], options)
        return StreamingResponse(lines, media_type="text/plain")

    return answer


def _since(seconds: str, moment: str) -> float | None:
    if seconds and moment:
        raise BadRequestError("at most one of sinceTime and sinceSeconds is possible")
    if seconds:
        return time.time() - number("sinceSeconds", seconds)
    try:
        return dt.datetime.fromisoformat(moment).timestamp() if moment else None
    except ValueError:
        raise BadRequestError(f"sinceTime {moment!r} is no time", remedy="write 2026-01-31T10:00:00Z") from None


async def spdy_refused(request: Request) -> Response:
    """The answer to clients that ask for SPDY itself."""
    raise BadRequestError(
        "this server speaks websockets here, not SPDY: kubectl 1.32 or newer is needed",
        remedy="use a newer kubectl, and do not set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false",
    )


# -- exec ----------------------------------------------------------------------------------------------


async def execute(socket: WebSocket, pods: Pods, namespace: str, name: str) -> None:
    """Serves `pods/NAME/exec` over a websocket."""
    protocol = _protocol(socket)
    query = socket.query_params
    options = ExecOptions(
        query.get("container", ""),
        tuple(query.getlist("command")),
        truth(query.get("stdin", "")),
        truth(query.get("tty", "")),
    )
    if not options.argv:
        raise BadRequestError("you must specify at least 1 command for the container")
    await socket.accept(subprotocol=protocol)
    await _connected(socket, lambda: pods.execute(namespace, name, options))


async def attach(socket: WebSocket, pods: Pods, namespace: str, name: str) -> None:
    """Serves `pods/NAME/attach` over a websocket: what a container prints. It has no input and no terminal."""
    protocol = _protocol(socket)
    query = socket.query_params
    await socket.accept(subprotocol=protocol)
    if truth(query.get("stdin", "")) or truth(query.get("tty", "")):  # refused before, kubectl would try SPDY
        message = "containers have no input and no terminal here: attach without -i and -t, or exec, which has both"
        await _end(socket, _failure(message, BadRequestError.REASON))
        return
    await _connected(socket, lambda: pods.attach(namespace, name, query.get("container", "")))


def _protocol(socket: WebSocket) -> str:
    for each in EXEC_PROTOCOLS:
        if each in socket.scope["subprotocols"]:
            return each
    raise BadRequestError("none of the subprotocols is known", remedy=f"offer {EXEC_PROTOCOLS[0]}")


async def _connected(socket: WebSocket, begin: Callable[[], Awaitable[Running]]) -> None:
    """Passes on what goes in and comes out, until one side ends."""
    try:
        running = await begin()
    except ApiError as error:
        await _end(socket, _failure(str(error), error.REASON))
        return
    try:
        incoming = asyncio.create_task(_input(socket, running), name="exec input")
        outputs = [asyncio.create_task(_output(socket, _STDOUT, running.stdout), name="exec output")]
        if running.stderr is not None:
            outputs.append(asyncio.create_task(_output(socket, _STDERR, running.stderr), name="exec errors"))
        over = asyncio.ensure_future(asyncio.gather(*outputs))
        await asyncio.wait((incoming, over), return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            code = await running.wait()
            await _end(socket, _outcome(code))
        for each in (incoming, *outputs):
            each.cancel()
        await asyncio.gather(incoming, *outputs, return_exceptions=True)
    finally:
        running.close()


async def _input(socket: WebSocket, running: Running) -> None:
    """Passes on what the client sends until it goes."""
    while True:
        try:
            message = await socket.receive_bytes()
        except (WebSocketDisconnect, KeyError, RuntimeError):
            return
        if not message:
            continue
        channel, content = message[0], message[1:]
        if channel == _STDIN and running.stdin is not None:
            with contextlib.suppress(OSError):
                running.stdin.write(content)
                await running.stdin.drain()
        elif channel == _CLOSE and content[:1] == bytes([_STDIN]) and running.stdin is not None:
            running.stdin.close()
        elif channel == _RESIZE:
            with contextlib.suppress(msgspec.DecodeError, ValueError, KeyError):
                size = msgspec.json.decode(content, type=dict[str, int])
                running.resize(size["Width"], size["Height"])


async def _output(socket: WebSocket, channel: int, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        while content := await reader.read(_CHUNK):
            await socket.send_bytes(bytes([channel]) + content)


async def _end(socket: WebSocket, outcome: Json) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_bytes(bytes([_ERROR]) + msgspec.json.encode(outcome))
        await socket.close()


def _outcome(code: int) -> Json:
    if code == 0:
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    failed = _failure(f"command terminated with non-zero exit code: exit status {code}", "NonZeroExitCode")
    return {**failed, "details": {"causes": causes}}


def _failure(message: str, reason: str) -> Json:
    head: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason}


# -- port-forward --------------------------------------------------------------------------------------


async def forward(socket: WebSocket, pods: Pods, namespace: str, name: str) -> None:
    """Serves `pods/NAME/portforward` over a websocket: each connection is a pair of streams, data and errors."""
    if FORWARD_PROTOCOL not in socket.scope["subprotocols"]:
        raise BadRequestError("none of the subprotocols is known", remedy=f"offer {FORWARD_PROTOCOL}")
    await socket.accept(subprotocol=FORWARD_PROTOCOL)
    await _Forward(socket, pods, namespace, name).run()


class _Forward:
    def __init__(self, socket: WebSocket, pods: Pods, namespace: str, name: str) -> None:
        self._socket = socket
        self._pods = pods
        self._namespace = namespace
        self._name = name
        self._spdy = Spdy()
        self._errors: dict[str, int] = {}
        self._connections: dict[int, asyncio.Queue[Data | None]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    content = await self._socket.receive_bytes()
                    for event in self._spdy.receive(content):
                        await self._on(event, tasks)
            except (WebSocketDisconnect, KeyError, RuntimeError):
                pass
            except SpdyError as error:
                _log.warning("port-forward ended", pod=f"{self._namespace}/{self._name}", error=str(error))
                await self._socket.close(1002)
            for queue in self._connections.values():
                queue.put_nowait(None)

    async def _on(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        match event:
            case Opened(stream, headers):
                if len(self._connections) + len(self._errors) > _STREAMS_MAX:
                    await self._send(self._spdy.reset(stream))
                    return
                await self._send(self._spdy.accept(stream))
                request = headers.get("requestid", "")
                if headers.get("streamtype") == "error":
                    self._errors[request] = stream
                    return
                port = headers.get("port", "")
                self._connections[stream] = queue = asyncio.Queue[Data | None](maxsize=64)
                tasks.create_task(self._connection(stream, request, port, queue), name=f"forward {port}")
            case Data(stream, _, _):
                queue = self._connections.get(stream)
                if queue is not None:
                    await queue.put(event)
            case Reset(stream):
                queue = self._connections.get(stream)
                if queue is not None:
                    await queue.put(None)
            case Ping(frame):
                await self._send(frame)
            case GoAway():
                return

    async def _connection(self, stream: int, request: str, port: str, queue: asyncio.Queue[Data | None]) -> None:
        try:
            reader, writer = await self._pods.dial(self._namespace, self._name, number("port", port))
        except (ApiError, OSError) as error:
            await self._over(stream, request, f"an error occurred forwarding to port {port}: {error}")
            return
        sending = asyncio.create_task(self._outgoing(stream, reader), name="forward answers")
        try:
            while (data := await queue.get()) is not None:
                writer.write(data.content)
                await writer.drain()
                if data.end:
                    writer.write_eof()
                    break
            else:
                sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
        except OSError:
            sending.cancel()
        finally:
            writer.close()
            await self._over(stream, request, "")

    async def _outgoing(self, stream: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(_CHUNK):
                await self._send(self._spdy.data(stream, content))
        await self._send(self._spdy.data(stream, b"", end=True))

    async def _over(self, stream: int, request: str, error: str) -> None:
        self._connections.pop(stream, None)
        errors = self._errors.pop(request, None)
        if errors is not None:
            await self._send(self._spdy.data(errors, error.encode(), end=True))
        if error:
            await self._send(self._spdy.data(stream, b"", end=True))

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.send_bytes(frame)


def pod_not_found(namespace: str, name: str) -> ApiError:
    """For implementations of `Pods`."""
    return NotFoundError(f'pods "{name}" not found', remedy=f"kubectl get pods -n {namespace}")
