"""What a Pod is to the local platform: frozen values that cross every process boundary as JSON.

The node turns a Kubernetes Pod into a `PodSandbox`, the spawner and the Pod's init read it, and the init
answers with `PodState`. Nothing in here knows the API server. Times are seconds since the epoch, durations are
seconds; field meanings follow the Kubernetes Pod API (https://kubernetes.io/docs/reference/kubernetes-api/).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class Exec(msgspec.Struct, frozen=True, tag="exec"):
    """Run a program inside the container; exit code 0 is success."""

    command: tuple[str, ...]


class HttpGet(msgspec.Struct, frozen=True, tag="http"):
    """GET from inside the Pod's network; 200-399 is success. `host` empty means the Pod's address.

    `socket`, a Unix socket's path on the machine, takes the place of host and port (the platform's own use).
    """

    port: int
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    socket: str = ""


class TcpSocket(msgspec.Struct, frozen=True, tag="tcp"):
    """Open a connection from inside the Pod's network. `host` empty means the Pod's address."""

    port: int
    host: str = ""


class Sleep(msgspec.Struct, frozen=True, tag="sleep"):
    """Wait (only as `pre_stop`)."""

    seconds: float


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A startup, readiness or liveness probe; defaults are Kubernetes'."""

    handler: Exec | HttpGet | TcpSocket
    initial_delay_s: float = 0
    period_s: float = 10
    timeout_s: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_s: float | None = None


class Files(msgspec.Struct, frozen=True, tag="files"):
    """A volume of given contents (ConfigMap, Secret, projected): relative path -> bytes."""

    files: Mapping[str, bytes]
    mode: int = 0o644


class HostPath(msgspec.Struct, frozen=True, tag="host"):
    """A file or directory of the machine."""

    path: str


class EmptyDir(msgspec.Struct, frozen=True, tag="empty"):
    """Memory that the Pod's containers share, gone with the Pod. `size_bytes` None means no limit of its own."""

    size_bytes: int | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """Where a container sees a volume of the Pod."""

    volume: str
    path: str
    sub_path: str = ""
    read_only: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds by cgroup, where the machine allows them (see `lateen.platform.cgroups`)."""

    memory_bytes: int | None = None
    cpus: float | None = None


Restart = Literal["Always", "OnFailure", "Never"]


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One program of the Pod. `argv` is command plus args with `$(VAR)` already expanded.

    `init` containers run one after the other before the others start. `run_as` is the numeric user (None: 65534);
    a rootless mesh has a single user and ignores it.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    cwd: str = "/"
    mounts: tuple[Mount, ...] = ()
    init: bool = False
    restart: Restart = "Always"
    run_as: int | None = None
    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    pre_stop: Exec | HttpGet | TcpSocket | Sleep | None = None
    limits: Limits = Limits()


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """The Pod's Envoy: started first, stopped last, restarted at once.

    It keeps CAP_NET_RAW only and sees, beside the system's programs, `paths` (absolute, writable, at the same
    place; give directories, since a socket made anew is a new file). Ready when GET /ready on `admin_socket`
    answers 200. `drain_s` bounds the wait for its connections to end after the applications have stopped.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    paths: tuple[str, ...] = ()
    admin_socket: str
    drain_s: float = 5


class Redirect(msgspec.Struct, frozen=True, kw_only=True):
    """Capture of the Pod's TCP traffic: out to :15001, in to :15006, except what is named here."""

    exclude_inbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_ranges: tuple[str, ...] = ()


class PodSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod to run. `uid` names it everywhere and is at most 36 characters of [a-z0-9-].

    `ip` None lets the platform choose; otherwise it must be inside the Pod range and free. `host_aliases` are
    (address, names) lines for /etc/hosts; `resolv_conf` empty means the cluster's own. `visible` are host
    directories that the applications may read at the same place (their code), beside lateen's own environment,
    which is always there. `locked`: only the proxy opens connections that leave the Pod (`Platform.lock` changes it).
    """

    uid: str
    namespace: str
    name: str
    containers: tuple[Container, ...]
    log_dir: str
    proxy: Proxy | None = None
    redirect: Redirect | None = None
    ip: str | None = None
    hostname: str = ""
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    resolv_conf: str = ""
    volumes: Mapping[str, Files | HostPath | EmptyDir] = {}
    visible: tuple[str, ...] = ()
    locked: bool = False
    grace_s: float = 30


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a container ended. `exit_code` is 128 + signal when a signal ended it.

    `reason` is Kubernetes': Completed, Error, OOMKilled, StartError.
    """

    exit_code: int
    reason: str
    message: str = ""
    started_at: float
    finished_at: float


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A container now.

    `phase` waiting has a `reason` (PodInitializing, ProxyStarting, CrashLoopBackOff) and, in back-off, `retry_at`;
    `phase` terminated means that it will not run again. `last` is how the previous run ended.
    """

    name: str
    phase: Literal["waiting", "running", "terminated"]
    reason: str = ""
    message: str = ""
    pid: int = 0
    init: bool = False
    started: bool = False
    ready: bool = False
    restarts: int = 0
    started_at: float = 0
    retry_at: float = 0
    last: Ended | None = None


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod now, as its own init reports it. `pid` is the init, seen from the host."""

    uid: str
    namespace: str
    name: str
    ip: str
    pid: int
    started_at: float
    stopping: bool = False
    stopped: bool = False
    locked: bool = False
    proxy: ContainerState | None = None
    containers: tuple[ContainerState, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the proxy and every container that should run is ready."""
        running = [c for c in self.containers if not c.init]
        return not self.stopping and (self.proxy is None or self.proxy.ready) and all(c.ready for c in running)


class ServiceVip(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service: connections to `vip`:`port` go to one of `endpoints` (address, port), at random.

    No endpoints: connections are refused at once.
    """

    vip: str
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    endpoints: tuple[tuple[str, int], ...] = ()
