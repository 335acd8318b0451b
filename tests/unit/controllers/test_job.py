"""Jobs: how many Pods run, when a Job is over, and what becomes of it then."""

from __future__ import annotations

from typing import Any

import pytest

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Create, Delete, Status
from lateen.platform.controllers.job import INDEX_ANNOTATION, reconcile
from tests.unit.controllers.documents import NOW, Mesh


def job(**spec: Any) -> Json:
    template: Json = {"spec": {"restartPolicy": "Never", "containers": [{"name": "work", "command": ["work"]}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "import", "namespace": "shop", "uid": "u-import"},
        "spec": {"template": template, **spec},
    }


def step(mesh: Mesh, now: float = NOW) -> None:
    mesh.perform(reconcile(mesh.all("Job")[0], mesh.pods, now))


def end(pod: Json, phase: str, at: float = NOW) -> None:
    ended = {"exitCode": 0 if phase == "Succeeded" else 1, "finishedAt": d.timestamp(at)}
    pod["status"] = {"phase": phase, "containerStatuses": [{"name": "work", "state": {"terminated": ended}}]}


def verdict(mesh: Mesh) -> tuple[str, str] | None:
    found = d.parts(d.status(mesh.all("Job")[0]), "conditions")
    return (found[0]["type"], found[0]["reason"]) if found else None


def test_a_job_completes_after_one_success() -> None:
    mesh = Mesh(job())
    step(mesh)
    (pod,) = mesh.pods
    assert d.labels(pod)["job-name"] == "import"
    end(pod, "Succeeded")
    step(mesh)
    assert verdict(mesh) == ("Complete", "CompletionsReached")
    assert d.status(mesh.all("Job")[0])["completionTime"]
    assert not d.terminating(pod)  # kept for its logs
    assert reconcile(mesh.all("Job")[0], mesh.pods, NOW).actions == ()


def test_parallelism_bounds_the_pods_at_once_until_all_completions() -> None:
    mesh = Mesh(job(completions=5, parallelism=2))
    most = 0
    for _ in range(10):
        step(mesh)
        step(mesh)
        live = [each for each in mesh.pods if d.active(each)]
        most = max(most, len(live))
        if not live:
            break
        end(live[0], "Succeeded")
    assert most == 2
    assert len(mesh.pods) == 5
    assert verdict(mesh) == ("Complete", "CompletionsReached")


def test_failures_are_retried_with_growing_waits_up_to_the_limit() -> None:
    mesh = Mesh(job(backoffLimit=2))
    waits: list[float | None] = []
    now = NOW
    for _ in range(3):
        step(mesh, now)
        (live,) = [each for each in mesh.pods if d.active(each)]
        end(live, "Failed", at=now)
        waits.append(reconcile(mesh.all("Job")[0], mesh.pods, now).again_s)
        step(mesh, now)
        now += waits[-1] or 0
    assert waits == [pytest.approx(10), pytest.approx(20), None]
    assert verdict(mesh) == ("Failed", "BackoffLimitExceeded")
    assert len(mesh.pods) == 3


def test_restarts_inside_a_pod_count_as_failures() -> None:
    mesh = Mesh(job(backoffLimit=3))
    step(mesh)
    mesh.pods[0]["spec"]["restartPolicy"] = "OnFailure"
    mesh.pods[0]["status"] = {"phase": "Running", "containerStatuses": [{"name": "work", "restartCount": 4}]}
    step(mesh)
    assert verdict(mesh) == ("Failed", "BackoffLimitExceeded")
    assert d.terminating(mesh.pods[0])


def test_a_job_that_runs_too_long_fails() -> None:
    mesh = Mesh(job(activeDeadlineSeconds=60))
    step(mesh)
    assert reconcile(mesh.all("Job")[0], mesh.pods, NOW + 20).again_s == pytest.approx(40)
    step(mesh, NOW + 60)
    assert verdict(mesh) == ("Failed", "DeadlineExceeded")
    assert d.terminating(mesh.pods[0])


def test_without_completions_one_success_lets_the_others_finish() -> None:
    mesh = Mesh(job(parallelism=3))
    step(mesh)
    end(mesh.pods[0], "Succeeded")
    step(mesh)
    assert verdict(mesh) is None
    assert len(mesh.pods) == 3
    for each in mesh.pods[1:]:
        end(each, "Succeeded")
    step(mesh)
    assert verdict(mesh) == ("Complete", "CompletionsReached")


def test_indexed_pods_know_their_number() -> None:
    mesh = Mesh(job(completionMode="Indexed", completions=3, parallelism=2))
    step(mesh)
    assert [d.annotations_of(each)[INDEX_ANNOTATION] for each in mesh.pods] == ["0", "1"]
    assert mesh.pods[1]["spec"]["containers"][0]["env"] == [{"name": "JOB_COMPLETION_INDEX", "value": "1"}]
    end(mesh.pods[0], "Succeeded")
    step(mesh)
    assert [d.annotations_of(each)[INDEX_ANNOTATION] for each in mesh.pods] == ["0", "1", "2"]


def test_a_suspended_job_has_no_pods() -> None:
    outcome = reconcile(job(suspend=True), [], NOW)
    assert not any(isinstance(action, Create) for action in outcome.actions)


def test_an_ended_job_goes_after_its_time_to_live() -> None:
    mesh = Mesh(job(ttlSecondsAfterFinished=30))
    step(mesh)
    end(mesh.pods[0], "Succeeded")
    (status,) = (each for each in reconcile(mesh.all("Job")[0], mesh.pods, NOW).actions if isinstance(each, Status))
    ended = {**mesh.all("Job")[0], "status": status.status}
    assert reconcile(ended, mesh.pods, NOW + 10).again_s == pytest.approx(20)
    assert reconcile(ended, mesh.pods, NOW + 30).actions == (Delete("Job", ("shop", "import"), "u-import"),)
