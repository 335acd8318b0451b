"""DaemonSet (apps/v1): one Pod on every machine, which here is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import IntOrString, LabelSelector
from lateen.api.core.templates import template_problems
from lateen.api.problems import Problem
from lateen.api.struct import NonNegativeInt32, Object, Struct


class RollingUpdateDaemonSet(Struct, frozen=True):
    """How many machines may be without the Pod, or have two, while it is replaced."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DaemonSetUpdateStrategy(Struct, frozen=True):
    """How Pods are replaced."""

    rolling_update: RollingUpdateDaemonSet | None = None
    type: Literal["RollingUpdate", "OnDelete"] | None = None


class DaemonSetSpec(Struct, frozen=True):
    """The template."""

    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: NonNegativeInt32 | None = None
    revision_history_limit: NonNegativeInt32 | None = None
    update_strategy: DaemonSetUpdateStrategy | None = None

    def problems(self) -> Iterator[Problem]:
        yield from template_problems("DaemonSet", self.selector, self.template)


class DaemonSet(Object, frozen=True):
    """One Pod on every machine."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "DaemonSet"

    spec: DaemonSetSpec
