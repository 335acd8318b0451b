"""Workloads of the user's own: replicas, Jobs, configuration, probes, what can't run; each with its sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lateen.platform.paths import PodPaths
from tests.e2e.mesh import Mesh, eventually

Json = dict[str, Any]
SHOP = "shop"

WEB: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": SHOP},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {
                        "name": "web",
                        "command": ["python3", "-m", "lateen.demo.details", "8000"],
                        "ports": [{"name": "http", "containerPort": 8000}],
                        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
                    }
                ]
            },
        },
    },
}
SERVICE: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": SHOP},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}


def pod(name: str, container: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SHOP, "labels": {"app": name}},
        "spec": {"containers": [{"name": "program", **container}], "terminationGracePeriodSeconds": 1, **spec},
    }


@pytest.fixture
def shop(mesh: Mesh) -> Iterator[Mesh]:
    """An empty namespace."""
    mesh.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}})
    yield mesh
    mesh.lateen("delete", "namespace", SHOP)
    eventually(lambda: mesh.get("pods", "-n", SHOP), lambda pods: not pods, within_s=20)


def one(mesh: Mesh, kind: str, name: str) -> Json:
    return json.loads(mesh.lateen("get", kind, name, "-n", SHOP, "-o", "json").stdout)


def live(mesh: Mesh) -> list[Json]:
    return [each for each in mesh.get("pods", "-n", SHOP) if not each["metadata"].get("deletionTimestamp")]


def container(mesh: Mesh, name: str, program: str = "program") -> Json:
    statuses = one(mesh, "pod", name).get("status", {}).get("containerStatuses", [])
    none: Json = {}
    return next((each for each in statuses if each["name"] == program), none)


def test_replicas_share_the_requests_and_follow_the_number_wanted(shop: Mesh) -> None:
    shop.apply(SERVICE, WEB)
    eventually(lambda: one(shop, "deployment", "web")["status"].get("availableReplicas"), lambda n: n == 3, 20)
    names = {each["metadata"]["name"] for each in live(shop)}
    assert len(names) == 3
    (page,) = shop.pods("productpage")
    program = "import json, urllib.request as u; print(json.load(u.urlopen('http://web.shop/details/0'))['podname'])"

    def answering() -> set[str]:
        asked = [shop.inside(page, "productpage", ["python3", "-c", program]) for _ in range(8)]
        assert all(ok for ok, _ in asked), asked
        return {output.split()[-1] for _, output in asked}

    seen: set[str] = set()
    eventually(lambda: seen.update(answering()), lambda _: seen == names, within_s=20)
    shop.apply({**WEB, "spec": {**WEB["spec"], "replicas": 1}})
    eventually(lambda: shop.get("pods", "-n", SHOP), lambda pods: len(pods) == 1, 20)
    seen.clear()
    eventually(answering, lambda answered: len(answered) == 1)
    slices = shop.get("endpointslices", "-n", SHOP)
    assert sum(len(each["endpoints"]) for each in slices) == 1


def test_a_job_ends_with_its_sidecar(shop: Mesh) -> None:
    template = pod(
        "", {"command": ["sh", "-c", 'echo counted; test -n "$JOB"'], "env": [{"name": "JOB", "value": "1"}]}
    )
    job: Json = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "count", "namespace": SHOP},
        "spec": {"completions": 2, "template": {"spec": {**template["spec"], "restartPolicy": "Never"}}},
    }
    shop.apply(job)
    status = eventually(lambda: one(shop, "job", "count").get("status", {}), lambda s: s.get("succeeded") == 2, 20)
    assert status["conditions"][0]["type"] == "Complete"
    pods = live(shop)
    assert [each["status"]["phase"] for each in pods] == ["Succeeded", "Succeeded"]
    assert "counted" in shop.lateen("logs", pods[0]["metadata"]["name"], "-n", SHOP).stdout
    # nothing of them runs any more, the proxies included
    sockets = [PodPaths(shop.settings.run_dir, each["metadata"]["uid"]).control for each in pods]
    eventually(lambda: [each for each in sockets if Path(each).exists()], lambda left: not left)


def test_configuration_reaches_the_program(shop: Mesh) -> None:
    shop.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": SHOP}, "data": {"A": "red"}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": SHOP},
            "stringData": {"B": "blue"},
        },
    )
    shop.apply(
        pod(
            "reader",
            {
                "command": ["sh", "-c", 'echo "$A $B $NAME $(cat /etc/c/A /etc/s/B)"; exec sleep 100'],
                "envFrom": [{"configMapRef": {"name": "c"}}],
                "env": [
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "B"}}},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "volumeMounts": [{"name": "c", "mountPath": "/etc/c"}, {"name": "s", "mountPath": "/etc/s"}],
            },
            volumes=[{"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}],
        )
    )
    said = eventually(lambda: shop.lateen("logs", "reader", "-n", SHOP, expect=None).stdout, lambda out: "red" in out)
    assert "red blue reader redblue" in said


def test_a_program_that_stops_answering_is_restarted(shop: Mesh) -> None:
    liveness = {"exec": {"command": ["test", "!", "-e", "/tmp/stuck"]}, "periodSeconds": 1, "failureThreshold": 1}
    shop.apply(
        pod("stuck", {"command": ["sh", "-c", "sleep 2; touch /tmp/stuck; sleep 100"], "livenessProbe": liveness})
    )
    seen = eventually(lambda: container(shop, "stuck"), lambda each: each.get("restartCount", 0) >= 1, within_s=20)
    assert seen["lastState"]["terminated"]["exitCode"] != 0


def test_a_container_without_a_command_says_so(shop: Mesh) -> None:
    shop.apply(pod("imaged", {"image": "example/program:1"}))
    waiting = eventually(lambda: container(shop, "imaged").get("state", {}).get("waiting", {}))
    assert waiting["reason"] == "NoCommand"
    findings = one(shop, "pod", "imaged")["status"]["findings"]
    assert any("has no command" in each["message"] for each in findings)
    assert "has no command" in shop.lateen("ps").stdout
