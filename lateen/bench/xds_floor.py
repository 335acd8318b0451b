"""The floor of a push: the same bytes to the same number of streams by the same gRPC library, and nothing else.

    python -m lateen.bench.xds_floor SOCKET

Each line on standard input is a number of bytes: that much goes to every stream, and the line is answered when all have
answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from lateen.xds.server import OPTIONS, SERVICE


class Floor:
    """A server that broadcasts."""

    def __init__(self) -> None:
        self._queues: list[asyncio.Queue[bytes]] = []
        self._answers = 0
        self._heard = asyncio.Event()

    async def stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """One client: a task writes, this reads."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.append(queue)

        async def write() -> None:
            while True:
                await context.write(await queue.get())

        writer = asyncio.create_task(write())
        try:
            async for _ in requests:
                self._answers += 1
                self._heard.set()
        finally:
            writer.cancel()

    async def send(self, size: int) -> None:
        """Sends that many bytes to everybody and waits for all answers."""
        self._answers = 0
        for each in self._queues:
            each.put_nowait(bytes(size))
        while self._answers < len(self._queues):
            self._heard.clear()
            await self._heard.wait()


async def main(address: str) -> None:
    """Serves until standard input closes."""
    floor = Floor()
    server = grpc.aio.server(options=OPTIONS)
    method = grpc.stream_stream_rpc_method_handler(floor.stream)  # pyright: ignore[reportUnknownVariableType] (bytes)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": method})  # pyright: ignore[reportUnknownArgumentType]
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(address)
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        await floor.send(int(line))
        sys.stdout.write("sent\n")
        sys.stdout.flush()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
