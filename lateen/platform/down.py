"""Ending a mesh's Pods and whatever is left of it: the last part of `lateen down`, also after a crash.

Pods are asked first, so that they drain; then every process that carries the mesh's marker is killed, found by
/proc alone, until none is left. Namespaces, links and rules go with their last process. What has no process is
removed by hand: control groups, sockets, Pod directories.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import time

import msgspec

from lateen.lib.layout import Layout
from lateen.platform import census, cgroups, paths
from lateen.platform.link import Link, LinkLost
from lateen.platform.paths import PodPaths
from lateen.platform.spawner import PROCESS_NAME

POLL_S = 0.005
KILL_TIMEOUT_S = 10
SLACK_S = 5


class Down(msgspec.Struct, frozen=True):
    """What was ended: Pods that stopped as asked, and the names of processes that had to be killed."""

    pods: int
    killed: tuple[str, ...]


async def down(layout: Layout, grace_s: float = 2) -> Down:
    """End everything of a mesh. To be called when its daemons have been asked to stop; calling it again is harmless.

    TimeoutError when a process can't be killed within 10 s.
    """
    run = str(layout.run)
    stopped = await asyncio.gather(*(_stop(run, uid, grace_s) for uid in paths.recorded_pods(run)))
    with contextlib.suppress(OSError, LinkLost):
        spawner = await Link.open(paths.spawner_socket(run))
        try:
            await spawner.ask({"do": "exit"})
        finally:
            await spawner.close()
        await _ended(str(layout.state), PROCESS_NAME)
    killed = await asyncio.to_thread(sweep, str(layout.state))
    cgroups.remove(run)
    for name in ("pods", "inits"):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(f"{run}/{name}")
    for name in ("platform.sock", "platform.lock", "services.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{run}/{name}")
    return Down(sum(stopped), killed)


async def _ended(state: str, command: str) -> None:
    """Waits until no process of that name is left, at most a second."""
    for _ in range(round(1 / POLL_S)):
        if all(process.command != command for process in census.processes(state)):
            return
        await asyncio.sleep(POLL_S)


def sweep(state: str) -> tuple[str, ...]:
    """Kill every process that carries the marker of the mesh with that state directory; their names.

    A process that is an ancestor of this one (a shell of the mesh's own making) is left alone.
    """
    spared = _ancestors()
    killed: list[str] = []
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while left := [process for process in census.processes(state) if process.pid not in spared]:
        with contextlib.ExitStack() as handles:
            waiting: list[tuple[census.Process, int]] = []
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    handle = os.pidfd_open(process.pid)
                    handles.callback(os.close, handle)
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    waiting.append((process, handle))
            for process, handle in waiting:
                _wait(process, handle, deadline)
                killed.append(process.command)
    return tuple(killed)


def _wait(process: census.Process, handle: int, deadline: float) -> None:
    """Wait until a process, and with an init all of its Pod, has ended."""
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    if not ended.poll(max(0, deadline - time.monotonic()) * 1000):
        raise TimeoutError(f"{process.command} ({process.pid}) can't be killed")


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getppid()
    while pid > 1:
        found.add(pid)
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


async def _stop(run: str, uid: str, grace_s: float) -> bool:
    record = paths.read_record(PodPaths(run, uid))
    try:
        link = await Link.open(PodPaths(run, uid).control)
    except OSError:
        return False
    try:
        async with asyncio.timeout(grace_s + SLACK_S):
            await link.ask({"do": "stop", "grace_s": grace_s})
            await link.ask({"do": "exit"})
            await link.lost.wait()
            while record and paths.alive(record):  # noqa: ASYNC110 - another process, not a child
                await asyncio.sleep(POLL_S)
    except (OSError, LinkLost, TimeoutError):
        return False
    finally:
        await link.close()
    return True
