"""The spawner: one small process per mesh that owns the fabric and forks an init for every Pod.

It is started as a fresh interpreter (the node has threads and a loop and never forks), enters its namespaces once
and answers requests on `platform.sock`. When it is killed the Pods go on; the next one joins the fabric they keep
alive. It knows no Pods but by their files: `spec.json` in, `pod.json` out.

    python -m lateen.platform.spawner RUN HIDDEN... < PlatformSettings as JSON

Exit code 0 means that a spawner serves (this process has moved to the background); otherwise standard error says why.
Requests: `create {uid}` -> {ip, pid}; `services {services}`; `sockets` (DNS UDP, DNS TCP, egress descriptors);
`collect {uid}` (files of an ended Pod are removed); `exit`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import shutil
import signal
import sys
from pathlib import Path

import msgspec

from lateen.platform import census, cgroups, fabric, init, nft, paths, reactor, syscalls, wire
from lateen.platform.paths import PodPaths, Record
from lateen.platform.pod import PodSandbox, ServiceVip
from lateen.platform.settings import PlatformSettings

START_TIMEOUT_S = 10

PROCESS_NAME = "lateen-spawner"


class Spawner:
    """The requests and what they need."""

    def __init__(self, run: str, hidden: tuple[str, ...], settings: PlatformSettings, lock: int) -> None:
        self._run = run
        self._hidden = hidden
        self._settings = settings
        self._lock = lock
        self._fabric = self._enter()
        self._nft = nft.Nft()
        self._services = self._read_services()
        self._used: dict[str, str] = {}
        self._next = fabric.addresses(settings)
        recorded: set[int] = set()
        for uid in paths.recorded_pods(run):
            record = paths.read_record(PodPaths(run, uid))
            if record and paths.alive(record):
                self._used[record.ip] = uid
                recorded.add(record.pid)
        for process in census.processes(os.environ.get(paths.MARKER, "")):
            if process.init and process.pid not in recorded:  # its spawner was killed before it wrote the record
                os.kill(process.pid, signal.SIGKILL)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        self.reactor = reactor.Reactor()
        signal.signal(signal.SIGTERM, lambda number, frame: self.reactor.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._server = wire.Server(self.reactor, wire.listen(paths.spawner_socket(run)), self._serve)

    def _enter(self) -> fabric.Fabric:
        """The fabric that running Pods keep alive, or a new one."""
        for uid in paths.recorded_pods(self._run):
            try:
                _, descriptors = wire.ask(PodPaths(self._run, uid).control, {"do": "fabric"})
            except OSError:
                continue
            return fabric.join(descriptors)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._table)
        return fabric.make(self._settings)

    @property
    def _table(self) -> str:
        """The file that holds the Services now in the kernel's table."""
        return f"{self._run}/services.json"

    def _read_services(self) -> tuple[ServiceVip, ...]:
        try:
            with open(self._table, "rb") as file:
                return msgspec.json.decode(file.read(), type=tuple[ServiceVip, ...])
        except FileNotFoundError:
            return ()

    def _serve(self, peer: wire.Peer, request: wire.Message, reply: wire.Reply) -> None:
        match request["do"]:
            case "create":
                self._create(str(request["uid"]), reply)
            case "services":
                self._set_services(msgspec.convert(request["services"], tuple[ServiceVip, ...]))
                reply()
            case "sockets":
                reply(fds=self._fabric.sockets)
            case "collect":
                self._collect(str(request["uid"]))
                reply()
            case "exit":
                reply()
                self.reactor.stop()
            case unknown:
                raise ValueError(f"no request is called {unknown}")

    def _set_services(self, services: tuple[ServiceVip, ...]) -> None:
        for batch in nft.services(self._services, services):
            self._nft.run(batch)
        self._services = services
        paths.write_file(self._table, msgspec.json.encode(services))

    def _address(self, wanted: str | None, uid: str) -> str:
        if wanted is not None:
            if self._used.get(wanted, uid) != uid:
                raise ValueError(f"the address {wanted} is in use by Pod {self._used[wanted]}")
            return wanted
        for _ in range(2):
            for ip in self._next:
                if ip not in self._used:
                    return ip
            self._next = fabric.addresses(self._settings)
        raise OSError(errno.EADDRNOTAVAIL, f"no address is free in {self._settings.pod_range}")

    def _create(self, uid: str, reply: wire.Reply) -> None:
        pod = PodPaths(self._run, uid)
        record = paths.read_record(pod)
        if record and paths.alive(record):
            raise ValueError(f"Pod {uid} is running already")
        with open(pod.spec, "rb") as file:
            spec = msgspec.json.decode(file.read(), type=PodSandbox)
        ip = self._address(spec.ip, uid)
        self._nft.run(nft.reached_by_itself(ip))
        ready_read, ready = os.pipe2(os.O_CLOEXEC)
        told_read, told = os.pipe2(os.O_CLOEXEC)
        middle = os.fork()
        if not middle:
            self._fork_init(spec, ip, pod, ready, told)
        os.close(ready)
        os.close(told)
        pid = int(os.read(told_read, 32) or b"0")
        os.close(told_read)
        os.waitpid(middle, 0)
        if not pid:
            os.close(ready_read)
            raise OSError("the Pod's process could not be forked")
        self._used[ip] = uid
        paths.write_file(pod.record, msgspec.json.encode(Record(pid, paths.start_time(pid), ip)))
        self.reactor.child(pid, lambda status: self._ended(uid, ip))
        timer = self.reactor.later(START_TIMEOUT_S, lambda: os.kill(pid, signal.SIGKILL))

        def told_ready(events: int) -> None:
            timer.cancel()
            data = os.read(ready_read, 4096)
            self.reactor.forget(ready_read)
            os.close(ready_read)
            if data == b".":
                reply({"ip": ip, "pid": pid})
            else:
                reply(error=data[1:].decode(errors="replace") or "the Pod's init ended before it was ready")

        self.reactor.watch(ready_read, reactor.READ, told_ready)

    def _fork_init(self, spec: PodSandbox, ip: str, pod: PodPaths, ready: int, told: int) -> None:
        """In the fork: make the PID namespace, fork the init into it, tell its pid and be gone."""
        try:
            syscalls.unshare(syscalls.CLONE_NEWPID)
            child = os.fork()
            if child:
                os.write(told, str(child).encode())
                os._exit(0)
            os.close(told)
            os.close(self._lock)
            self.reactor.close()
            self._server.detach()
            self._nft.close()
            init.run(spec, ip, self._fabric, pod, self._hidden, self._settings, ready)
        except BaseException as error:
            os.write(ready, f"!{type(error).__name__}: {error}".encode())
        finally:
            os._exit(1)

    def _ended(self, uid: str, ip: str) -> None:
        if self._used.get(ip) == uid:
            del self._used[ip]
        cgroups.remove(self._run, uid)

    def _collect(self, uid: str) -> None:
        pod = PodPaths(self._run, uid)
        record = paths.read_record(pod)
        if record and paths.alive(record):
            raise ValueError(f"Pod {uid} is still running")
        if record:
            self._ended(uid, record.ip)
        for directory in (pod.directory, pod.proxy):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(directory)


def main() -> None:
    """Start a spawner in the background, unless one serves already."""
    run, *hidden = sys.argv[1:]
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=PlatformSettings)
    lock = os.open(f"{run}/platform.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another spawner holds {run}/platform.lock")
    ready_read, ready = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(ready)
        message = b""
        while part := os.read(ready_read, 4096):
            message += part
        if message != b".":
            sys.exit(message.decode(errors="replace") or "the spawner ended before it was ready")
        return
    os.setsid()
    os.chdir("/")
    syscalls.set_process_name(PROCESS_NAME)
    log = os.open(f"{run}/platform.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    try:
        spawner = Spawner(run, tuple(str(Path(path).absolute()) for path in hidden), settings, lock)
    except Exception as error:
        os.write(ready, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    gc.collect()
    gc.freeze()
    os.write(ready, b".")
    os.close(ready)
    spawner.reactor.run()


if __name__ == "__main__":
    main()
