"""Deployment (apps/v1): how many Pods of a template there are, and how they are replaced."""

from __future__ import annotations

from typing import ClassVar, Literal

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import IntOrString, LabelSelector
from lateen.api.struct import NonNegativeInt32, Object, Struct


class RollingUpdateDeployment(Struct, frozen=True):
    """How many Pods may be missing or too many while they are replaced; number or percentage."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


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


class Deployment(Object, frozen=True):
    """Pods that are all alike and always there."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "Deployment"

    spec: DeploymentSpec
