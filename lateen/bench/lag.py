"""How late an event loop wakes up. As a program: how late an idle one does, which is the machine's own share.

python -m lateen.bench.lag          prints p50, p99 and max in ms as JSON when standard input closes
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

TICK_S: Final = 0.005


async def measure(lags: list[float]) -> None:
    """Appends, every 5 ms, how many seconds late the loop woke up, until cancelled."""
    while True:
        start = time.perf_counter()
        await asyncio.sleep(TICK_S)
        lags.append(max(0.0, time.perf_counter() - start - TICK_S))


def percentile_ms(values: Sequence[float], share: float) -> float:
    """That percentile of values in seconds, in ms; 0 for none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) if ordered else 0.0


async def idle() -> dict[str, float]:
    """The lag of a loop with nothing to do, from now until standard input closes."""
    lags: list[float] = []
    task = asyncio.create_task(measure(lags))
    await asyncio.to_thread(sys.stdin.read)
    task.cancel()
    return {name: percentile_ms(lags, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(idle())) + "\n")
