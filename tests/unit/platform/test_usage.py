"""What Pods use, from real processes: a busy one, one whose children come and go, an idle one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lateen.lib.usage import Amount
from lateen.platform.pod import ContainerState, PodState
from lateen.platform.usage import Sampler

BUSY = "while True: pass"
SHORT = "import time; until = time.process_time() + 0.05; any(time.process_time() > until for _ in iter(int, 1))"
PARENT = f"""
import subprocess, sys
while True:
    subprocess.run([sys.executable, "-S", "-c", "{SHORT}"])
"""
IDLE = "import time; block = b'x' * (32 << 20); time.sleep(600)"
PROGRAMS = {"busy": BUSY, "parent": PARENT, "idle": IDLE}
LOOKS_S = 1.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def pod() -> Iterator[PodState]:
    running = {name: subprocess.Popen([sys.executable, "-c", text]) for name, text in PROGRAMS.items()}
    yield PodState(
        uid="one",
        namespace="default",
        name="one",
        ip="",
        pid=0,
        started_at=0,
        containers=tuple(ContainerState(name=name, phase="running", pid=each.pid) for name, each in running.items()),
    )
    for each in running.values():
        each.kill()
        each.wait()


def on_processor_s(pid: int) -> float:
    """How long a single-threaded process has run, by the scheduler's clock."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_what_processes_use(pod: PodState) -> None:
    pids = {each.name: each.pid for each in pod.containers}
    sampler = Sampler("here")
    before = {name: on_processor_s(pid) for name, pid in pids.items()}
    assert sampler.look([pod]).pods == {}  # nothing can be said after one look
    time.sleep(LOOKS_S)
    measured = sampler.look([pod])
    ran = {name: on_processor_s(pid) - before[name] for name, pid in pids.items()}
    used: dict[str, Amount] = dict(measured.pods["one"])
    assert used["busy"].cpus * measured.window_s == pytest.approx(ran["busy"], abs=3 * TICK_S)
    assert used["parent"].cpus * measured.window_s > ran["parent"] - 3 * TICK_S
    assert used["idle"].memory_bytes > 32 << 20
    assert measured.nodes["here"].cpus > 0
    assert measured.nodes["here"].memory_bytes > used["idle"].memory_bytes


def test_what_ended_children_took_is_their_parents(pod: PodState) -> None:
    (parent,) = (each for each in pod.containers if each.name == "parent")
    sampler = Sampler("here")
    own, taken = on_processor_s(parent.pid), 0.0
    sampler.look([pod])
    deadline = time.monotonic() + 60
    while taken < on_processor_s(parent.pid) - own + 0.3:  # much more than it works itself
        assert time.monotonic() < deadline, taken
        time.sleep(0.2)
        measured = sampler.look([pod])
        taken += measured.pods["one"]["parent"].cpus * measured.window_s


def test_a_container_that_has_started_again_is_another_one(pod: PodState) -> None:
    sampler = Sampler("here")
    sampler.look([pod])
    gone = PodState(
        uid="one",
        namespace="default",
        name="one",
        ip="",
        pid=0,
        started_at=0,
        containers=(ContainerState(name="busy", phase="running", pid=2**22 + 1),),
    )
    assert sampler.look([gone]).pods == {}
