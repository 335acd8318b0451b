"""The init of a Pod: process 1 of its PID namespace, owner of its network, parent of its containers.

Forked by the spawner, it outlives spawner and node: it restarts what crashes, runs the probes, writes the logs and
tells its state to whoever connects to `init.sock`. It also holds the fabric's descriptors, so the network between
Pods lives as long as any Pod. Start order: proxy, when that is ready the init containers one by one, then the
applications. Stop order: applications, then the proxy drains and ends. Without running applications (a Job that is
done) the proxy is stopped too and the init stays to say how it went, until it is told to exit.

Requests on the socket: `stop {grace_s}` (answered when all is stopped), `exit`, `restart {container, grace_s}`,
`exec {container, argv, timeout_s}`, `attach {container, argv, terminal}` and `dial {port}` (both hand descriptors
over), `lock {on}` (the way out past the proxy), `fabric` and `sockets` (descriptors for a new spawner, agent or
forwarder).
"""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

import msgspec

from lateen.platform import fabric as network
from lateen.platform import handing, nft, probe, process, syscalls, view, wire
from lateen.platform.cgroups import Cgroup
from lateen.platform.draining import admin_request, no_connections, no_requests
from lateen.platform.logs import LogWriter
from lateen.platform.netlink import Netlink
from lateen.platform.paths import PodPaths
from lateen.platform.pod import Container, HttpGet, PodSandbox, PodState, Probe, Proxy
from lateen.platform.reactor import Reactor, Timer
from lateen.platform.runner import Backoff, Host, Runner
from lateen.platform.settings import PlatformSettings

PROXY = "istio-proxy"
DRAIN_POLL_S = 0.1
EXEC_BYTES = 1 << 20


def run(
    spec: PodSandbox,
    ip: str,
    fabric: network.Fabric,
    paths: PodPaths,
    hidden: tuple[str, ...],
    settings: PlatformSettings,
    ready: int,
) -> NoReturn:
    """Be the init of a Pod. Called in a fresh fork that is pid 1 of a new PID namespace and still in the fabric.

    One byte on `ready` says that the network is up and the socket listens; anything else there is why not.
    """
    try:
        own_pids = _isolate(spec, ip, paths, settings)
        listener = wire.listen(paths.control)
        pod = Pod(spec, ip, fabric, paths, hidden, settings, own_pids)
        wire_server = wire.Server(pod.reactor, listener, pod.serve, pod.joined)
        pod.server = wire_server
    except Exception as error:
        os.write(ready, f"!{type(error).__name__}: {error}".encode())
        os._exit(1)
    os.write(ready, b".")
    os.close(ready)
    pod.begin()
    pod.reactor.run()
    wire_server.close()
    os._exit(0)


def _isolate(spec: PodSandbox, ip: str, paths: PodPaths, settings: PlatformSettings) -> int:
    """Enter the Pod's own namespaces, with network, rules, volumes and own /proc; the fd of its PID namespace."""
    os.setsid()
    syscalls.set_process_name(f"pod-{spec.name}")
    with Netlink() as netlink:
        syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
        network.attach(netlink, ip, settings)
    syscalls.sethostname(spec.hostname or spec.name)
    rules = nft.Nft()
    rules.run(nft.capture(spec.redirect, settings) if spec.redirect else nft.real_names(settings))
    rules.close()
    _lock(spec, settings, on=spec.locked)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    view.prepare(spec, ip, paths, settings)
    return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)


def _lock(spec: PodSandbox, settings: PlatformSettings, *, on: bool) -> None:
    rules = nft.Nft()
    try:
        rules.run(nft.lock(settings, on=on, proxied=spec.proxy is not None))
    finally:
        rules.close()


