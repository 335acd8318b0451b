"""Containers of a Pod (core v1): what is run, with which environment, probes and rights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.core.selectors import IntOrString
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, NonEmpty, NonNegativeInt32, Port, Struct, field, list_map
from lateen.lib.names import is_label, is_port_name
from lateen.lib.quantities import Quantity


class ObjectFieldSelector(Struct, frozen=True):
    """A field of the Pod itself, such as `metadata.name`."""

    field_path: str
    api_version: str | None = None


class ResourceFieldSelector(Struct, frozen=True):
    """A request or limit of a container."""

    resource: str
    container_name: str | None = None
    divisor: Quantity | None = None


class KeySelector(Struct, frozen=True):
    """A key of a ConfigMap or Secret."""

    key: str
    name: str = ""
    optional: bool | None = None


class FileKeySelector(Struct, frozen=True):
    """A variable in a file of a volume."""

    key: str
    path: str
    volume_name: str
    optional: bool | None = None


class EnvVarSource(Struct, frozen=True):
    """Where the value of a variable comes from."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"),
    )

    config_map_key_ref: KeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    file_key_ref: FileKeySelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Struct, frozen=True):
    """One environment variable."""

    name: NonEmpty
    value: str | None = None
    value_from: EnvVarSource | None = None

    def problems(self) -> Iterator[Problem]:
        if "=" in self.name or "\0" in self.name:
            yield Problem("name", f'"{self.name[:80]}" cannot be the name of a variable', "use letters, digits and '_'")
        if self.value and self.value_from is not None:
            yield Problem("valueFrom", '"value" and "valueFrom" exclude each other', "keep one of them")


class EnvFromReference(Struct, frozen=True):
    """A ConfigMap or Secret all of whose keys become variables."""

    name: str = ""
    optional: bool | None = None


class EnvFromSource(Struct, frozen=True):
    """Many variables at once."""

    config_map_ref: EnvFromReference | None = None
    prefix: str | None = None
    secret_ref: EnvFromReference | None = None


class ContainerPort(Struct, frozen=True):
    """A port that a container listens on."""

    container_port: Port
    host_ip: str | None = field(default=None, name="hostIP")
    host_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.name and not is_port_name(self.name):
            remedy = "use a-z, 0-9 and '-', at most 15 characters, a letter among them"
            yield Problem("name", f'"{self.name[:80]}" cannot be the name of a port', remedy)


class ExecAction(Struct, frozen=True):
    """A command that must end with 0."""

    command: tuple[str, ...] = ()


class HTTPHeader(Struct, frozen=True):
    """A header of a probe's request."""

    name: str
    value: str


class HTTPGetAction(Struct, frozen=True):
    """A URL that must answer with 200 to 399."""

    port: IntOrString
    host: str | None = None
    http_headers: tuple[HTTPHeader, ...] = ()
    path: str | None = None
    scheme: Literal["HTTP", "HTTPS"] | None = None

    def problems(self) -> Iterator[Problem]:
        if isinstance(self.port, int):
            yield from rules.port("port", self.port)


class TCPSocketAction(Struct, frozen=True):
    """A port that must accept connections."""

    port: IntOrString
    host: str | None = None

    def problems(self) -> Iterator[Problem]:
        if isinstance(self.port, int):
            yield from rules.port("port", self.port)


class GRPCAction(Struct, frozen=True):
    """A gRPC health service that must say SERVING."""

    port: Port
    service: str | None = None


class SleepAction(Struct, frozen=True):
    """Just waiting."""

    seconds: int


class Probe(Struct, frozen=True):
    """A question asked again and again; times are in seconds."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("exec", "httpGet", "tcpSocket", "grpc"),)

    exec: ExecAction | None = None
    failure_threshold: NonNegativeInt32 | None = None
    grpc: GRPCAction | None = None
    http_get: HTTPGetAction | None = None
    initial_delay_seconds: NonNegativeInt32 | None = None
    period_seconds: NonNegativeInt32 | None = None
    success_threshold: NonNegativeInt32 | None = None
    tcp_socket: TCPSocketAction | None = None
    termination_grace_period_seconds: int | None = None
    timeout_seconds: NonNegativeInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.exec is None and self.http_get is None and self.tcp_socket is None and self.grpc is None:
            yield Problem("", "what is asked is missing", 'set "httpGet", "tcpSocket" or "exec"')


class LifecycleHandler(Struct, frozen=True):
    """What is done at the start or the stop of a container."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("exec", "httpGet", "sleep", "tcpSocket"),)

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None
    tcp_socket: TCPSocketAction | None = None


