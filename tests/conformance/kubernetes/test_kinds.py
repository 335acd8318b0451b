"""What single kinds do on their own account, the same on lateen's API and on a real one."""

from __future__ import annotations

from typing import Any

import httpx

from tests.conformance.kubernetes.test_conventions import MERGE, Json, made, refused

HPA_V1 = "/apis/autoscaling/v1/namespaces/{}/horizontalpodautoscalers"
HPA_V2 = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers"


async def test_string_data_of_a_secret_is_kept_as_data(api: httpx.AsyncClient, space: str) -> None:
    body: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hunter2"}}
    secret = await made(api, f"/api/v1/namespaces/{space}/secrets", {**body, "data": {"b": "Zm9v"}})
    assert secret["data"] == {"a": "aHVudGVyMg==", "b": "Zm9v"}
    assert "stringData" not in secret
    assert secret["type"] == "Opaque"


async def test_a_job_gets_a_selector_of_its_own(api: httpx.AsyncClient, space: str) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    job = await made(api, f"/apis/batch/v1/namespaces/{space}/jobs", body)
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/controller-uid"] == uid
    assert labels["batch.kubernetes.io/job-name"] == "j"


def _autoscaler(**spec: Any) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    given = {"scaleTargetRef": target, "maxReplicas": 5, **spec}
    return {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": given}


def _cpu(percent: int) -> Json:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


async def test_an_autoscaler_in_both_of_its_versions(api: httpx.AsyncClient, space: str) -> None:
    old = {"apiVersion": "autoscaling/v1", **_autoscaler(targetCPUUtilizationPercentage=60)}
    shown = await made(api, HPA_V1.format(space), old)
    assert (shown["apiVersion"], shown["spec"]["targetCPUUtilizationPercentage"]) == ("autoscaling/v1", 60)
    assert shown["spec"]["minReplicas"] == 1
    new = (await api.get(HPA_V2.format(space) + "/web")).json()
    assert (new["apiVersion"], new["spec"]["metrics"]) == ("autoscaling/v2", [_cpu(60)])
    memory = {"name": "memory", "target": {"type": "AverageValue", "averageValue": "64Mi"}}
    change = {"spec": {"metrics": [_cpu(70), {"type": "Resource", "resource": memory}]}}
    await api.patch(HPA_V2.format(space) + "/web", json=change, headers=MERGE)
    # what the old version has no field for is not lost by writing it
    answer = await api.patch(HPA_V1.format(space) + "/web", json={"spec": {"maxReplicas": 7}}, headers=MERGE)
    assert (answer.json()["spec"]["targetCPUUtilizationPercentage"], answer.json()["spec"]["maxReplicas"]) == (70, 7)
    new = (await api.get(HPA_V2.format(space) + "/web")).json()
    assert sorted(each["resource"]["name"] for each in new["spec"]["metrics"]) == ["cpu", "memory"]
    listed = (await api.get(HPA_V1.format(space))).json()
    assert [each["spec"]["maxReplicas"] for each in listed["items"]] == [7]


async def test_an_autoscaler_that_cannot_be_is_refused(api: httpx.AsyncClient, space: str) -> None:
    for spec in ({"maxReplicas": 0}, {"minReplicas": 9}, {"metrics": [{"type": "Resource"}]}):
        body = {"apiVersion": "autoscaling/v2", **_autoscaler(**spec)}
        refused(await api.post(HPA_V2.format(space), json=body), 422, "Invalid")


async def test_without_metrics_an_autoscaler_looks_at_the_processor(api: httpx.AsyncClient, space: str) -> None:
    body = {"apiVersion": "autoscaling/v2", **_autoscaler()}
    assert (await made(api, HPA_V2.format(space), body))["spec"]["metrics"] == [_cpu(80)]


async def test_events_have_two_names(api: httpx.AsyncClient, space: str) -> None:
    newer = f"/apis/events.k8s.io/v1/namespaces/{space}/events"
    older = f"/api/v1/namespaces/{space}/events"
    about = {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": space}
    event: Json = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-11-29T11:24:50.000000Z",
        "regarding": about,
        "note": "it happened",
        "reason": "Happened",
        "action": "Do",
        "type": "Normal",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
    }
    assert (await made(api, newer, event))["note"] == "it happened"
    seen = (await api.get(f"{older}/e")).json()
    assert (seen["message"], seen["involvedObject"], seen["reportingComponent"]) == (
        "it happened",
        about,
        "example.com/c",
    )
    old: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "o"},
        "involvedObject": about,
        "message": "once",
        "reason": "Once",
        "source": {"component": "c"},
        "count": 3,
        "type": "Warning",
    }
    await made(api, older, old)
    shown = (await api.get(f"{newer}/o")).json()
    assert (shown["note"], shown["deprecatedCount"], shown["deprecatedSource"]) == ("once", 3, {"component": "c"})
    found = (await api.get(newer, params={"fieldSelector": "type=Warning"})).json()
    assert [each["metadata"]["name"] for each in found["items"]] == ["o"]
    await api.delete(f"{newer}/e")
    refused(await api.get(f"{older}/e"), 404, "NotFound")


async def test_a_patch_that_cannot_be_done_is_invalid(api: httpx.AsyncClient, space: str) -> None:
    body: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    path = f"/api/v1/namespaces/{space}/configmaps"
    await made(api, path, body)
    change = [{"op": "remove", "path": "/data/nothing"}]
    refused(
        await api.patch(f"{path}/c", json=change, headers={"content-type": "application/json-patch+json"}),
        422,
        "Invalid",
    )


async def test_the_definitions_in_protobuf(api: httpx.AsyncClient) -> None:
    """What a Go client reads of them is tried by kubectl itself; here, that it is that form and has the kinds."""
    kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = await api.get("/openapi/v2", headers={"accept": kind})
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x0a\x032.0")
    assert b"x-kubernetes-group-version-kind" in answer.content
    assert b"Deployment" in answer.content
