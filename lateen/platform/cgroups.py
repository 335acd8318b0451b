"""Memory and processor limits of containers, by cgroup, where this machine lets us set them.

Version 2 is taken when it has the controllers, else version 1, per controller. Without the right to make groups
(every rootless mesh that has no delegated group) there are no limits: `available` says so, and the node turns that
into a finding. Groups are `lateen-<mesh>/<Pod>/<container>` and go with the Pod.
"""

from __future__ import annotations

import contextlib
import os
import zlib

from lateen.platform.paths import PodPaths
from lateen.platform.pod import Limits

ROOT = "/sys/fs/cgroup"
PERIOD_US = 100_000


def _version_2() -> str | None:
    """The unified hierarchy, if memory and processor are controlled there."""
    with contextlib.suppress(OSError), open(f"{ROOT}/cgroup.controllers") as file:
        if {"memory", "cpu"} <= set(file.read().split()):
            return ROOT
    return None


def available() -> bool:
    """Whether limits can be set here."""
    if os.getuid() != 0:
        return False
    unified = _version_2()
    parents = [unified] if unified else [f"{ROOT}/memory", f"{ROOT}/cpu"]
    return all(os.path.isdir(parent) and os.access(parent, os.W_OK) for parent in parents)


def mesh_group(run: str) -> str:
    """The name of a mesh's own group, below which its Pods' groups are."""
    return f"lateen-{zlib.crc32(run.encode()):08x}"


class Cgroup:
    """The group of one container."""

    def __init__(self, paths: PodPaths, container: str, limits: Limits) -> None:
        self._path = f"{mesh_group(paths.run)}/{paths.uid}/{container}"
        self._limits = limits
        self._unified = _version_2()
        self._killed = 0

    def directories(self) -> tuple[str, ...]:
        """Make the group with its limits and return the directories to join; none when there is nothing to limit or
        no right to. OSError when a limit is refused."""
        limits = self._limits
        if (limits.memory_bytes is None and limits.cpus is None) or not available():
            return ()
        found: list[str] = []
        if limits.memory_bytes is not None:
            name = "memory.max" if self._unified else "memory.limit_in_bytes"
            found.append(self._set("memory", {name: str(limits.memory_bytes)}))
        if limits.cpus is not None:
            quota = max(1000, int(limits.cpus * PERIOD_US))
            v2, v1 = {"cpu.max": f"{quota} {PERIOD_US}"}, {"cpu.cfs_quota_us": str(quota)}
            found.append(self._set("cpu", v2 if self._unified else v1))
        return tuple(dict.fromkeys(found))

    def out_of_memory(self) -> bool:
        """Whether the memory limit has killed a process since this was last asked."""
        directory = f"{self._unified or f'{ROOT}/memory'}/{self._path}"
        name = "memory.events" if self._unified else "memory.oom_control"
        killed = 0
        with contextlib.suppress(OSError), open(f"{directory}/{name}") as file:
            killed = sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        before, self._killed = self._killed, killed
        return killed > before

    def _set(self, controller: str, values: dict[str, str]) -> str:
        if self._unified:
            parts = self._path.split("/")
            for depth in range(len(parts)):
                parent = "/".join((self._unified, *parts[:depth]))
                _write(f"{parent}/cgroup.subtree_control", "+memory +cpu")
                os.makedirs(f"{parent}/{parts[depth]}", exist_ok=True)
        directory = f"{self._unified or f'{ROOT}/{controller}'}/{self._path}"
        os.makedirs(directory, exist_ok=True)
        for name, value in values.items():
            _write(f"{directory}/{name}", value)
        return directory


def remove(run: str, uid: str | None = None) -> None:
    """Remove the groups of a Pod, or of the whole mesh, whose processes have ended."""
    unified = _version_2()
    for parent in [unified] if unified else [f"{ROOT}/memory", f"{ROOT}/cpu"]:
        top = f"{parent}/{mesh_group(run)}" if uid is None else f"{parent}/{mesh_group(run)}/{uid}"
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)
