"""ReplicaSet (apps/v1): so many Pods of one template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import LabelSelector
from lateen.api.core.templates import template_problems
from lateen.api.problems import Problem
from lateen.api.struct import NonNegativeInt32, Object, Struct


class ReplicaSetSpec(Struct, frozen=True):
    """The template and how many of it."""

    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: NonNegativeInt32 | None = None
    replicas: NonNegativeInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from template_problems("ReplicaSet", self.selector, self.template)


class ReplicaSet(Object, frozen=True):
    """So many Pods of one template."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "ReplicaSet"

    spec: ReplicaSetSpec
