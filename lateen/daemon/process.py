"""What every process of a mesh does first: read the settled settings, log as one JSON line per event, and end when
the supervisor ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import structlog

from lateen.daemon.settings import Settings, read
from lateen.lib.errors import LateenError

_PR_SET_PDEATHSIG = 1
_TRIM_S = 30.0


Serve = Callable[[Settings], Awaitable[None]]


def main(serve: Serve) -> None:
    """Entry point of a process: `run` with the settings that its command line names: [settings file, supervisor's
    pid]. An error that somebody can mend is its last line, without a traceback."""
    settings = _enter()
    try:
        run(lambda: serve(settings))
    except LateenError as error:
        sys.exit(f"{error}: {error.remedy}")


def run(serve: Callable[[], Awaitable[None]]) -> None:
    """`serve` until SIGTERM or SIGINT. LateenError when it ends with errors that somebody can mend."""

    async def until_told() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve()

    try:
        asyncio.run(until_told())
    except* LateenError as group:
        found = [each for each in _leaves(group) if isinstance(each, LateenError)]
        raise LateenError("; ".join(map(str, found)), remedy="; ".join(each.remedy for each in found)) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield each


def _enter() -> Settings:
    file, parent = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the supervisor is gone")
    log_json()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what it starts sets its own, or is ours too
    return read(Path(file))


async def return_memory() -> None:
    """Gives free memory back to the system from time to time, until cancelled: what many connections needed once
    stays with the C library otherwise. Without effect where it is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(_TRIM_S)
        await asyncio.to_thread(trim, 0)


def open_files() -> int:
    """How many files and connections this process may have open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def log_json() -> None:
    """Structured logs on stderr, one JSON object per line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
