"""Jobs: run Pods until enough of them have succeeded.

As many Pods as `parallelism` allows run at once until `completions` have succeeded; without `completions` one
success lets the others finish and ends the Job. A failed Pod is replaced after a growing wait, and more than
`backoffLimit` failures (for restartPolicy OnFailure container restarts count) fail the Job, as does running longer
than `activeDeadlineSeconds`. Pods of an ended Job stay for their logs until the Job is deleted. Indexed Jobs give
each Pod its number in JOB_COMPLETION_INDEX.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, soonest, with_status

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
BACKOFF_LIMIT = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 10, 360


def reconcile(job: Json, pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one Job, given all Pods of its namespace."""
    if d.terminating(job):
        return Outcome()
    spec, before = d.spec(job), d.status(job)
    if ended := d.condition(job, "Complete") or d.condition(job, "Failed"):
        return _after(job, ended, now)
    owned = [pod for pod in pods if d.owned_by(pod, job)]
    live = [pod for pod in owned if d.active(pod)]
    succeeded = [pod for pod in owned if d.phase(pod) == "Succeeded"]
    failed = [pod for pod in owned if d.phase(pod) == "Failed"]
    started = d.seconds(before.get("startTime") or "") or now
    deadline_s = spec.get("activeDeadlineSeconds")
    left_s = None if deadline_s is None else started + deadline_s - now
    verdict: Json | None = None
    if left_s is not None and left_s <= 0:
        verdict = _verdict("Failed", "DeadlineExceeded", f"it ran for longer than {deadline_s} s")
    elif _failures(owned) > spec.get("backoffLimit", BACKOFF_LIMIT):
        verdict = _verdict("Failed", "BackoffLimitExceeded", f"{_failures(owned)} of its Pods' runs failed")
    elif _enough(spec, len(succeeded)) and not (live and spec.get("completions") is None):
        verdict = _verdict("Complete", "CompletionsReached", "enough of its Pods succeeded")
    stop = verdict is not None or bool(spec.get("suspend"))
    wait_s = _wait_s(failed, now)
    actions: list[Action] = []
    if stop:
        actions += [Delete("Pod", d.key(pod), d.uid(pod)) for pod in live]
    elif wait_s is None:
        actions += [Create(_pod(job, index), job) for index in _missing(spec, live, succeeded)]
    status: Json = {
        "active": 0 if stop else len(live),
        "ready": 0 if stop else sum(d.ready(pod) for pod in live),
        "succeeded": len(succeeded),
        "failed": len(failed),
        "startTime": before.get("startTime") or d.timestamp(now),
    }
    if verdict is not None:
        status["conditions"] = d.conditions(d.parts(before, "conditions"), (verdict,), now)
        if verdict["type"] == "Complete":
            status["completionTime"] = d.timestamp(now)
    return Outcome((*actions, *with_status(job, status)), None if stop else soonest(wait_s, left_s))


def _after(job: Json, ended: Json, now: float) -> Outcome:
    """An ended Job goes when its time to live has passed."""
    ttl_s = d.spec(job).get("ttlSecondsAfterFinished")
    if ttl_s is None:
        return Outcome()
    left_s = (d.seconds(ended.get("lastTransitionTime") or "") or now) + ttl_s - now
    return Outcome((Delete("Job", d.key(job), d.uid(job)),)) if left_s <= 0 else Outcome(again_s=left_s)


def _verdict(kind: str, reason: str, message: str) -> Json:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def _enough(spec: Json, succeeded: int) -> bool:
    return succeeded >= (spec.get("completions") or 1)


def _failures(pods: Sequence[Json]) -> int:
    """Failed Pods, plus the restarts of containers in Pods that restart them themselves."""
    failed = sum(d.phase(pod) == "Failed" for pod in pods)
    restarts = sum(
        container.get("restartCount", 0)
        for pod in pods
        if d.spec(pod).get("restartPolicy") == "OnFailure"
        for container in d.parts(d.status(pod), "containerStatuses")
    )
    return failed + restarts


def _wait_s(failed: Sequence[Json], now: float) -> float | None:
    """How long to wait before the next Pod: 10 s after the first failure, doubling up to 6 minutes."""
    if not failed:
        return None
    wait_s = min(FIRST_WAIT_S * 2 ** (len(failed) - 1), LONGEST_WAIT_S)
    left_s = max(_finished_at(pod) for pod in failed) + wait_s - now
    return left_s if left_s > 0 else None


def _finished_at(pod: Json) -> float:
    """When the last of the Pod's containers ended."""
    times = [
        d.seconds(d.part(d.part(container, "state"), "terminated").get("finishedAt") or "") or 0.0
        for container in d.parts(d.status(pod), "containerStatuses")
    ]
    return max(times, default=0.0)


def _missing(spec: Json, live: Sequence[Json], succeeded: Sequence[Json]) -> list[int | None]:
    """The Pods to make now: their indexes, or None each for a Job that isn't Indexed."""
    parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
    if spec.get("completionMode") == "Indexed":
        taken = {d.annotations_of(pod).get(INDEX_ANNOTATION) for pod in (*live, *succeeded)}
        free = [index for index in range(completions or 0) if str(index) not in taken]
        return [*free[: max(0, parallelism - len(live))]]
    left = parallelism if completions is None else completions - len(succeeded)
    if completions is None and succeeded:
        left = 0
    return [None] * max(0, min(parallelism, left) - len(live))


def _pod(job: Json, index: int | None) -> Json:
    template = d.spec(job)["template"]
    metadata, spec = d.part(template, "metadata"), d.part(template, "spec")
    annotations = dict(d.part(metadata, "annotations"))
    name = d.name(job)
    if index is not None:
        annotations[INDEX_ANNOTATION] = str(index)
        name = f"{name}-{index}"
        given = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        spec = {**spec, "containers": [{**each, "env": [*d.parts(each, "env"), given]} for each in spec["containers"]]}
    made: Json = {
        "generateName": f"{name}-",
        "namespace": d.namespace(job),
        "labels": {
            **d.part(metadata, "labels"),
            "batch.kubernetes.io/job-name": d.name(job),
            "batch.kubernetes.io/controller-uid": d.uid(job),
            "job-name": d.name(job),
        },
        "ownerReferences": [d.owner_reference(job)],
    }
    if annotations:
        made["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": spec}
