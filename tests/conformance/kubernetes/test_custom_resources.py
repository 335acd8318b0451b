"""CustomResourceDefinitions: structural schemas, defaults, rules, parts and columns, the same on both servers."""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.conformance.kubernetes.test_conventions import APPLY, DEADLINE_S, MERGE, made, refused

Json = dict[str, Any]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

SPEC: Json = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
        "least": {"type": "integer"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "either": {"x-kubernetes-int-or-string": True},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port"],
            "items": {
                "type": "object",
                "required": ["port"],
                "properties": {"port": {"type": "integer"}, "name": {"type": "string", "default": "http"}},
            },
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.least) || self.least <= self.size", "message": "least is more than size"},
        {"rule": "self.size >= oldSelf.size", "message": "it never shrinks"},
    ],
}


def definition(group: str) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"boxes.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "shortNames": ["bx"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": copy.deepcopy(SPEC),
                                "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                            },
                        }
                    },
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                }
            ],
        },
    }


@pytest.fixture
async def group(api: httpx.AsyncClient) -> AsyncIterator[str]:
    """The group of a kind `Box` that the server has learned."""
    name = f"g{secrets.token_hex(4)}.example.com"
    await made(api, DEFINITIONS, definition(name))
    path = f"{DEFINITIONS}/boxes.{name}"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            conditions = (await api.get(path)).json().get("status", {}).get("conditions") or ()
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                break
            await asyncio.sleep(0.05)
        while (await api.get(f"/apis/{name}/v1/boxes")).status_code == 404:
            await asyncio.sleep(0.05)
    yield name
    await api.delete(path)


def boxes(group: str, space: str, name: str = "") -> str:
    return f"/apis/{group}/v1/namespaces/{space}/boxes" + (f"/{name}" if name else "")


def box(group: str, **spec: Any) -> Json:
    return {"apiVersion": f"{group}/v1", "kind": "Box", "metadata": {"name": "a"}, "spec": spec}


async def test_defaults_and_unknown_fields(api: httpx.AsyncClient, space: str, group: str) -> None:
    body = box(group, size=1, unknown=1, free={"any": 1}, either="x", ports=[{"port": 80}])
    answer = await api.post(boxes(group, space), json=body, params={"fieldValidation": "Strict"})
    assert 'unknown field "spec.unknown"' in refused(answer, 400, "BadRequest")["message"]
    first = await made(api, boxes(group, space), body)
    assert first["spec"] == {
        "size": 1,
        "colour": "red",
        "free": {"any": 1},
        "either": "x",
        "ports": [{"port": 80, "name": "http"}],
    }
    assert first["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.size"),
        ({"size": "many"}, "spec.size"),
        ({"size": 11}, "spec.size"),
        ({"size": 1, "colour": "blue"}, "spec.colour"),
        ({"size": 1, "name": "Upper"}, "spec.name"),
        ({"size": 1, "name": "toolong"}, "spec.name"),
        ({"size": 1, "ports": [{"port": 1}, {"port": 1}]}, "spec.ports[1]"),
        ({"size": 1, "least": 2}, "spec"),
    ],
)
async def test_what_the_schema_refuses(api: httpx.AsyncClient, space: str, group: str, spec: Json, field: str) -> None:
    status = refused(await api.post(boxes(group, space), json=box(group, **spec)), 422, "Invalid")
    assert field in [each["field"] for each in status["details"]["causes"]]


async def test_rules_about_changes(api: httpx.AsyncClient, space: str, group: str) -> None:
    await made(api, boxes(group, space), box(group, size=5))
    smaller = await api.patch(boxes(group, space, "a"), json={"spec": {"size": 4}}, headers=MERGE)
    assert "it never shrinks" in refused(smaller, 422, "Invalid")["message"]
    larger = await api.patch(boxes(group, space, "a"), json={"spec": {"size": 6}}, headers=MERGE)
    assert larger.status_code == 200
    assert larger.json()["metadata"]["generation"] == 2


async def test_parts_of_custom_resources(api: httpx.AsyncClient, space: str, group: str) -> None:
    await made(api, boxes(group, space), {**box(group, size=2), "status": {"size": 7}})
    path = boxes(group, space, "a")
    patched = await api.patch(f"{path}/status", json={"status": {"size": 2}, "spec": {"size": 9}}, headers=MERGE)
    assert (patched.json()["status"], patched.json()["spec"]["size"]) == ({"size": 2}, 2)
    scale = (await api.get(f"{path}/scale")).json()
    assert (scale["spec"], scale["status"]["replicas"]) == ({"replicas": 2}, 2)
    assert (await api.patch(f"{path}/scale", json={"spec": {"replicas": 3}}, headers=MERGE)).status_code == 200
    assert (await api.get(path)).json()["spec"]["size"] == 3
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = (await api.get(path, headers=accept)).json()
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["a", 3]


async def test_apply_merges_keyed_lists(api: httpx.AsyncClient, space: str, group: str) -> None:
    path = boxes(group, space, "a")
    for manager, port in (("one", 80), ("two", 81)):
        body = box(group, size=1, ports=[{"port": port}])
        answer = await api.patch(path, json=body, headers=APPLY, params={"fieldManager": manager})
        assert answer.status_code in (200, 201), answer.text
    assert [each["port"] for each in answer.json()["spec"]["ports"]] == [80, 81]


async def test_schemas_that_are_not_structural(api: httpx.AsyncClient) -> None:
    bad = definition("bad.example.com")
    schema = bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"] = {"minimum": 1}
    message = refused(await api.post(DEFINITIONS, json=bad), 422, "Invalid")["message"]
    assert "openAPIV3Schema.properties[spec].properties[size].type" in message
    bad = definition("bad.example.com")
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = [
        {"rule": "self.size +"}
    ]
    refused(await api.post(DEFINITIONS, json=bad), 422, "Invalid")


async def test_objects_go_with_their_definition(api: httpx.AsyncClient, space: str, group: str) -> None:
    await made(api, boxes(group, space), box(group, size=1))
    await api.delete(f"{DEFINITIONS}/boxes.{group}")
    async with asyncio.timeout(DEADLINE_S):
        while (await api.get(boxes(group, space))).status_code != 404:
            await asyncio.sleep(0.05)
    await made(api, DEFINITIONS, definition(group))
    async with asyncio.timeout(DEADLINE_S):
        while (answer := await api.get(boxes(group, space))).status_code != 200:
            await asyncio.sleep(0.05)
    assert answer.json()["items"] == []
