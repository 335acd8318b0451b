"""Deployment (apps/v1): how many Pods of a template there are, and how they are replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import IntOrString, LabelSelector
from lateen.api.core.templates import template_problems
from lateen.api.problems import Problem
from lateen.api.struct import NonNegativeInt32, Object, Struct


class RollingUpdateDeployment(Struct, frozen=True):
    """How many Pods may be missing or too many while they are replaced; number or percentage."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None

    def problems(self) -> Iterator[Problem]:
        for name, value in (("maxSurge", self.max_surge), ("maxUnavailable", self.max_unavailable)):
            if value is not None and not _AMOUNT.fullmatch(str(value)):
                yield Problem(name, f'"{value}" is no number or percentage', 'write 1 or "25%"')
        if str(self.max_surge).strip("0%") == "" and str(self.max_unavailable).strip("0%") == "":
            yield Problem("", "nothing may be too many and nothing may be missing", "set one of them above 0")


class DeploymentStrategy(Struct, frozen=True):
    """How Pods are replaced."""

    rolling_update: RollingUpdateDeployment | None = None
    type: Literal["Recreate", "RollingUpdate"] | None = None


class DeploymentSpec(Struct, frozen=True):
    """The template and how many of it."""

    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: NonNegativeInt32 | None = None
    paused: bool | None = None
    progress_deadline_seconds: NonNegativeInt32 | None = None
    replicas: NonNegativeInt32 | None = None
    revision_history_limit: NonNegativeInt32 | None = None
    strategy: DeploymentStrategy | None = None

    def problems(self) -> Iterator[Problem]:
        yield from template_problems("Deployment", self.selector, self.template)


class Deployment(Object, frozen=True):
    """Pods that are all alike and always there."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "Deployment"

    spec: DeploymentSpec


_AMOUNT = re.compile(r"[0-9]{1,9}%?")
