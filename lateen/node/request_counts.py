"""What the proxies of an agent count: read off their admin interfaces every few seconds, told as differences.

One small request to each Envoy, of a few lines: its statistics are filtered there. A proxy that does not answer in
time is left out of that round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lateen.lib.request_counts import FILTER, Report, RequestCount, parse, since
from lateen.node.trust import TrustFollower
from lateen.node.workload import Workload

INTERVAL_S: Final = 2.0
"""How often counts are read; how close together two changes may be and still be told apart."""
MAX_TARGETS: Final = 200
"""Targets of one report, those with the most requests: the control plane takes no more than 64 KiB at once."""
_ANSWER_S: Final = 1.0
_AT_ONCE: Final = 16
_PATH: Final = "/stats?filter=" + quote(FILTER, safe="")


class RequestCounts:
    """The counters of some proxies as they were last seen."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, RequestCount]] = {}

    async def look(self, proxies: Mapping[str, Path]) -> tuple[RequestCount, ...]:
        """What was counted since the last look, by target; of proxies (admin sockets by name) that were seen before."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def read(path: Path) -> dict[str, RequestCount] | None:
            async with slots:
                return await _read(path)

        answers = await asyncio.gather(*[read(each) for each in proxies.values()])
        seen: dict[str, dict[str, RequestCount]] = {}
        found: dict[str, RequestCount] = {}
        for name, answer in zip(proxies, answers, strict=True):
            before = self._seen.get(name)
            if (now := before if answer is None else answer) is not None:
                seen[name] = now
            if answer is not None and before is not None:
                for target, count in answer.items():
                    _add(found, since(before.get(target), count))
        self._seen = seen
        told = sorted((each for each in found.values() if each.requests), key=lambda each: -each.requests)
        return tuple(told[:MAX_TARGETS])


async def report(follower: TrustFollower, workloads: Callable[[], Collection[Workload]]) -> None:
    """Tells the control plane for ever what the proxies of some workloads count."""
    counts, loop = RequestCounts(), asyncio.get_running_loop()
    seen_at = loop.time()
    while True:
        await asyncio.sleep(INTERVAL_S)
        sockets = {each.spec.uid: Path(each.spec.admin_socket) for each in workloads() if each.spec.admin_socket}
        found, before, seen_at = await counts.look(sockets), seen_at, loop.time()
        if found:
            follower.report(Report(seen_at - before, found))


def _add(found: dict[str, RequestCount], more: RequestCount) -> None:
    there = found.get(more.target)
    if there is not None:
        more = RequestCount(
            more.target,
            there.requests + more.requests,
            there.client_errors + more.client_errors,
            there.server_errors + more.server_errors,
        )
    found[more.target] = more


async def _read(path: Path) -> dict[str, RequestCount] | None:
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(f"GET {_PATH} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
                raw = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = raw.partition(b"\r\n\r\n")
    return parse(body.decode(errors="replace")) if b" 200" in head.partition(b"\r\n")[0] else None
