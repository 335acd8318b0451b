"""metrics.k8s.io: what the node has measured, for those who may read it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lateen.apiserver.client import Client
from lateen.apiserver.errors import NoMethodError, NotFoundError
from lateen.apiserver.operations import Create
from lateen.apiserver.store import Store
from lateen.lib.usage import Amount, Measured
from tests.unit.apiserver.api import serving
from tests.unit.apiserver.test_access import BORIS, client_of
from tests.unit.apiserver.test_access import tenants as tenants  # a fixture

Json = dict[str, Any]
METRICS = "/apis/metrics.k8s.io/v1beta1"


async def measured(client: Client, **amounts: Amount) -> Json:
    """A Pod per name with one container that uses so much, and what the API says of the first."""
    uids: dict[str, str] = {}
    for name in amounts:
        metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
        spec = {"containers": [{"name": "c", "command": ["true"]}]}
        made = await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        uids[name] = made["metadata"]["uid"]
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}})
    pods = {uids[name]: {"c": each} for name, each in amounts.items()}
    await client.post("/lateen/v1/usage", Measured(time.time(), 5.0, pods, {"here": Amount(1.5, 1 << 30)}))
    return await client.read(f"{METRICS}/namespaces/default/pods/{next(iter(amounts))}")


async def test_what_pods_and_nodes_use(store: Store) -> None:
    async with serving(store) as client:
        one = await measured(client, a=Amount(0.25, 64 << 20), b=Amount(0, 0))
        assert (one["kind"], one["window"], one["metadata"]["labels"]) == ("PodMetrics", "5.000s", {"app": "a"})
        assert one["containers"] == [{"name": "c", "usage": {"cpu": "250000000n", "memory": "65536Ki"}}]
        listed = await client.read(f"{METRICS}/pods", labelSelector="app=b")
        assert [each["metadata"]["name"] for each in listed["items"]] == ["b"]
        (node,) = (await client.read(f"{METRICS}/nodes"))["items"]
        assert (node["kind"], node["usage"]["cpu"]) == ("NodeMetrics", "1500000000n")
        for path in ("pods/nobody", "nodes/elsewhere", "services", "namespaces/default/nodes"):
            with pytest.raises(NotFoundError):
                await client.read(f"{METRICS}/{path}")
        with pytest.raises(NoMethodError):
            await client.post(f"{METRICS}/namespaces/default/pods", {})
        resources = (await client.read(METRICS))["resources"]
        assert {each["name"]: each["verbs"] for each in resources} == {
            "nodes": ["get", "list"],
            "pods": ["get", "list"],
        }


async def test_what_is_old_is_not_told(store: Store) -> None:
    """The node is away: its last word says nothing of now."""
    async with serving(store) as client:
        await measured(client, a=Amount(1, 1))
        uid = (await client.get("Pod", "a"))["metadata"]["uid"]
        await client.post("/lateen/v1/usage", Measured(time.time() - 120, 5.0, {uid: {"c": Amount(1, 1)}}, {}))
        assert (await client.read(f"{METRICS}/pods"))["items"] == []


async def test_a_tenant_reads_his_own_and_tells_nothing(tenants: Store) -> None:
    await tenants.write([Create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}})])
    async with client_of(tenants, BORIS) as boris:
        assert (await boris.get(f"{METRICS}/namespaces/b/pods")).status_code == 200
        assert (await boris.get(f"{METRICS}/namespaces/a/pods")).status_code == 403
        assert (await boris.get(f"{METRICS}/pods")).status_code == 403
        assert (await boris.get(f"{METRICS}/nodes")).status_code == 403
        assert (await boris.post("/lateen/v1/usage", json={})).status_code == 403
