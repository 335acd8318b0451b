"""Node (core v1): a machine that runs Pods. Its topology labels give its Pods their locality."""

from __future__ import annotations

from typing import ClassVar, Literal

from lateen.api.struct import NonEmpty, Object, Struct, field


class Taint(Struct, frozen=True):
    """What keeps Pods that do not tolerate it away."""

    key: NonEmpty
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    value: str | None = None
    time_added: str | None = None


class NodeSpec(Struct, frozen=True):
    """The address ranges of a machine and whether it takes new Pods."""

    external_id: str | None = field(default=None, name="externalID")
    pod_cidr: str | None = field(default=None, name="podCIDR")
    pod_cidrs: tuple[str, ...] = field(default=(), name="podCIDRs")
    provider_id: str | None = field(default=None, name="providerID")
    taints: tuple[Taint, ...] = ()
    unschedulable: bool | None = None


class Node(Object, frozen=True):
    """A machine."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Node"

    spec: NodeSpec = NodeSpec()
