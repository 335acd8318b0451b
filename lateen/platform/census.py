"""The processes of a mesh, found by their marker: what is left to stop when files and sockets are lost.

Every process of a mesh carries `LATEEN_PROCESS_OF=<state directory>` in its environment from its start, forks
included; /proc shows it to the same user and to root.
"""

from __future__ import annotations

import os

import msgspec

from lateen.platform.paths import MARKER


class Process(msgspec.Struct, frozen=True):
    """A process of a mesh. `init` says that it is process 1 of a PID namespace (a Pod's)."""

    pid: int
    command: str
    init: bool


def processes(state: str) -> list[Process]:
    """All processes of the mesh with that state directory but this one."""
    wanted = f"{MARKER}={state}".encode()
    found: list[Process] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            with open(f"/proc/{name}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        except OSError:
            continue
        numbers = status.get("NSpid", "").split()
        found.append(Process(int(name), status.get("Name", ""), len(numbers) == 2 and numbers[-1] == "1"))
    return found
