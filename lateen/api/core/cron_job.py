"""CronJob (batch/v1): Jobs by the clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from lateen.api.core.job import JobSpec
from lateen.api.problems import Problem
from lateen.api.struct import NonEmpty, NonNegativeInt32, Object, ObjectMeta, Struct
from lateen.lib.cron import parse_schedule


class JobTemplateSpec(Struct, frozen=True):
    """What Jobs are made from."""

    spec: JobSpec
    metadata: ObjectMeta = ObjectMeta()


class CronJobSpec(Struct, frozen=True):
    """When, and what. Times are in UTC unless `timeZone` names another."""

    job_template: JobTemplateSpec
    schedule: NonEmpty
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] | None = None
    failed_jobs_history_limit: NonNegativeInt32 | None = None
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: NonNegativeInt32 | None = None
    suspend: bool | None = None
    time_zone: str | None = None

    def problems(self) -> Iterator[Problem]:
        try:
            parse_schedule(self.schedule)
        except ValueError as error:
            yield Problem("schedule", str(error), 'write five fields such as "*/5 * * * *", or @hourly, @daily, ...')


class CronJob(Object, frozen=True):
    """Jobs by the clock."""

    GROUP: ClassVar[str] = "batch"
    KIND: ClassVar[str] = "CronJob"

    spec: CronJobSpec
