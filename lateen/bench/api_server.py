"""The API alone in a process, for `lateen.bench.api`: a store, the application, a Unix socket.

    python -m lateen.bench.api_server STORE SOCKET

Prints one line of JSON when it serves (`start_s`: from the start of the program, with everything loaded; `import_s` of
that is Python's imports, `cpu_s` what it cost the processor), and one for each line that is sent to it: how late its
loop woke up since the line before.
"""

from __future__ import annotations

import time

BEGUN = time.monotonic()

import asyncio  # noqa: E402
import contextlib  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from lateen.api.check import check  # noqa: E402
from lateen.apiserver import rbac  # noqa: E402
from lateen.apiserver.http import application, identified, owner  # noqa: E402
from lateen.apiserver.operations import Create  # noqa: E402
from lateen.apiserver.serving import serve, unix_listener  # noqa: E402
from lateen.apiserver.store import Store  # noqa: E402
from lateen.apiserver.transactions import ref_of  # noqa: E402
from lateen.bench.lag import measure, percentile_ms  # noqa: E402
from lateen.lib.findings import Finding  # noqa: E402
from lateen.lib.ids import Ref  # noqa: E402


async def _nothing(_: Sequence[Ref]) -> Sequence[Finding]:
    return ()


async def main(path: Path, socket: Path) -> None:
    """Serves until standard input closes."""
    imported = time.monotonic()
    store = await Store.open(path)
    missing = [each for each in rbac.initial() if store.get(ref_of(each)) is None]
    await store.write([Create(each) for each in missing])
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)  # as the control plane does
    app = application(store, check=check, analyse=_nothing, ready=lambda: True)
    listener = unix_listener(socket)
    task = asyncio.create_task(serve(identified(app, owner), listener))
    lags: list[float] = []
    lag = asyncio.create_task(measure(lags))
    now = time.monotonic()
    times = {"start_s": now - BEGUN, "import_s": imported - BEGUN, "cpu_s": time.process_time()}
    _say({name: round(each, 3) for name, each in times.items()})
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        _say({name: percentile_ms(lags, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))})
        lags.clear()
    for each in (lag, task):
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each
    await store.close()


def _say(what: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
