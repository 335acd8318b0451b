"""Types are looked at by one thread at a time: two at once for the first time crash the process (msgspec 0.22)."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import random, sys, threading, time
from lateen.api.codec import decode_as
from lateen.api.mesh.config import MeshConfig
sys.setswitchinterval(1e-6)
def decode():
    time.sleep(random.random() * 0.003)
    decode_as({"discovery": "EAGER", "enableAutoMtls": False}, MeshConfig)
threads = [threading.Thread(target=decode) for _ in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
TIMES = 8
"""Without care more than half of the processes crash."""


def test_two_threads_meet_a_type_for_the_first_time() -> None:
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM]) for _ in range(TIMES)]
    assert [each.wait(60) for each in running] == [0] * TIMES
