"""ReplicaSets, StatefulSets, DaemonSets and CronJobs: which Pods and Jobs there are, and in which order."""

from __future__ import annotations

from typing import Any

from lateen.api.struct import Json
from lateen.platform.controllers import cron_job, sets
from lateen.platform.controllers import documents as d
from tests.unit.controllers.documents import NOW, Mesh


def workload(kind: str, **spec: Any) -> Json:
    template: Json = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-web", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def ready(pod: Json) -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": d.timestamp(NOW)}
    pod["status"] = {"phase": "Running", "conditions": [condition]}


def names(mesh: Mesh) -> list[str]:
    return sorted(d.name(pod) for pod in mesh.pods if d.active(pod))


def step(mesh: Mesh, kind: str) -> None:
    reconcile = {"ReplicaSet": sets.replica_set, "StatefulSet": sets.stateful_set, "DaemonSet": sets.daemon_set}[kind]
    mesh.perform(reconcile(mesh.all(kind)[0], mesh.pods, NOW))
    mesh.gone()


def test_a_replica_set_keeps_its_number() -> None:
    mesh = Mesh(workload("ReplicaSet", replicas=3))
    step(mesh, "ReplicaSet")
    assert len(names(mesh)) == 3
    for pod in mesh.pods:
        ready(pod)
    mesh.pods[0]["status"]["phase"] = "Failed"
    step(mesh, "ReplicaSet")
    step(mesh, "ReplicaSet")
    assert len(names(mesh)) == 3
    mesh.all("ReplicaSet")[0]["spec"]["replicas"] = 1
    step(mesh, "ReplicaSet")
    assert len(names(mesh)) == 1
    assert d.status(mesh.all("ReplicaSet")[0])["readyReplicas"] >= 1


def test_a_stateful_set_comes_up_in_order_and_goes_in_reverse() -> None:
    mesh = Mesh(workload("StatefulSet", replicas=3))
    step(mesh, "StatefulSet")
    step(mesh, "StatefulSet")
    assert names(mesh) == ["web-0"]
    for expected in (["web-0", "web-1"], ["web-0", "web-1", "web-2"]):
        for pod in mesh.pods:
            ready(pod)
        step(mesh, "StatefulSet")
        assert names(mesh) == expected
    for pod in mesh.pods:
        ready(pod)
    mesh.all("StatefulSet")[0]["spec"]["replicas"] = 1
    step(mesh, "StatefulSet")
    assert names(mesh) == ["web-0", "web-1"]


def test_a_stateful_set_replaces_from_the_highest_number_down_to_its_partition() -> None:
    mesh = Mesh(workload("StatefulSet", replicas=3, podManagementPolicy="Parallel"))
    step(mesh, "StatefulSet")
    for pod in mesh.pods:
        ready(pod)
    spec = mesh.all("StatefulSet")[0]["spec"]
    spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    spec["template"]["spec"]["containers"][0]["image"] = "2"
    gone: list[str] = []
    for _ in range(8):
        before = {d.name(pod): d.uid(pod) for pod in mesh.pods}
        step(mesh, "StatefulSet")
        gone += [name for name in before if name not in names(mesh)]
        for pod in mesh.pods:
            ready(pod)
    assert gone == ["web-2", "web-1"]
    status = d.status(mesh.all("StatefulSet")[0])
    assert (status["updatedReplicas"], status["updateRevision"] != status["currentRevision"]) == (2, True)


def test_a_daemon_set_has_one_pod_and_replaces_it() -> None:
    mesh = Mesh(workload("DaemonSet"))
    step(mesh, "DaemonSet")
    (first,) = names(mesh)
    ready(mesh.pods[0])
    mesh.all("DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0]["image"] = "2"
    for _ in range(3):
        step(mesh, "DaemonSet")
    (second,) = names(mesh)
    assert first != second
    assert d.status(mesh.all("DaemonSet")[0])["updatedNumberScheduled"] == 1


def cron(**spec: Any) -> Json:
    job: Json = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "work"}]}}}}
    metadata = {"name": "tick", "namespace": "shop", "uid": "u-tick", "creationTimestamp": d.timestamp(NOW)}
    spec = {"schedule": "*/5 * * * *", "jobTemplate": job, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}


def test_a_cron_job_makes_one_job_for_each_moment() -> None:
    mesh = Mesh(cron())
    first = cron_job.reconcile(mesh.all("CronJob")[0], mesh.all("Job"), NOW)
    assert first.again_s is not None
    assert 0 < first.again_s <= 300
    for late_s in (0.0, 1.0, 300.0):
        mesh.perform(cron_job.reconcile(mesh.all("CronJob")[0], mesh.all("Job"), NOW + first.again_s + late_s))
    assert len(mesh.all("Job")) == 2
    assert len({d.name(job) for job in mesh.all("Job")}) == 2


def test_a_cron_job_that_forbids_waits_for_the_running_job_and_one_that_replaces_ends_it() -> None:
    for policy, expected in (("Forbid", 1), ("Replace", 1), ("Allow", 2)):
        mesh = Mesh(cron(concurrencyPolicy=policy))
        for at in (301.0, 601.0):
            mesh.perform(cron_job.reconcile(mesh.all("CronJob")[0], mesh.all("Job"), NOW + at))
        live = [job for job in mesh.all("Job") if not d.terminating(job)]
        assert (policy, len(live)) == (policy, expected)


def test_of_missed_moments_only_the_last_counts() -> None:
    mesh = Mesh(cron())
    mesh.perform(cron_job.reconcile(mesh.all("CronJob")[0], mesh.all("Job"), NOW + 86_400))
    assert len(mesh.all("Job")) == 1
    late = Mesh(cron(startingDeadlineSeconds=10, schedule="0 0 1 1 *"))
    late.perform(cron_job.reconcile(late.all("CronJob")[0], late.all("Job"), NOW + 400 * 86_400))
    assert late.all("Job") == []
