"""Pod (core v1): containers that share a network and an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api import rules
from lateen.api.core.container import (
    AppArmorProfile,
    Container,
    ResourceRequirements,
    SeccompProfile,
    SELinuxOptions,
    WindowsSecurityContextOptions,
)
from lateen.api.core.selectors import LabelSelector, LocalObjectReference
from lateen.api.core.volume import Volume
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, ObjectMeta, Struct, field, list_map
from lateen.lib.quantities import Quantity


class Toleration(Struct, frozen=True):
    """A taint of nodes that the Pod puts up with."""

    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    key: str | None = None
    operator: Literal["Exists", "Equal", "Lt", "Gt"] | None = None
    toleration_seconds: int | None = None
    value: str | None = None


class HostAlias(Struct, frozen=True):
    """Names for an address in the Pod's hosts file."""

    ip: str
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Struct, frozen=True):
    """An option of the resolver."""

    name: str | None = None
    value: str | None = None


class PodDNSConfig(Struct, frozen=True):
    """What is added to the Pod's resolver configuration."""

    nameservers: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()
    searches: tuple[str, ...] = ()


class Sysctl(Struct, frozen=True):
    """A kernel parameter of the Pod's namespaces."""

    name: str
    value: str


class PodSecurityContext(Struct, frozen=True):
    """The rights of all containers of the Pod."""

    app_armor_profile: AppArmorProfile | None = None
    fs_group: int | None = None
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    se_linux_change_policy: str | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: Literal["Merge", "Strict"] | None = None
    sysctls: tuple[Sysctl, ...] = ()
    windows_options: WindowsSecurityContextOptions | None = None


class TopologySpreadConstraint(Struct, frozen=True):
    """How evenly Pods spread over nodes."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    min_domains: int | None = None
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None


class PodReadinessGate(Struct, frozen=True):
    """A condition that must hold before the Pod is ready."""

    condition_type: str


class PodSchedulingGate(Struct, frozen=True):
    """What must be gone before the Pod is started."""

    name: str


class PodOS(Struct, frozen=True):
    """The operating system a Pod is for."""

    name: str


class PodResourceClaim(Struct, frozen=True):
    """A claim of devices."""

    name: str
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class PodSpec(Struct, frozen=True):
    """What runs and where. How a cluster would place it (`affinity`) is kept as plain JSON."""

    containers: Annotated[tuple[Container, ...], list_map("name", min_length=1)]
    active_deadline_seconds: int | None = None
    affinity: Mapping[str, Any] | None = None
    automount_service_account_token: bool | None = None
    dns_config: PodDNSConfig | None = None
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = None
    enable_service_links: bool | None = None
    ephemeral_containers: Annotated[tuple[Container, ...], list_map("name")] = ()
    host_aliases: Annotated[tuple[HostAlias, ...], list_map("ip")] = ()
    host_ipc: bool | None = field(default=None, name="hostIPC")
    host_network: bool | None = None
    host_pid: bool | None = field(default=None, name="hostPID")
    host_users: bool | None = None
    hostname: str | None = None
    hostname_override: str | None = None
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], list_map("name")] = ()
    init_containers: Annotated[tuple[Container, ...], list_map("name")] = ()
    node_name: str | None = None
    node_selector: Mapping[str, str] = {}
    os: PodOS | None = None
    overhead: Mapping[str, Quantity] = {}
    preemption_policy: Literal["PreemptLowerPriority", "Never"] | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    resource_claims: Annotated[tuple[PodResourceClaim, ...], list_map("name")] = ()
    resources: ResourceRequirements | None = None
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    scheduling_gates: Annotated[tuple[PodSchedulingGate, ...], list_map("name")] = ()
    security_context: PodSecurityContext | None = None
    service_account: str | None = None
    service_account_name: str | None = None
    set_hostname_as_fqdn: bool | None = field(default=None, name="setHostnameAsFQDN")
    share_process_namespace: bool | None = None
    subdomain: str | None = None
    termination_grace_period_seconds: Annotated[int, Meta(ge=0)] | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...], list_map("topologyKey", "whenUnsatisfiable")
    ] = ()
    volumes: Annotated[tuple[Volume, ...], list_map("name")] = ()

    def problems(self) -> Iterator[Problem]:
        every = [("initContainers", each) for each in self.init_containers]
        every += [("containers", each) for each in self.containers]
        seen: set[str] = set()
        for name, container in every:
            if container.name in seen:
                yield Problem(name, f"container {container.name} is there twice", "give each its own name")
            seen.add(container.name)
        yield from rules.no_duplicates(("volumes",), [each.name for each in self.volumes], "volume", "name")
        volumes = {each.name for each in self.volumes}
        for name, containers in (("initContainers", self.init_containers), ("containers", self.containers)):
            for index, container in enumerate(containers):
                for inner, mount in enumerate(container.volume_mounts):
                    if mount.name not in volumes:
                        place = at(name, index, "volumeMounts", inner, "name")
                        yield Problem(place, f"the Pod has no volume named {mount.name}", "add it to volumes")


class PodTemplateSpec(Struct, frozen=True):
    """What Pods are made from."""

    spec: PodSpec
    metadata: ObjectMeta = ObjectMeta()


class PodIP(Struct, frozen=True):
    """One address of a Pod."""

    ip: str


class PodCondition(Struct, frozen=True):
    """What is true of a Pod: `Ready`, `ContainersReady`, `Initialized`, ..."""

    status: str
    type: str
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    message: str | None = None
    observed_generation: int | None = None
    reason: str | None = None


class PodStatus(Struct, frozen=True):
    """The part of a Pod's status that translation reads."""

    conditions: Annotated[tuple[PodCondition, ...], list_map("type")] = ()
    host_ip: str | None = field(default=None, name="hostIP")
    message: str | None = None
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] | None = None
    pod_ip: str | None = field(default=None, name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")
    reason: str | None = None
    start_time: str | None = None

    @property
    def ready(self) -> bool:
        """True when condition `Ready` holds."""
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses of the Pod, the main one first."""
        every = [self.pod_ip or "", *(each.ip for each in self.pod_ips)]
        return tuple(dict.fromkeys(each for each in every if each))


class Pod(Object, frozen=True):
    """Containers that share a network and an end."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Pod"

    spec: PodSpec
    status: PodStatus = PodStatus()
