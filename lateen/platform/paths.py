"""Where the platform's files are: a Pod's proxy has `<run>/pods/<uid>`, its init `<run>/inits/<uid>`.

`spec.json` is the PodSandbox, `pod.json` the process that runs it, `init.sock` its control socket, `volumes` the mount
point of its volumes, `root` an empty directory where containers' roots grow. They are apart from the proxy's
directory because the proxy sees that one. The marker is an environment variable that every process of a mesh
carries, so that `down` finds them whatever else is lost.
"""

from __future__ import annotations

import os

import msgspec

from lateen.lib.layout import Layout

MARKER = "LATEEN_PROCESS_OF"


class PodPaths(msgspec.Struct, frozen=True):
    """The files of one Pod under the mesh's run directory."""

    run: str
    uid: str

    @property
    def directory(self) -> str:
        return f"{self.run}/inits/{self.uid}"

    @property
    def proxy(self) -> str:
        return f"{self.run}/pods/{self.uid}"

    @property
    def spec(self) -> str:
        return f"{self.directory}/spec.json"

    @property
    def record(self) -> str:
        return f"{self.directory}/pod.json"

    @property
    def control(self) -> str:
        return f"{self.directory}/init.sock"

    @property
    def root(self) -> str:
        return f"{self.directory}/root"

    @property
    def volumes(self) -> str:
        return f"{self.directory}/volumes"


def marker(layout: Layout) -> dict[str, str]:
    """The environment variable that marks a process as one of that mesh."""
    return {MARKER: str(layout.state)}


def spawner_socket(run: str) -> str:
    """Where the mesh's spawner listens."""
    return f"{run}/platform.sock"


class Record(msgspec.Struct, frozen=True):
    """The init of a Pod: pid and start time (clock ticks since boot) name a process for good; `ip` is the Pod's."""

    pid: int
    start: int
    ip: str


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), field 22). ProcessLookupError when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def alive(record: Record) -> bool:
    """Whether that very process still runs."""
    try:
        return start_time(record.pid) == record.start
    except ProcessLookupError:
        return False


def read_record(paths: PodPaths) -> Record | None:
    """The Pod's record, None when there is none (or half of one)."""
    try:
        with open(paths.record, "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old or the new one."""
    with open(f"{path}.new", "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
    os.rename(f"{path}.new", path)


def recorded_pods(run: str) -> list[str]:
    """The uids of all Pods that the platform has files of."""
    try:
        return sorted(os.listdir(f"{run}/inits"))
    except FileNotFoundError:
        return []