class Pod:
    """The order of things in one Pod."""

    def __init__(
        self,
        spec: PodSandbox,
        ip: str,
        fabric: network.Fabric,
        paths: PodPaths,
        hidden: tuple[str, ...],
        settings: PlatformSettings,
        own_pids: int,
    ) -> None:
        self.reactor = Reactor()
        self.server: wire.Server | None = None
        self._spec = spec
        self._ip = ip
        self._fabric = fabric
        self._rootless = fabric.user is not None
        self._paths = paths
        self._hidden = hidden
        self._settings = settings
        self._own_pids = own_pids
        self._started_at = time.time()
        self._changed = False
        self._locked = spec.locked
        self._stale: set[wire.Peer] = set()
        self._stopping = False
        self._when_stopped: list[wire.Reply] = []
        self._drained: Timer | None = None
        self.reactor.idle = self._publish
        signal.signal(signal.SIGTERM, lambda number, frame: self.reactor.later(0, lambda: self._stop(spec.grace_s)))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        waiting = "ProxyStarting" if spec.proxy else "PodInitializing"
        backoff = Backoff(
            first_s=settings.backoff_first_s, max_s=settings.backoff_max_s, reset_s=settings.backoff_reset_s
        )
        self._containers = [self._runner(c, backoff, waiting) for c in spec.containers]
        self._proxy = self._proxy_runner(spec.proxy) if spec.proxy else None

    def begin(self) -> None:
        """Start what comes first."""
        if self._proxy:
            self._proxy.begin()
        else:
            self._advance()

    def serve(self, peer: wire.Peer, request: wire.Message, reply: wire.Reply) -> None:
        """One request of a client."""
        match request["do"]:
            case "stop":
                self._when_stopped.append(reply)
                self._stop(float(request["grace_s"]))
            case "exit":
                reply()
                self.reactor.stop()
            case "restart":
                self._find(request["container"]).restart("restarted on request", float(request["grace_s"]))
                reply()
            case "exec":
                runner = self._find(request["container"])
                if runner.state.phase != "running":
                    raise ValueError(f"container {runner.container.name} is not running")
                started = self._execute(runner.container, runner.state.pid, tuple(request["argv"]))
                self._answer_exec(started, float(request["timeout_s"]), reply)
            case "attach":
                runner = self._find(request["container"])
                if runner.state.phase != "running":
                    raise ValueError(f"container {runner.container.name} is not running")
                program = view.inside(self._spec, runner.container, tuple(request["argv"]), rootless=self._rootless)
                started = process.start_interactive(runner.state.pid, program, terminal=bool(request["terminal"]))
                reply(fds=handing.attended(self.reactor, started))
            case "dial":
                reply(fds=(handing.dial(self.reactor, int(request["port"])),))
            case "lock":
                _lock(self._spec, self._settings, on=bool(request["on"]))
                self._locked = bool(request["on"])
                self._note()
                reply()
            case "fabric":
                reply(fds=self._fabric.descriptors)
            case "sockets":
                reply(fds=self._fabric.sockets)
            case unknown:
                raise ValueError(f"no request is called {unknown}")

    def joined(self, peer: wire.Peer) -> None:
        """A new client gets the state at once."""
        self._stale.add(peer)

    def state(self) -> PodState:
        """The Pod now; `pid` is filled in by the reader, who sees other numbers."""
        stopped = self._stopping and all(r.finished for r in self._runners())
        return PodState(
            uid=self._spec.uid,
            namespace=self._spec.namespace,
            name=self._spec.name,
            ip=self._ip,
            pid=0,
            started_at=self._started_at,
            stopping=self._stopping,
            stopped=stopped,
            locked=self._locked,
            proxy=self._proxy.state if self._proxy else None,
            containers=tuple(r.state for r in self._containers),
        )

    def _runners(self) -> list[Runner]:
        return [*self._containers, *([self._proxy] if self._proxy else [])]

    def _find(self, name: str) -> Runner:
        for runner in self._runners():
            if runner.container.name == name:
                return runner
        raise ValueError(f"Pod {self._spec.name} has no container {name}")

    def _publish(self) -> None:
        if self._changed and self.server:
            self._stale |= self.server.peers
            self._changed = False
        ready = [peer for peer in self._stale if not peer.busy]
        if ready:
            news = {"state": self.state()}
            for peer in ready:
                self._stale.discard(peer)
                peer.send(news)

    def _note(self) -> None:
        self._changed = True

    def _runner(self, container: Container, backoff: Backoff, waiting: str) -> Runner:
        cgroup = Cgroup(self._paths, container.name, container.limits)
        log = LogWriter(self._spec.log_dir, container.name, self._settings.log_bytes)
        host = Host(
            reactor=self.reactor,
            ip=self._ip,
            start=lambda: self._start_application(container, cgroup),
            execute=lambda pid, argv: self._execute(container, pid, argv),
            out_of_memory=cgroup.out_of_memory,
            changed=self._note,
            ended=lambda runner: self._advance(),
        )
        return Runner(container, host, backoff, log, waiting)

    def _proxy_runner(self, proxy: Proxy) -> Runner:
        ready = HttpGet(port=0, path="/ready", socket=proxy.admin_socket)
        container = Container(
            name=PROXY,
            argv=proxy.argv,
            env=proxy.env,
            startup=Probe(handler=ready, period_s=0.02, failure_threshold=50),
            readiness=Probe(handler=ready, period_s=2, failure_threshold=1),
        )
        backoff = Backoff(first_s=0.1, max_s=self._settings.proxy_backoff_max_s, reset_s=60)
        log = LogWriter(self._spec.log_dir, PROXY, self._settings.log_bytes)
        host = Host(
            reactor=self.reactor,
            ip=self._ip,
            start=lambda: process.start(view.proxy(self._spec, proxy, self._paths, self._hidden), self._own_pids),
            execute=lambda pid, argv: self._execute(container, pid, argv),
            out_of_memory=lambda: False,
            changed=self._proxy_changed,
            ended=lambda runner: self._advance(),
        )
        runner = Runner(container, host, backoff, log, "PodInitializing")
        runner.patient = True
        return runner

    def _answer_exec(self, started: process.Started, timeout_s: float, reply: wire.Reply) -> None:
        def ended(code: int, output: bytes) -> None:
            timer.cancel()
            reply({"exit_code": code, "output": output.decode(errors="replace")})

        timer = self.reactor.later(timeout_s, probe.collect(self.reactor, started, EXEC_BYTES, ended))

    def _start_application(self, container: Container, cgroup: Cgroup) -> process.Started:
        program = view.application(self._spec, container, self._paths, self._hidden, rootless=self._rootless)
        return process.start(msgspec.structs.replace(program, cgroups=cgroup.directories()), self._own_pids)

    def _execute(self, container: Container, pid: int, argv: tuple[str, ...]) -> process.Started:
        return process.start_in(pid, view.inside(self._spec, container, argv, rootless=self._rootless))

    def _proxy_changed(self) -> None:
        self._note()
        if self._proxy and self._proxy.state.ready:
            self._advance()

    def _advance(self) -> None:
        """Start whatever may start now, stop what has no purpose any more, and answer who waits for the end."""
        self._note()
        if self._stopping:
            self._stop_on()
            return
        pending = [r for r in self._containers if r.container.init and not r.succeeded]
        if pending:
            if pending[0].finished:
                self._stop(self._spec.grace_s)
            else:
                self._begin_once(pending[0])
            return
        applications = [r for r in self._containers if not r.container.init]
        for runner in applications:
            self._begin_once(runner)
        if applications and all(r.finished for r in applications):
            self._stop(self._spec.grace_s)

    @staticmethod
    def _begin_once(runner: Runner) -> None:
        if runner.state.phase == "waiting" and not runner.state.retry_at and not runner.state.last:
            runner.begin()

    def _stop(self, grace_s: float) -> None:
        self._stopping = True
        for runner in self._containers:
            runner.end(grace_s)
        self._stop_on()

    def _stop_on(self) -> None:
        """The next step of stopping: the proxy once the applications have ended, the answers once all has."""
        self._note()
        if not all(r.finished for r in self._containers):
            return
        if self._proxy and not self._proxy.finished:
            if self._drained is None and self._spec.proxy:
                self._drained = self.reactor.later(self._spec.proxy.drain_s, self._end_proxy)
                self._drain(self._spec.proxy)
            return
        for reply in self._when_stopped:
            reply()
        self._when_stopped.clear()

    def _drain(self, proxy: Proxy) -> None:
        """Ask Envoy to end its connections, then wait until it has nothing left to do: a sidecar, whose application
        has ended, no request; a gateway no connection."""

        def asked(ok: bool, what: str) -> None:
            if ok:
                self._until_quiet(proxy)
            else:
                self._end_proxy()

        request = admin_request("POST", "/drain_listeners?graceful&skip_exit")
        probe.exchange(self.reactor, proxy.admin_socket, request, 1, asked)

    def _until_quiet(self, proxy: Proxy) -> None:
        def seen(ok: bool, what: str) -> None:
            if ok:
                self._end_proxy()
            elif self._proxy and not self._proxy.finished:
                self.reactor.later(DRAIN_POLL_S, lambda: self._until_quiet(proxy))

        request = admin_request("GET", "/stats?filter=downstream_(rq|cx)_active$")
        judge = no_requests if self._containers else no_connections
        probe.exchange(self.reactor, proxy.admin_socket, request, 1, seen, judge=judge)

    def _end_proxy(self) -> None:
        if self._drained:
            self._drained.cancel()
        if self._proxy:
            self._proxy.end(1)
