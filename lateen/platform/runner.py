"""The life of one container: started, probed, logged, restarted with back-off, ended.

A `Runner` knows nothing of its Pod but what it is given: how to start the program, and whom to tell that its state
changed or that it has ended for good. The first restart is immediate, further ones wait twice as long each time;
a run that lasted long enough starts over.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable

import msgspec

from lateen.platform import probe as probing
from lateen.platform.logs import LogWriter
from lateen.platform.pod import Container, ContainerState, Ended, Exec, HttpGet, Probe, Restart, Sleep, TcpSocket
from lateen.platform.process import Started
from lateen.platform.reactor import READ, Reactor, Timer

_LAST_READS = 64
START_FAILED = 128
START_FAILURES = {errno.ENOENT: 127, errno.EACCES: 126, errno.ENOEXEC: 126}  # as shells have it


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Waits between restarts: 0, then `first_s` doubling up to `max_s`; forgotten after a run of `reset_s`."""

    first_s: float
    max_s: float
    reset_s: float

    def wait_s(self, failures: int) -> float:
        """The wait before the restart that follows that many ends in a row."""
        return 0 if failures <= 1 else min(self.max_s, self.first_s * 2 ** min(failures - 2, 30))


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What a Runner needs from its Pod: `start` the program, `execute` one inside it, whether the memory limit
    killed it, and whom to tell."""

    reactor: Reactor
    ip: str
    start: Callable[[], Started]
    execute: Callable[[int, tuple[str, ...]], Started]
    out_of_memory: Callable[[], bool]
    changed: Callable[[], None]
    ended: Callable[[Runner], None]


class Repeated:
    """One probe over the life of one run: `passed(ok)` is told when its thresholds are reached."""

    def __init__(self, host: Host, probe: Probe, pid: int, passed: Callable[[bool, str], None]) -> None:
        self._host = host
        self._probe = probe
        self._pid = pid
        self._passed = passed
        self._streak = 0
        self._attempt: probing.Attempt | None = None
        self._began = 0.0
        self._timer = host.reactor.later(probe.initial_delay_s, self._try)

    def stop(self) -> None:
        """Probe no more."""
        self._timer.cancel()
        if self._attempt:
            self._attempt.cancel()

    def _try(self) -> None:
        self._began = time.monotonic()
        self._attempt = probing.attempt(
            self._host.reactor,
            self._probe.handler,
            self._host.ip,
            self._probe.timeout_s,
            lambda command: self._host.execute(self._pid, command),
            self._result,
        )

    def _result(self, ok: bool, what: str) -> None:
        self._attempt = None
        rest_s = self._began + self._probe.period_s - time.monotonic()
        self._timer = self._host.reactor.later(max(0, rest_s), self._try)
        self._streak = (max(self._streak, 0) + 1) if ok else (min(self._streak, 0) - 1)
        if self._streak >= self._probe.success_threshold:
            self._passed(True, what)
        elif -self._streak >= self._probe.failure_threshold:
            self._passed(False, what)


class Runner:
    """One container. `begin()` starts it, `end()` stops it for good; `state` is what to report."""

    def __init__(self, container: Container, host: Host, backoff: Backoff, log: LogWriter, waiting: str) -> None:
        self.container = container
        self.patient = False
        """A failing startup probe is reported instead of ending the program."""
        self._host = host
        self._backoff = backoff
        self._log = log
        self._state = ContainerState(name=container.name, phase="waiting", reason=waiting, init=container.init)
        self._failures = 0
        self._runs = 0
        self._begun_at = 0.0
        self._probes: list[Repeated] = []
        self._retry: Timer | None = None
        self._kill: Timer | None = None
        self._why = ""
        self._output_fd = -1
        self._for_sigterm = False
        self._stopping = False
        self._error = b""
        self._error_fd = -1

    @property
    def state(self) -> ContainerState:
        return self._state

    @property
    def finished(self) -> bool:
        """Whether it will not run again."""
        return self._state.phase == "terminated"

    @property
    def succeeded(self) -> bool:
        """Whether it has ended for good with exit code 0."""
        return self.finished and self._state.last is not None and self._state.last.exit_code == 0

    def begin(self) -> None:
        """Start the program now."""
        if self._stopping or self._state.phase == "running":
            return
        if self._retry:
            self._retry.cancel()
        self._retry = None
        self._log.begin(self._runs)
        self._begun_at = time.time()
        self._error = b""
        try:
            started = self._host.start()
        except OSError as error:
            self._after(Ended(exit_code=START_FAILED, reason="StartError", message=str(error), **self._times()))
            return
        self._set(
            phase="running",
            reason="",
            message="",
            pid=started.pid,
            started=False,
            ready=False,
            started_at=self._begun_at,
            retry_at=0,
            restarts=self._runs,
        )
        self._runs += 1
        self._why = ""
        self._for_sigterm = False
        self._output_fd = started.output
        self._host.reactor.watch(started.output, READ, lambda events: self._output(started.output))
        self._error_fd = started.error
        self._host.reactor.watch(started.error, READ, lambda events: self._told())
        self._host.reactor.child(started.pid, self._exited)

    def restart(self, why: str, grace_s: float) -> None:
        """End this run; the next one follows by the restart policy, at once if it was waiting."""
        if self._state.phase == "running":
            self._why = why
            self._terminate(grace_s)
        elif self._state.phase == "waiting" and self._retry:
            self.begin()

    def end(self, grace_s: float) -> None:
        """Stop for good: pre_stop, SIGTERM, SIGKILL when `grace_s` is over. `ended` is told."""
        if self._stopping:
            self._terminate(grace_s)
            return
        self._stopping = True
        if self._retry:
            self._retry.cancel()
        if self._state.phase != "running":
            if not self.finished:
                self._set(phase="terminated", reason="Stopped", retry_at=0)
                self._host.ended(self)
            return
        hook = self.container.pre_stop
        if hook is None or grace_s <= 0:
            self._terminate(grace_s)
        else:
            self._pre_stop(hook, grace_s)

    def _pre_stop(self, hook: Exec | HttpGet | TcpSocket | Sleep, grace_s: float) -> None:
        began = time.monotonic()

        def over(ok: bool, what: str) -> None:
            if not ok:
                self._log.write(f"lateen: pre-stop hook failed: {what}\n".encode())
            self._terminate(max(2, grace_s - (time.monotonic() - began)))

        if isinstance(hook, Sleep):
            self._host.reactor.later(min(hook.seconds, grace_s), lambda: over(True, ""))
            return
        pid = self._state.pid
        probing.attempt(
            self._host.reactor, hook, self._host.ip, grace_s, lambda argv: self._host.execute(pid, argv), over
        )

    def _terminate(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL. The kernel drops a SIGTERM that pid 1 of a namespace has no handler for, where any
        other process would end: then nothing is gained by waiting."""
        self._stop_probes()
        if self._state.phase != "running":
            return
        if self._kill:
            self._kill.cancel()
        pid = self._state.pid
        if grace_s > 0 and _handles(pid, signal.SIGTERM):
            os.kill(pid, signal.SIGTERM)
            self._kill = self._host.reactor.later(grace_s, lambda: os.kill(pid, signal.SIGKILL))
        else:
            self._kill = None
            self._for_sigterm = grace_s > 0
            os.kill(pid, signal.SIGKILL)

    def _output(self, fd: int) -> None:
        data = os.read(fd, 65536)
        if data:
            self._log.write(data)
        else:
            self._host.reactor.forget(fd)
            os.close(fd)
            if fd == self._output_fd:
                self._output_fd = -1

    def _last_words(self) -> str:
        """The last line that the run printed, with what is still in the pipe."""
        for _ in range(_LAST_READS):  # a child of the program may go on printing
            if self._output_fd < 0 or not select.select([self._output_fd], [], [], 0)[0]:
                break
            self._output(self._output_fd)
        return self._log.last_line

    def _told(self) -> None:
        """The start failed (data) or the program has been executed (the end of the file)."""
        data = os.read(self._error_fd, 4096)
        self._error += data
        if not data:
            self._host.reactor.forget(self._error_fd)
            os.close(self._error_fd)
            self._error_fd = -1
            if not self._error:
                self._running()

    def _running(self) -> None:
        """The program has been executed: probe it."""
        container = self.container
        if container.startup:
            self._watch(container.startup, self._startup)
        else:
            self._startup(True, "")

    def _startup(self, ok: bool, what: str) -> None:
        if not ok and self.patient:
            self._say(f"not ready: {what}")
        elif not ok:
            self._fail("startup", what, self.container.startup)
        elif not self._state.started:
            self._stop_probes()
            self._set(started=True, ready=self.container.readiness is None, message="")
            if self.container.readiness:
                self._watch(self.container.readiness, self._ready)
            if self.container.liveness:
                self._watch(self.container.liveness, self._live)

    def _watch(self, probe: Probe, passed: Callable[[bool, str], None]) -> None:
        self._probes.append(Repeated(self._host, probe, self._state.pid, passed))

    def _ready(self, ok: bool, what: str) -> None:
        if ok != self._state.ready:
            self._set(ready=ok)
        self._say("" if ok else f"readiness probe failed: {what}")

    def _live(self, ok: bool, what: str) -> None:
        if not ok:
            self._fail("liveness", what, self.container.liveness)

    def _fail(self, kind: str, what: str, probe: Probe | None) -> None:
        grace_s = probe.termination_grace_s if probe and probe.termination_grace_s is not None else 30
        self.restart(f"{kind} probe failed: {what}", grace_s)

    def _stop_probes(self) -> None:
        for probe in self._probes:
            probe.stop()
        self._probes.clear()

    def _exited(self, status: int) -> None:
        if self._kill:
            self._kill.cancel()
            self._kill = None
        while self._error_fd >= 0:
            self._told()
        self._stop_probes()
        code = os.waitstatus_to_exitcode(status)
        code = 128 + signal.SIGTERM if self._for_sigterm else 128 - code if code < 0 else code
        reason, message = ("Completed", "") if code == 0 else ("Error", self._why or self._last_words())
        if self._error:
            number, _, text = self._error.decode(errors="replace").partition(" ")
            reason, message, code = "StartError", text, START_FAILURES.get(int(number), START_FAILED)
        elif code == 128 + signal.SIGKILL and self._host.out_of_memory():
            reason = "OOMKilled"
        self._after(Ended(exit_code=code, reason=reason, message=message, **self._times()))

    def _after(self, last: Ended) -> None:
        policy: Restart = self.container.restart
        if last.finished_at - last.started_at >= self._backoff.reset_s:
            self._failures = 0
        self._failures += 1
        self._set(pid=0, started=False, ready=False, last=last)
        again = policy == "Always" or (policy == "OnFailure" and last.exit_code != 0)
        if self._stopping or not again:
            self._set(phase="terminated", reason=last.reason, message=last.message)
            self._log.close()
            self._host.ended(self)
            return
        wait_s = self._backoff.wait_s(self._failures)
        reason = "CrashLoopBackOff" if wait_s else "Restarting"
        self._set(phase="waiting", reason=reason, message=last.message, retry_at=time.time() + wait_s)
        self._retry = self._host.reactor.later(wait_s, self.begin)

    def _say(self, message: str) -> None:
        if message != self._state.message:
            self._set(message=message)

    def _times(self) -> dict[str, float]:
        return {"started_at": self._begun_at, "finished_at": time.time()}

    def _set(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        self._host.changed()


def _handles(pid: int, number: int) -> bool:
    """Whether a process catches a signal."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
