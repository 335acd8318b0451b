"""HorizontalPodAutoscaler (autoscaling/v2): how many Pods, by what they use."""

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


class MetricSpec(Struct, frozen=True):
    """One thing that is measured. Only resources are; the others are kept as plain JSON."""

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    container_resource: Mapping[str, Any] | None = None
    external: Mapping[str, Any] | None = None
    object: Mapping[str, Any] | None = None
    pods: Mapping[str, Any] | None = None
    resource: ResourceMetricSource | None = None


class HorizontalPodAutoscalerSpec(Struct, frozen=True):
    """What is scaled, within which bounds, by which measure."""

    max_replicas: Annotated[int, Meta(ge=1)]
    scale_target_ref: CrossVersionObjectReference
    behavior: Mapping[str, Any] | None = None
    metrics: tuple[MetricSpec, ...] = ()
    min_replicas: Annotated[int, Meta(ge=0)] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.min_replicas is not None and self.min_replicas > self.max_replicas:
            yield Problem("maxReplicas", "it is below minReplicas", "raise it, or lower minReplicas")


class HorizontalPodAutoscaler(Object, frozen=True):
    """How many Pods, by what they use."""

    GROUP: ClassVar[str] = "autoscaling"
    KIND: ClassVar[str] = "HorizontalPodAutoscaler"

    spec: HorizontalPodAutoscalerSpec
