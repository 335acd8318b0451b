from __future__ import annotations

import asyncio

from lateen.xds.pace import LARGE_BYTES, UNREAD_MAX_BYTES, Pace


async def test_large_responses_wait_for_readers_and_small_ones_never() -> None:
    resumed: list[bool] = []
    pace = Pace(lambda: resumed.append(pace.full))
    written = [pace.made(1 << 20) for _ in range((UNREAD_MAX_BYTES >> 20) + 1)]
    assert pace.full
    pace.made(LARGE_BYTES - 1)()
    assert pace.full
    for each in written:
        each()
        each()  # more than once is once
    assert not pace.full
    assert resumed == [False]


async def test_what_a_slow_client_has_not_read_counts_no_longer() -> None:
    resumed = asyncio.Event()
    pace = Pace(resumed.set)
    for _ in range((UNREAD_MAX_BYTES >> 20) + 1):
        pace.made(1 << 20)
    assert pace.full
    async with asyncio.timeout(10):
        await resumed.wait()
    assert not pace.full