class Lifecycle(Struct, frozen=True):
    """What is done after the start and before the stop of a container."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


class ResourceClaim(Struct, frozen=True):
    """A claim of the Pod that a container uses."""

    name: str
    request: str | None = None


class ResourceRequirements(Struct, frozen=True):
    """What a container is promised and what it may use at most."""

    claims: Annotated[tuple[ResourceClaim, ...], list_map("name")] = ()
    limits: Mapping[str, Quantity] = {}
    requests: Mapping[str, Quantity] = {}


class ContainerResizePolicy(Struct, frozen=True):
    """Whether a container restarts when its resources change."""

    resource_name: str
    restart_policy: str


class ContainerRestartRuleOnExitCodes(Struct, frozen=True):
    """Exit codes."""

    operator: Literal["In", "NotIn"]
    values: tuple[int, ...] = ()


class ContainerRestartRule(Struct, frozen=True):
    """What follows from exit codes."""

    action: str
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class Capabilities(Struct, frozen=True):
    """Linux capabilities of a container."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SELinuxOptions(Struct, frozen=True):
    """The SELinux context of processes."""

    level: str | None = None
    role: str | None = None
    type: str | None = None
    user: str | None = None


class SeccompProfile(Struct, frozen=True):
    """Which system calls are allowed."""

    type: Literal["Unconfined", "RuntimeDefault", "Localhost"]
    localhost_profile: str | None = None


class AppArmorProfile(Struct, frozen=True):
    """The AppArmor profile of processes."""

    type: Literal["Unconfined", "RuntimeDefault", "Localhost"]
    localhost_profile: str | None = None


class WindowsSecurityContextOptions(Struct, frozen=True):
    """Who processes are on Windows."""

    gmsa_credential_spec: str | None = None
    gmsa_credential_spec_name: str | None = None
    host_process: bool | None = None
    run_as_user_name: str | None = None


class SecurityContext(Struct, frozen=True):
    """The rights of a container."""

    allow_privilege_escalation: bool | None = None
    app_armor_profile: AppArmorProfile | None = None
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    proc_mount: str | None = None
    read_only_root_filesystem: bool | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    windows_options: WindowsSecurityContextOptions | None = None


class VolumeMount(Struct, frozen=True):
    """Where a volume is seen in a container."""

    mount_path: NonEmpty
    name: NonEmpty
    mount_propagation: Literal["None", "HostToContainer", "Bidirectional"] | None = None
    read_only: bool | None = None
    recursive_read_only: Literal["Disabled", "IfPossible", "Enabled"] | None = None
    sub_path: str | None = None
    sub_path_expr: str | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.mount_path.startswith("/"):
            yield Problem("mountPath", f'"{self.mount_path[:80]}" is not a whole path', "begin it with /")
        if self.sub_path and (self.sub_path.startswith("/") or ".." in self.sub_path.split("/")):
            yield Problem("subPath", f'"{self.sub_path[:80]}" leads out of the volume', "write a path inside of it")


class VolumeDevice(Struct, frozen=True):
    """Where a block device is seen in a container."""

    device_path: str
    name: str


class Container(Struct, frozen=True):
    """One program of a Pod."""

    name: NonEmpty
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Annotated[tuple[EnvVar, ...], list_map("name")] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    image: str | None = None
    image_pull_policy: Literal["Always", "Never", "IfNotPresent"] | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    ports: Annotated[tuple[ContainerPort, ...], list_map("containerPort", "protocol")] = ()
    readiness_probe: Probe | None = None
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    resources: ResourceRequirements | None = None
    restart_policy: str | None = None
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    target_container_name: str | None = None
    termination_message_path: str | None = None
    termination_message_policy: Literal["File", "FallbackToLogsOnError"] | None = None
    tty: bool | None = None
    volume_devices: Annotated[tuple[VolumeDevice, ...], list_map("devicePath")] = ()
    volume_mounts: Annotated[tuple[VolumeMount, ...], list_map("mountPath")] = ()
    working_dir: str | None = None

    def problems(self) -> Iterator[Problem]:
        if not is_label(self.name):
            yield Problem("name", f'"{self.name[:80]}" cannot be the name of a container', "use a-z, 0-9 and '-'")
        names = [each.name for each in self.ports if each.name]
        yield from rules.no_duplicates(("ports",), names, "the name of a port")
        yield from rules.no_duplicates(("volumeMounts",), [each.mount_path for each in self.volume_mounts], "path")
        for place, port in self._port_names():
            if port not in names:
                yield Problem(place, f"the container has no port named {port}", "add it to ports, or write a number")

    def _port_names(self) -> Iterator[tuple[str, str]]:
        handlers = [
            (name, probe.http_get, probe.tcp_socket)
            for name, probe in (
                ("livenessProbe", self.liveness_probe),
                ("readinessProbe", self.readiness_probe),
                ("startupProbe", self.startup_probe),
            )
            if probe is not None
        ]
        for name, get, connect in handlers:
            for kind, handler in (("httpGet", get), ("tcpSocket", connect)):
                if handler is not None and isinstance(handler.port, str) and not handler.port.isdecimal():
                    yield at(name, kind, "port"), handler.port
