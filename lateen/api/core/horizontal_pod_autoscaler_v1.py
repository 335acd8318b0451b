"""HorizontalPodAutoscaler (autoscaling/v1): the older form, for processor use alone. It is stored as autoscaling/v2.

Source: https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/horizontal-pod-autoscaler-v1/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from lateen.api.core.horizontal_pod_autoscaler import CrossVersionObjectReference
from lateen.api.problems import Problem
from lateen.api.struct import Meta, Object, Struct, field


class HorizontalPodAutoscalerV1Spec(Struct, frozen=True):
    """What is scaled, within which bounds, at which use of the processor."""

    max_replicas: Annotated[int, Meta(ge=1)]
    scale_target_ref: CrossVersionObjectReference
    min_replicas: Annotated[int, Meta(ge=1)] | None = None
    target_cpu_utilization_percentage: Annotated[int, Meta(ge=1)] | None = field(
        name="targetCPUUtilizationPercentage", default=None
    )

    def problems(self) -> Iterator[Problem]:
        if self.min_replicas is not None and self.min_replicas > self.max_replicas:
            yield Problem("maxReplicas", "it is below minReplicas", "raise it, or lower minReplicas")


class HorizontalPodAutoscalerV1(Object, frozen=True):
    """How many Pods, by what they use of the processor."""

    GROUP: ClassVar[str] = "autoscaling"
    KIND: ClassVar[str] = "HorizontalPodAutoscaler"

    spec: HorizontalPodAutoscalerV1Spec
