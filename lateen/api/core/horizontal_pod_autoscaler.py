"""HorizontalPodAutoscaler (autoscaling/v2): how many Pods, by what they use.

Source: https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/horizontal-pod-autoscaler-v2/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api.problems import Problem
from lateen.api.struct import Meta, NonEmpty, Object, Struct
from lateen.lib.quantities import Quantity


class CrossVersionObjectReference(Struct, frozen=True):
    """What is scaled."""

    kind: NonEmpty
    name: NonEmpty
    api_version: str | None = None


class MetricTarget(Struct, frozen=True):
    """The value that is aimed at."""

    type: Literal["Utilization", "Value", "AverageValue"]
    average_utilization: Annotated[int, Meta(ge=1)] | None = None
    average_value: Quantity | None = None
    value: Quantity | None = None


class ResourceMetricSource(Struct, frozen=True):
    """What Pods use of a resource, against what they request."""

    name: NonEmpty
    target: MetricTarget

    def problems(self) -> Iterator[Problem]:
        yield from _target(self.target)


class ContainerResourceMetricSource(Struct, frozen=True):
    """What one container of each Pod uses of a resource."""

    container: NonEmpty
    name: NonEmpty
    target: MetricTarget

    def problems(self) -> Iterator[Problem]:
        yield from _target(self.target)


def _target(target: MetricTarget) -> Iterator[Problem]:
    """A resource is aimed at by a share of what is requested, or by an amount."""
    given = (target.average_utilization is not None) + (target.average_value is not None)
    if given != 1 or target.value is not None:
        yield Problem("target", "one of averageUtilization and averageValue is needed", "set averageUtilization: 80")
    elif (target.type == "Utilization") != (target.average_utilization is not None):
        yield Problem("target.type", f"{target.type} does not fit what is set", "write Utilization or AverageValue")


class MetricSpec(Struct, frozen=True):
    """One thing that is measured. Only resources are; the others are kept as plain JSON."""

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    container_resource: ContainerResourceMetricSource | None = None
    external: Mapping[str, Any] | None = None
    object: Mapping[str, Any] | None = None
    pods: Mapping[str, Any] | None = None
    resource: ResourceMetricSource | None = None

    def problems(self) -> Iterator[Problem]:
        parts = {
            "ContainerResource": ("containerResource", self.container_resource),
            "External": ("external", self.external),
            "Object": ("object", self.object),
            "Pods": ("pods", self.pods),
            "Resource": ("resource", self.resource),
        }
        name, part = parts[self.type]
        if part is None:
            yield Problem(name, f"it is needed for a metric of type {self.type}", f"set {name}")


class HPAScalingPolicy(Struct, frozen=True):
    """How much may change within a time."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Meta(ge=1)]
    period_seconds: Annotated[int, Meta(ge=1, le=1800)]


class HPAScalingRules(Struct, frozen=True):
    """How fast one direction of scaling may go."""

    policies: tuple[HPAScalingPolicy, ...] = ()
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    stabilization_window_seconds: Annotated[int, Meta(ge=0, le=3600)] | None = None
    tolerance: Quantity | None = None


class HorizontalPodAutoscalerBehavior(Struct, frozen=True):
    """How fast scaling may go, up and down."""

    scale_up: HPAScalingRules | None = None
    scale_down: HPAScalingRules | None = None


class HorizontalPodAutoscalerSpec(Struct, frozen=True):
    """What is scaled, within which bounds, by which measure."""

    max_replicas: Annotated[int, Meta(ge=1)]
    scale_target_ref: CrossVersionObjectReference
    behavior: HorizontalPodAutoscalerBehavior | None = None
    metrics: tuple[MetricSpec, ...] = ()
    min_replicas: Annotated[int, Meta(ge=1)] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.min_replicas is not None and self.min_replicas > self.max_replicas:
            yield Problem("maxReplicas", "it is below minReplicas", "raise it, or lower minReplicas")


class HorizontalPodAutoscaler(Object, frozen=True):
    """How many Pods, by what they use."""

    GROUP: ClassVar[str] = "autoscaling"
    KIND: ClassVar[str] = "HorizontalPodAutoscaler"

    spec: HorizontalPodAutoscalerSpec
