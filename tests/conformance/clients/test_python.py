# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""Python's Kubernetes clients, unmodified: kr8s, kubernetes-asyncio, and an operator as kopf's documentation has it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kr8s.asyncio
import kubernetes_asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment
from kubernetes_asyncio import client, config, watch

from tests.conformance.clients.conftest import DEADLINE_S, Served

Json = dict[str, Any]

pytestmark = pytest.mark.filterwarnings(  # kr8s never closes its connections
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

OPERATOR = """\
import kopf

@kopf.on.create('ephemeralvolumeclaims')
def create_fn(spec, name, namespace, logger, **kwargs):
    size = spec.get('size')
    if not size:
        raise kopf.PermanentError(f"Size must be set. Got {size!r}.")
    logger.info(f"claim of {size}")
    return {'pvc-name': f"{name}-claim"}

@kopf.on.update('ephemeralvolumeclaims')
def update_fn(spec, status, namespace, logger, **kwargs):
    return {'size': spec.get('size')}

@kopf.on.delete('ephemeralvolumeclaims')
def delete_fn(name, logger, **kwargs):
    logger.info(f"goodbye {name}")
"""
"""After https://docs.kopf.dev/en/stable/walkthrough/, with handlers that need no storage."""

DEFINITION: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ephemeralvolumeclaims.kopf.dev"},
    "spec": {
        "scope": "Namespaced",
        "group": "kopf.dev",
        "names": {
            "kind": "EphemeralVolumeClaim",
            "plural": "ephemeralvolumeclaims",
            "singular": "ephemeralvolumeclaim",
            "shortNames": ["evcs", "evc"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@contextlib.asynccontextmanager
async def connected(served: Served) -> AsyncIterator[Any]:
    """kr8s on that API; it has no way to end its connections, so this does."""
    api = await kr8s.asyncio.api(kubeconfig=str(served.kubeconfig))
    yield api
    await api._session.aclose()
    gc.collect()


def deployment(name: str) -> Json:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "web", "command": ["sleep"]}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def test_kr8s(served: Served) -> None:
    async with connected(served) as api:
        assert (await api.version())["major"] == "1"
        body = {"metadata": {"name": "a", "namespace": "default", "labels": {"app": "x"}}, "data": {"x": "1"}}
        made = await ConfigMap(body, api=api)
        await made.create()
        assert await made.exists()
        await made.patch({"data": {"y": "2"}})
        assert made.raw["data"] == {"x": "1", "y": "2"}
        await made.label(tier="front")
        found = [each async for each in api.get("configmaps", namespace="default", label_selector={"app": "x"})]
        assert [each.name for each in found] == ["a"]
        web = await Deployment(deployment("web"), api=api)
        await web.create()
        await web.scale(0)
        assert web.replicas == 0
        await made.delete()
        async with asyncio.timeout(DEADLINE_S):
            await made.wait("delete")
        assert not await made.exists()


async def test_kubernetes_asyncio(served: Served) -> None:
    await config.load_kube_config(config_file=str(served.kubeconfig))
    async with client.ApiClient() as api:
        core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
        await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="shop")))
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"x": "1"})
        await core.create_namespaced_config_map("shop", body)
        listed = await core.list_namespaced_config_map("shop")
        events: list[tuple[str, str]] = []

        async def follow() -> None:
            since = listed.metadata.resource_version
            async with watch.Watch() as following:
                async for event in following.stream(
                    core.list_namespaced_config_map, "shop", resource_version=since, timeout_seconds=DEADLINE_S
                ):
                    events.append((event["type"], event["object"].metadata.name))
                    if event["type"] == "DELETED":
                        return

        task = asyncio.create_task(follow())
        await core.patch_namespaced_config_map("a", "shop", {"data": {"y": "2"}})
        await core.delete_namespaced_config_map("a", "shop")
        async with asyncio.timeout(DEADLINE_S):
            await task
        assert events == [("MODIFIED", "a"), ("DELETED", "a")]
        await apps.create_namespaced_deployment("shop", {**deployment("web"), "metadata": {"name": "web"}})
        scaled = await apps.patch_namespaced_deployment_scale("web", "shop", {"spec": {"replicas": 4}})
        assert scaled.spec.replicas == 4
        with pytest.raises(client.ApiException) as refused:
            await core.read_namespaced_config_map("nothing", "shop")
        assert refused.value.status == 404
    assert kubernetes_asyncio.__version__


async def test_a_kopf_operator(served: Served, tmp_path: Path) -> None:
    async with connected(served) as api:
        definition = await kr8s.asyncio.objects.CustomResourceDefinition(DEFINITION, api=api)
        await definition.create()
        async with asyncio.timeout(DEADLINE_S):
            await definition.wait("condition=Established")
        (tmp_path / "ephemeral.py").write_text(OPERATOR)
        with (tmp_path / "kopf.log").open("wb") as log:
            operator = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kopf", "run", "ephemeral.py", "--namespace", "default", "--standalone"),
                cwd=tmp_path,
                env={"KUBECONFIG": str(served.kubeconfig), "PATH": "/usr/bin", "HOME": str(tmp_path)},
                stdout=log,
                stderr=log,
            )
        try:
            claims = kr8s.asyncio.objects.new_class(
                "EphemeralVolumeClaim", version="kopf.dev/v1", plural="ephemeralvolumeclaims"
            )
            body = {"metadata": {"name": "my-claim", "namespace": "default"}, "spec": {"size": "1G"}}
            claim = await claims(body, api=api)
            await claim.create()

            async def status(key: str) -> Any:
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        await claim.refresh()
                        if key in claim.raw.get("status", {}):
                            return claim.raw["status"][key]
                        assert operator.returncode is None, (tmp_path / "kopf.log").read_text()
                        await asyncio.sleep(0.1)

            assert await status("create_fn") == {"pvc-name": "my-claim-claim"}
            assert claim.raw["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
            await claim.patch({"spec": {"size": "2G"}})
            assert await status("update_fn") == {"size": "2G"}
            await claim.delete()
            async with asyncio.timeout(DEADLINE_S):
                await claim.wait("delete")
        finally:
            if operator.returncode is None:
                operator.terminate()
            await operator.wait()
        said = (tmp_path / "kopf.log").read_text()
        assert "goodbye my-claim" in said
        assert "Traceback" not in said
