"""What Pods use, from real processes: a busy one, one whose children come and go, an idle one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lateen.lib.usage import Amount
from lateen.platform.pod import ContainerState, PodState
from lateen.platform.usage import Sampler

BUSY = "while True: pass"
PARENT = """
import subprocess, sys
while True:
    subprocess.run([sys.executable, "-S", "-c", "import time\\nuntil = time.process_time() + 0.05\\nwhile time.process_time() < until: pass"])
"""
IDLE = "import time; block = bytearray(32 << 20); time.sleep(600)"
PROGRAMS = {"busy": BUSY, "parent": PARENT, "idle": IDLE}
LOOKS_S = 1.0


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


def test_what_processes_use(pod: PodState) -> None:
    sampler = Sampler("here")
    first = sampler.look([pod])
    assert first.pods == {}  # nothing can be said after one look
    before = time.process_time()
    time.sleep(LOOKS_S)
    measured = sampler.look([pod])
    used: dict[str, Amount] = dict(measured.pods["one"])
    assert time.process_time() - before < 0.5  # a look is cheap
    assert measured.window_s == pytest.approx(LOOKS_S, abs=0.5)
    assert used["idle"].cpus < 0.1
    assert used["idle"].memory_bytes > 32 << 20
    # two programs that take all they get, on a machine that others use too: what ended children took is theirs
    assert used["busy"].cpus > 0.1
    assert used["parent"].cpus > 0.1
    assert used["busy"].cpus <= 1.1
    assert measured.nodes["here"].cpus >= used["busy"].cpus
    assert measured.nodes["here"].memory_bytes > used["idle"].memory_bytes


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
