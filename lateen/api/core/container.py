"""Containers of a Pod (core v1): what is run, with which environment, probes and rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.core.selectors import IntOrString
from lateen.api.struct import Meta, NonEmpty, NonNegativeInt32, Port, Struct, field
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


class TCPSocketAction(Struct, frozen=True):
    """A port that must accept connections."""

    port: IntOrString
    host: str | None = None


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

    claims: tuple[ResourceClaim, ...] = ()
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


class VolumeDevice(Struct, frozen=True):
    """Where a block device is seen in a container."""

    device_path: str
    name: str


class Container(Struct, frozen=True):
    """One program of a Pod."""

    name: NonEmpty
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    image: str | None = None
    image_pull_policy: Literal["Always", "Never", "IfNotPresent"] | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    ports: tuple[ContainerPort, ...] = ()
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
    volume_devices: tuple[VolumeDevice, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    working_dir: str | None = None
