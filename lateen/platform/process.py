"""Starting one program of a Pod: a process with PID and mount namespaces of its own, the given root, and no
capabilities but those named.

The child is pid 1 of its namespace, so it sees and can signal only its own children, and their end is certain when
it ends. `start` returns at once; the child builds its root while the init goes on. If it can't execute the
program, the reason arrives on `error`, which closes silently on success.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import termios
from collections.abc import Mapping

import msgspec

from lateen.platform import syscalls
from lateen.platform.rootfs import Builder, Root

OPEN_FILES = 65536


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and with which rights. `base` is an empty directory for the new root to grow on."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    capabilities: tuple[int, ...]
    root: Root
    base: str
    cgroups: tuple[str, ...] = ()
    oom_score: int = 0
    """Added to the kernel's choice of what to kill first when memory runs out (0-1000): never an init before these."""


class Started(msgspec.Struct, frozen=True):
    """A process on its way: its pid (in the init's namespace), its output, and where a failure is told."""

    pid: int
    output: int
    error: int


def start(program: Program, pid_namespace: int) -> Started:
    """Fork and execute. `pid_namespace` is this process's own, to come back to."""
    output_read, output = os.pipe2(os.O_CLOEXEC)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if not pid:
        try:
            _execute(program, output)
        except BaseException as problem:
            os.write(error, f"{getattr(problem, 'errno', 0)} {problem}".encode()[:4096])
        finally:
            os._exit(127)
    syscalls.setns(pid_namespace, syscalls.CLONE_NEWPID)
    os.close(output)
    os.close(error)
    return Started(pid, output_read, error_read)


class Interactive(msgspec.Struct, frozen=True):
    """A process somebody talks to: its pid, and the other ends of its input, output and errors; with a terminal, all
    three are that."""

    pid: int
    ends: tuple[int, ...]


def start_in(pid: int, program: Program) -> Started:
    """Execute a program inside the container whose first process is `pid`; `root` and `base` are not used.

    Ending the returned process ends the program.
    """
    output_read, output = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    child = _fork_in(pid, program, (null, output, output), error)
    for fd in (null, output, error):
        os.close(fd)
    return Started(child, output_read, error_read)


def start_interactive(pid: int, program: Program, *, terminal: bool) -> Interactive:
    """Like `start_in`, connected to descriptors for somebody else. Why it could not start comes as its output."""
    if terminal:
        master, slave = os.openpty()
        child = _fork_in(pid, program, (slave, slave, slave), slave, terminal=True)
        os.close(slave)
        return Interactive(child, (master,))
    stdin, input_write = os.pipe2(os.O_CLOEXEC)
    output_read, output = os.pipe2(os.O_CLOEXEC)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    ends = (input_write, output_read, error_read)
    child = _fork_in(pid, program, (stdin, output, error), error)
    for fd in (stdin, output, error):
        os.close(fd)
    return Interactive(child, ends)


def _fork_in(pid: int, program: Program, streams: tuple[int, int, int], error: int, *, terminal: bool = False) -> int:
    namespaces = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in _KINDS]
    child = os.fork()
    if not child:
        try:
            _close_others({*streams, error, *(fd for fd, _ in namespaces)})
            for fd, kind in namespaces:
                syscalls.setns(fd, kind)
            inner = os.fork()
            if inner:
                code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
                os._exit(code if code >= 0 else 128 - code)
            _become(program, streams)
            if terminal:
                os.setsid()
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.execvpe(program.argv[0], program.argv, dict(program.env))  # noqa: S606
        except BaseException as problem:
            os.write(error, f"{getattr(problem, 'errno', 0)} {problem}".encode()[:4096])
        finally:
            os._exit(127)
    for fd, _ in namespaces:
        os.close(fd)
    return child


def _close_others(kept: set[int]) -> None:
    """Closes what the init has open, or a process that waits for another would keep its pipes from ending."""
    begin = 3
    for fd in sorted(kept):
        os.closerange(begin, fd)
        begin = max(begin, fd + 1)
    os.closerange(begin, OPEN_FILES)


_KINDS = (("pid", syscalls.CLONE_NEWPID), ("mnt", syscalls.CLONE_NEWNS))


def _execute(program: Program, output: int) -> None:
    for directory in program.cgroups:
        with open(f"{directory}/cgroup.procs", "w") as file:
            file.write("0")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(program.oom_score))
    os.setsid()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    Builder(program.base).enter(program.root)
    _become(program, (os.open("/dev/null", os.O_RDONLY), output, output))
    os.execvpe(program.argv[0], program.argv, dict(program.env))  # noqa: S606


def _become(program: Program, streams: tuple[int, int, int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    for target, source in enumerate(streams):
        os.dup2(source, target)
    limit = open_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.chdir(program.cwd)
    syscalls.keep_capabilities(program.capabilities, program.uid, program.gid)


def open_files() -> int:
    """How many files a program may have open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
