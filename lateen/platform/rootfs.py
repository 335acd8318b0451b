"""What a container sees of the machine: a root directory built from an allow-list.

A new tmpfs holds the system's program directories (read-only), the code that was asked for, the Pod's volumes, own
/proc, /tmp, /run and a small /dev; then it becomes the root and the machine's own root is let go. Homes, /root,
/run, other top-level directories and lateen's state are not covered but absent. A path to mount on that doesn't
exist is made on the tmpfs, never on the machine: a directory that is the machine's own is first replaced by a
tmpfs with the same entries.
"""

from __future__ import annotations

import os
import stat

import msgspec

from lateen.platform import syscalls

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix", "gnu", "sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs")


class Bind(msgspec.Struct, frozen=True):
    """`source`, a path of the machine, seen at `target`."""

    source: str
    target: str
    writable: bool = False


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A container's view: binds in the order given, and directories of the machine to leave out of them."""

    binds: tuple[Bind, ...]
    hidden: tuple[str, ...]
    scratch: tuple[str, ...] = ("/tmp", "/run", "/var/tmp", "/dev/shm")


class Builder:
    """Builds one root on the mount point `base`; call `enter` in the container's own mount and PID namespace."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._own: set[int] = set()

    def enter(self, root: Root) -> None:
        """Build the root and move into it."""
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        self._tmpfs(self._base, "mode=755,size=16m")
        for name in SYSTEM:
            source = f"/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), self._base + source)
            elif os.path.isdir(source):
                os.mkdir(self._base + source)
                syscalls.bind(source, self._base + source)
        scratch = tuple(f"{path}/" for path in root.scratch)
        early = [bind for bind in root.binds if not bind.writable and not bind.target.startswith(scratch)]
        late = [bind for bind in root.binds if not bind.writable and bind not in early]
        writable = [bind for bind in root.binds if bind.writable]
        for bind in early:
            syscalls.bind(bind.source, self._place_for(bind))
        self._cover(root.hidden)
        for bind in writable:
            if not bind.target.startswith(scratch):
                self._place_for(bind)
        for path in ("/proc", "/dev", "/root", "/home", *root.scratch):
            if path != "/dev/shm":
                self._place(path, directory=True)
        if not os.path.lexists(f"{self._base}/var/run"):
            os.symlink("/run", f"{self._base}/var/run")
        syscalls.mount_attributes(self._base, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID)
        self._devices()
        for path in root.scratch:
            self._tmpfs(self._base + path, "mode=1777")
        for bind in late:
            target = self._place_for(bind)
            syscalls.bind(bind.source, target)
            syscalls.mount_attributes(target, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID)
        if late:
            self._cover(root.hidden)
        for bind in writable:
            target = self._place_for(bind)
            syscalls.bind(bind.source, target)
            syscalls.mount_attributes(target, syscalls.MOUNT_ATTR_NOSUID)
        self._proc()
        syscalls.pivot_root(self._base)

    def _cover(self, hidden: tuple[str, ...]) -> None:
        """An empty directory in the place of each hidden one that a bind brought along."""
        for path in hidden:
            if os.path.isdir(self._base + path):
                self._tmpfs(self._base + path, "mode=755,size=1m")

    def _tmpfs(self, path: str, options: str) -> None:
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
        self._own.add(os.stat(path).st_dev)

    def _place_for(self, bind: Bind) -> str:
        return self._place(bind.target, directory=os.path.isdir(bind.source))

    def _place(self, path: str, *, directory: bool) -> str:
        """A mount point for `path` in the new root, made if it is missing; symlinks stay inside the new root."""
        here, parts = self._base, [part for part in path.split("/") if part]
        for _ in range(40 * (len(parts) + 1)):
            if not parts:
                return here
            name = parts.pop(0)
            if name == "..":
                here = os.path.dirname(here) if here != self._base else here
                continue
            following = f"{here}/{name}"
            try:
                mode = os.lstat(following).st_mode
            except FileNotFoundError:
                self._make(here, name, directory=directory or bool(parts))
            else:
                if stat.S_ISLNK(mode):
                    link = os.readlink(following)
                    here = self._base if link.startswith("/") else here
                    parts = [part for part in link.split("/") if part and part != "."] + parts
                    continue
            here = following
        raise OSError(f"{path}: too many symbolic links")

    def _make(self, parent: str, name: str, *, directory: bool) -> None:
        if os.stat(parent).st_dev not in self._own:
            self._mirror(parent)
        if directory:
            os.mkdir(f"{parent}/{name}", 0o755)
        else:
            os.close(os.open(f"{parent}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))

    def _mirror(self, path: str) -> None:
        """Replace a directory of the machine by a tmpfs with the same entries, so that others can be added."""
        original = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        source = f"/proc/self/fd/{original}"
        entries = list(os.scandir(source))
        self._tmpfs(path, "mode=755,size=4m")
        for entry in entries:
            target = f"{path}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)
                continue
            if entry.is_dir():
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
            syscalls.bind(entry.path, target)
        os.close(original)

    def _devices(self) -> None:
        path = f"{self._base}/dev"
        self._tmpfs(path, "mode=755,size=64k")
        for name in DEVICES:
            os.close(os.open(f"{path}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
            syscalls.bind(f"/dev/{name}", f"{path}/{name}")
        os.mkdir(f"{path}/shm")
        for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink(f"/proc/self/{target}", f"{path}/{name}")

    def _proc(self) -> None:
        path = f"{self._base}/proc"
        syscalls.mount("proc", path, "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        for name in READ_ONLY_PROC:
            target = f"{path}/{name}"
            if os.path.exists(target):
                syscalls.bind(target, target)
                syscalls.mount_attributes(target, syscalls.MOUNT_ATTR_RDONLY)
