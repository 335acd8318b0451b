"""Job (batch/v1): Pods that run to their end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import LabelSelector
from lateen.api.problems import Problem, at
from lateen.api.struct import NonNegativeInt32, Object, Struct


class PodFailurePolicyOnExitCodes(Struct, frozen=True):
    """Exit codes of a container."""

    operator: Literal["In", "NotIn"]
    values: tuple[int, ...]
    container_name: str | None = None


class PodFailurePolicyOnPodCondition(Struct, frozen=True):
    """A condition of a failed Pod."""

    type: str
    status: str | None = None


class PodFailurePolicyRule(Struct, frozen=True):
    """What becomes of the Job when a Pod fails in some way."""

    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    on_exit_codes: PodFailurePolicyOnExitCodes | None = None
    on_pod_conditions: tuple[PodFailurePolicyOnPodCondition, ...] = ()


class PodFailurePolicy(Struct, frozen=True):
    """What failures mean; the first rule that fits counts."""

    rules: tuple[PodFailurePolicyRule, ...] = ()


class SuccessPolicyRule(Struct, frozen=True):
    """How many or which indexes make the Job succeed."""

    succeeded_count: NonNegativeInt32 | None = None
    succeeded_indexes: str | None = None


class SuccessPolicy(Struct, frozen=True):
    """When an indexed Job has succeeded."""

    rules: tuple[SuccessPolicyRule, ...] = ()


class JobSpec(Struct, frozen=True):
    """The template, how often it must end well, how many at a time."""

    template: PodTemplateSpec
    active_deadline_seconds: int | None = None
    backoff_limit: NonNegativeInt32 | None = None
    backoff_limit_per_index: NonNegativeInt32 | None = None
    completion_mode: Literal["NonIndexed", "Indexed"] | None = None
    completions: NonNegativeInt32 | None = None
    managed_by: str | None = None
    manual_selector: bool | None = None
    max_failed_indexes: NonNegativeInt32 | None = None
    parallelism: NonNegativeInt32 | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: Literal["TerminatingOrFailed", "Failed"] | None = None
    selector: LabelSelector | None = None
    success_policy: SuccessPolicy | None = None
    suspend: bool | None = None
    ttl_seconds_after_finished: NonNegativeInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.template.spec.restart_policy not in ("Never", "OnFailure"):
            place = at("template", "spec")
            yield Problem(
                place, "a Job ends, so its containers do not always restart", "set restartPolicy: Never or OnFailure"
            )
        if self.completion_mode == "Indexed" and self.completions is None:
            yield Problem("", "an indexed Job needs to know how many", "set completions")


class Job(Object, frozen=True):
    """Work that ends."""

    GROUP: ClassVar[str] = "batch"
    KIND: ClassVar[str] = "Job"

    spec: JobSpec
