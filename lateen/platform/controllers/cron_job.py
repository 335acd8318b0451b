"""CronJobs: a Job at each moment of a schedule, and an end to old ones.

Of moments that were missed (the machine slept, the node was away) only the last one counts, and not when it is longer
ago than `startingDeadlineSeconds`. A Job's name is made from its moment, so none is ever made twice.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence

from lateen.api.struct import Json
from lateen.lib.cron import parse_schedule
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, with_status

_MISSED_MAX = 1_000


def reconcile(cron_job: Json, jobs: Sequence[Json], now: float) -> Outcome:
    """What to do for one CronJob, given all Jobs of its namespace."""
    if d.terminating(cron_job):
        return Outcome()
    spec, before = d.spec(cron_job), d.status(cron_job)
    owned = [job for job in jobs if d.owned_by(job, cron_job)]
    running = [job for job in owned if not _ended(job)]
    last = before.get("lastScheduleTime") or cron_job["metadata"].get("creationTimestamp") or d.timestamp(now)
    due, following = _due(spec, last, now)
    actions = _too_old(spec, owned)
    status: Json = {key: part for key, part in before.items() if key not in ("active", "findings")}
    if due is not None and not spec.get("suspend"):
        policy = spec.get("concurrencyPolicy", "Allow")
        moment = dt.datetime.fromtimestamp(due, dt.UTC)
        if policy == "Forbid" and running:
            pass
        else:
            if policy == "Replace":
                actions += [Delete("Job", d.key(job), d.uid(job)) for job in running]
                running = []
            name = f"{d.name(cron_job)}-{int(due // 60)}"
            if all(d.name(job) != name for job in owned):
                actions.append(Create(_job(cron_job, name, moment)))
            status["lastScheduleTime"] = d.timestamp(due)
    done = [d.status(job).get("completionTime") or "" for job in owned]
    if any(done):
        status["lastSuccessfulTime"] = max(done)
    if running:
        status["active"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": d.name(job), "namespace": d.namespace(job)}
            for job in running
        ]
    again_s = None if following is None or spec.get("suspend") else max(0.0, following - now)
    return Outcome((*actions, *with_status(cron_job, status)), again_s)


def _due(spec: Json, last: str, now: float) -> tuple[float | None, float | None]:
    """The latest moment of the schedule that has passed since `last`, and the next one; None where there is none."""
    schedule = parse_schedule(spec["schedule"])
    try:
        zone: dt.tzinfo = zoneinfo.ZoneInfo(spec["timeZone"]) if spec.get("timeZone") else dt.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return None, None
    at: dt.datetime | None = dt.datetime.fromtimestamp(d.seconds(last) or now, zone)
    due: float | None = None
    for _ in range(_MISSED_MAX):
        assert at is not None
        at = schedule.after(at)
        if at is None or at.timestamp() > now:
            break
        due = at.timestamp()
    else:  # more were missed than are worth counting: go on from now
        at = schedule.after(dt.datetime.fromtimestamp(now, zone))
        due = None
    deadline_s = spec.get("startingDeadlineSeconds")
    if due is not None and deadline_s is not None and now - due > deadline_s:
        due = None
    return due, at.timestamp() if at is not None else None


def _too_old(spec: Json, owned: Sequence[Json]) -> list[Action]:
    """Ended Jobs beyond what is kept of each outcome."""
    actions: list[Action] = []
    for kind, limit in (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    ):
        ended = [job for job in owned if d.condition(job, kind) is not None and not d.terminating(job)]
        ended.sort(key=lambda job: job["metadata"].get("creationTimestamp", ""))
        actions += [Delete("Job", d.key(job), d.uid(job)) for job in ended[: max(0, len(ended) - limit)]]
    return actions


def _ended(job: Json) -> bool:
    return (d.condition(job, "Complete") or d.condition(job, "Failed")) is not None


def _job(cron_job: Json, name: str, moment: dt.datetime) -> Json:
    template = d.spec(cron_job)["jobTemplate"]
    metadata = d.part(template, "metadata")
    annotations = {
        **d.part(metadata, "annotations"),
        "batch.kubernetes.io/cronjob-scheduled-timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
    }
    made: Json = {
        "name": name,
        "namespace": d.namespace(cron_job),
        "annotations": annotations,
        "ownerReferences": [d.owner_reference(cron_job)],
    }
    if metadata.get("labels"):
        made["labels"] = metadata["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": template["spec"]}
