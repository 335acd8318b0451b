"""The supervisor as a process, over the real programs of a mesh; no Pod is started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lateen.apiserver.client import Client
from lateen.daemon import settings as settings_module
from lateen.daemon import supervisor
from lateen.daemon.lifecycle import down, up
from lateen.daemon.settings import Settings
from lateen.daemon.supervisor import PROGRAMS, ProcessState
from lateen.platform.paths import marker


def until(done: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def started() -> Iterator[tuple[Settings, Path, subprocess.Popen[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:
        flags = {"name": "sup", "state_dir": f"{directory}/a state", "run_dir": f"{directory}/r"}
        ports = dict.fromkeys(("gateway_port", "https_port", "console_port", "debug_port", "api_port", "xds_port"), 0)
        settings = settings_module.load(None, {}, {**flags, **ports})
        layout = settings.layout()
        for path in (layout.state, layout.run, layout.logs, layout.run / "pods"):
            path.mkdir()
        file = settings_module.write(settings)
        process = start(settings, file)
        yield settings, file, process
        if process.poll() is None:
            process.terminate()
        process.wait()
        asyncio.run(down(settings, lambda _: None))


def start(settings: Settings, file: Path) -> subprocess.Popen[bytes]:
    with (settings.layout().logs / "supervisor.log").open("ab") as log:
        program = [sys.executable, "-m", "lateen.daemon.supervisor", str(file)]
        return subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)


def processes(settings: Settings) -> dict[str, ProcessState]:
    found = supervisor.state(settings)
    return {each.name: each for each in found.processes} if found is not None else {}


def all_run(settings: Settings) -> bool:
    found = processes(settings)
    return set(found) == set(PROGRAMS) and all(each.pid and alive(each.pid) for each in found.values())


def test_what_ends_is_started_again_and_all_end_with_it(
    started: tuple[Settings, Path, subprocess.Popen[bytes]],
) -> None:
    settings, file, process = started
    until(lambda: all_run(settings))
    before = processes(settings)
    environment = Path(f"/proc/{before['controlplane'].pid}/environ").read_bytes()
    for key, value in marker(settings.layout()).items():
        assert f"{key}={value}".encode() in environment.split(b"\0")
    # A second one for the same mesh ends and disturbs nothing.
    assert start(settings, file).wait() == 1
    for name in PROGRAMS:
        os.kill(before[name].pid, signal.SIGKILL)
        until(lambda name=name: processes(settings)[name].restarts > 0 and all_run(settings))
        after = processes(settings)[name]
        assert after.pid != before[name].pid
        assert after.ended == "signal SIGKILL"
    pids = [each.pid for each in processes(settings).values()]
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert not any(map(alive, pids))
    assert not supervisor.running(settings)
    assert supervisor.state(settings) is None


def test_killed_by_force_it_takes_its_processes_along(
    started: tuple[Settings, Path, subprocess.Popen[bytes]],
) -> None:
    settings, _, process = started
    until(lambda: all_run(settings))
    pids = [each.pid for each in processes(settings).values()]
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, pids)))
    assert not supervisor.running(settings)


def test_restarts_of_the_past_do_not_keep_up_from_finding_the_mesh_ready(
    started: tuple[Settings, Path, subprocess.Popen[bytes]],
) -> None:
    settings, _, _ = started
    until(lambda: all_run(settings))
    for count in range(1, 5):
        os.kill(processes(settings)["controlplane"].pid, signal.SIGKILL)
        until(lambda count=count: processes(settings)["controlplane"].restarts >= count and all_run(settings))
    said: list[str] = []
    asyncio.run(up(settings, said.append, demo=False))
    assert said[0] == "the mesh sup runs already"


def test_up_waits_for_the_processes_of_a_killed_supervisor(
    started: tuple[Settings, Path, subprocess.Popen[bytes]],
) -> None:
    settings, file, process = started
    until(lambda: all_run(settings))
    pids = [each.pid for each in processes(settings).values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    awake = threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGCONT) for pid in pids])
    awake.start()
    code = "import asyncio, sys; from pathlib import Path; from lateen.daemon import lifecycle, settings\n"
    code += "asyncio.run(lifecycle.up(settings.read(Path(sys.argv[1])), print, demo=False))"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    awake.join()
    assert done.returncode == 0, done.stderr
    assert not any(map(alive, pids))
    assert all_run(settings)


def test_up_does_not_wait_for_a_job_that_ended_before_the_last_down(
    started: tuple[Settings, Path, subprocess.Popen[bytes]],
) -> None:
    settings, _, _ = started

    async def ended() -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "done", "namespace": "default"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "command": ["true"]}]},
        }
        async with Client(settings.layout().api_socket) as client:
            await client.create(pod)
            await client.replace_status({**pod, "status": {"phase": "Succeeded"}})
        await up(settings, lambda _: None, demo=False)

    until(lambda: all_run(settings))
    asyncio.run(up(settings, lambda _: None, demo=False))
    asyncio.run(ended())
