"""The Linux calls that Python's standard library does not offer, by ctypes: namespaces, mounts, capabilities.

Each function raises OSError with the call's name and what it was called on, so that a failure deep in a Pod's
start says what was refused. Numbers are from the kernel's headers; those that differ by architecture are
looked up once.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
AT_RECURSIVE = 0x8000
AT_FDCWD = -100

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

SECUREBITS_LOCKED_NOROOT = 0b1111  # NOROOT, NO_SETUID_FIXUP, both locked

CAP_SETGID = 6
CAP_SETUID = 7
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_ADMIN = 21

SYS_MOUNT_SETATTR = 442
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(platform.machine(), -1)
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(platform.machine(), -1)

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind `fd`; `kind` is its CLONE_NEW flag."""
    _check(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    _check(_libc.mount(*arguments), f"mount {kind or flags} {source} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def bind(source: str, target: str, *, recursive: bool = True) -> None:
    """Make `source` visible at `target`, which must exist and be of the same sort (file or directory)."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def mount_attributes(target: str, attributes: int, *, recursive: bool = True) -> None:
    """Add MOUNT_ATTR flags to a mount, by default with everything mounted below it."""
    record = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    _check(
        _libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, record, len(record)),
        f"mount_setattr({attributes:#x}) {target}",
    )


def pivot_root(new_root: str) -> None:
    """Make the mount point `new_root` the root directory and let go of the old one."""
    os.chdir(new_root)
    _check(_libc.syscall(SYS_PIVOT_ROOT, b".", b"."), f"pivot_root {new_root}")
    umount(".")
    os.chdir("/")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *padded), f"prctl({option})")


def set_process_name(name: str) -> None:
    """The name that ps shows: at most 15 bytes."""
    _check(_libc.prctl(PR_SET_NAME, name.encode()[:15]), "prctl(PR_SET_NAME)")


def sethostname(name: str) -> None:
    """Name this UTS namespace."""
    raw = name.encode()[:64]
    _check(_libc.sethostname(raw, len(raw)), f"sethostname {name}")


def keep_capabilities(keep: tuple[int, ...], uid: int, gid: int) -> None:
    """Become `uid`:`gid` with no capability but `keep`, in such a way that no exec brings any back.

    `keep` survives exec as ambient capabilities. The caller must have CAP_SETPCAP.
    """
    last = int(_read("/proc/sys/kernel/cap_last_cap"))
    for capability in range(last + 1):
        if capability not in keep:
            prctl(PR_CAPBSET_DROP, capability)
    prctl(PR_SET_SECUREBITS, SECUREBITS_LOCKED_NOROOT)
    if os.getuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    bits = sum(1 << capability for capability in keep)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("=II", 0x20080522, 0)
    data = struct.pack("=6I", low, low, low, high, high, high)
    _check(_libc.syscall(SYS_CAPSET, header, data), "capset")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in keep:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
