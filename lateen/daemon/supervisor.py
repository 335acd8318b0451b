"""The supervisor: starts the processes of a mesh, restarts what ends, and takes them along when it ends itself.

    python -m lateen.daemon.supervisor SETTINGS-FILE

It is deliberately small: it reads no configuration of users and speaks to nobody, so that it has no reason to end.
Pods are not its children: they outlive it and every process it starts. A lock on `run/supervisor.lock` allows one
per mesh; `run/supervisor.json` says what runs, for `lateen ps`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import structlog

from lateen.daemon.process import log_json
from lateen.daemon.settings import Settings, read
from lateen.platform.paths import marker

PROGRAMS = ("controlplane", "agent", "node", "forwarder")
"""Modules of `lateen.daemon`, in starting order; stopped in reverse."""

_FIRST_DELAY_S = 0.05
_LAST_DELAY_S = 5.0
_STEADY_S = 10.0
_STOP_S = 5.0

_log = structlog.get_logger()


class ProcessState(msgspec.Struct, frozen=True):
    """One process as it is now: `pid` 0 while it waits for its restart, `ended` how it last ended."""

    name: str
    pid: int
    restarts: int
    started_at: float
    ended: str = ""


class SupervisorState(msgspec.Struct, frozen=True):
    """What `run/supervisor.json` holds."""

    pid: int
    processes: tuple[ProcessState, ...]


class Supervisor:
    """Runs the processes until it is told to stop."""

    def __init__(self, settings: Settings, settings_file: Path) -> None:
        self._settings = settings
        self._file = settings_file
        self._layout = settings.layout()
        self._states: dict[str, ProcessState] = {}
        self._children: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Returns after SIGTERM or SIGINT, when every process has ended."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        keepers = [asyncio.create_task(self._keep(name), name=name) for name in PROGRAMS]
        await stop.wait()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for name in reversed(PROGRAMS):
            await self._stop(name)
        (self._layout.run / "supervisor.json").unlink(missing_ok=True)

    async def _keep(self, name: str) -> None:
        delay_s = _FIRST_DELAY_S
        restarts = 0
        ended = ""
        while True:
            began = time.monotonic()
            with (self._layout.logs / f"{name}.log").open("ab") as log:
                child = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    f"lateen.daemon.{name}",
                    str(self._file),
                    str(os.getpid()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | marker(self._layout),
                    start_new_session=True,
                )
            self._children[name] = child
            self._publish(ProcessState(name, child.pid, restarts, time.time(), ended))
            code = await child.wait()
            ended = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            _log.warning("process ended", process=name, pid=child.pid, how=ended)
            self._publish(ProcessState(name, 0, restarts, time.time(), ended))
            if time.monotonic() - began > _STEADY_S:
                delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LAST_DELAY_S)
            restarts += 1

    async def _stop(self, name: str) -> None:
        child = self._children.get(name)
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await child.wait()
        except TimeoutError:
            _log.warning("process did not end in time", process=name, pid=child.pid)
            child.kill()
            await child.wait()

    def _publish(self, state: ProcessState) -> None:
        self._states[state.name] = state
        path = self._layout.run / "supervisor.json"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(SupervisorState(os.getpid(), tuple(self._states.values()))))
        temporary.replace(path)


def state(settings: Settings) -> SupervisorState | None:
    """What the mesh's supervisor last said, or None when none is running."""
    layout = settings.layout()
    if not running(settings):
        return None
    try:
        return msgspec.json.decode((layout.run / "supervisor.json").read_bytes(), type=SupervisorState)
    except (OSError, msgspec.DecodeError):
        return SupervisorState(0, ())


def running(settings: Settings) -> bool:
    """True while a supervisor of this mesh holds the lock."""
    try:
        with (settings.layout().run / "supervisor.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main() -> None:
    """Entry point of the process."""
    log_json()
    file = Path(sys.argv[1])
    settings = read(file)
    with (settings.layout().run / "supervisor.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"the mesh {settings.name} has a supervisor already")
        asyncio.run(Supervisor(settings, file).run())


if __name__ == "__main__":
    main()
