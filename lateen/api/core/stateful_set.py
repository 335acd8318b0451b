"""StatefulSet (apps/v1): numbered Pods, made and replaced one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import IntOrString, LabelSelector
from lateen.api.core.templates import template_problems
from lateen.api.problems import Problem
from lateen.api.struct import NonNegativeInt32, Object, Struct


class RollingUpdateStatefulSet(Struct, frozen=True):
    """From which number on Pods are replaced, and how many at a time."""

    max_unavailable: IntOrString | None = None
    partition: NonNegativeInt32 | None = None


class StatefulSetUpdateStrategy(Struct, frozen=True):
    """How Pods are replaced."""

    rolling_update: RollingUpdateStatefulSet | None = None
    type: Literal["RollingUpdate", "OnDelete"] | None = None


class StatefulSetOrdinals(Struct, frozen=True):
    """The number of the first Pod."""

    start: NonNegativeInt32 | None = None


class StatefulSetRetention(Struct, frozen=True):
    """What becomes of volumes."""

    when_deleted: Literal["Retain", "Delete"] | None = None
    when_scaled: Literal["Retain", "Delete"] | None = None


class StatefulSetSpec(Struct, frozen=True):
    """The template and how many of it. Claims of volumes are kept as plain JSON."""

    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: NonNegativeInt32 | None = None
    ordinals: StatefulSetOrdinals | None = None
    persistent_volume_claim_retention_policy: StatefulSetRetention | None = None
    pod_management_policy: Literal["OrderedReady", "Parallel"] | None = None
    replicas: NonNegativeInt32 | None = None
    revision_history_limit: NonNegativeInt32 | None = None
    service_name: str | None = None
    update_strategy: StatefulSetUpdateStrategy | None = None
    volume_claim_templates: tuple[Mapping[str, Any], ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from template_problems("StatefulSet", self.selector, self.template)


class StatefulSet(Object, frozen=True):
    """Numbered Pods with names that stay."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "StatefulSet"

    spec: StatefulSetSpec
