"""Admission webhooks over real TLS: changes, refusals, warnings, silence, and who is asked at all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lateen.apiserver.admission import Admission, Admitting
from lateen.apiserver.client import Client
from lateen.apiserver.errors import ApiError, ForbiddenError
from lateen.apiserver.operations import Create
from lateen.apiserver.resources import Resources
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Target, parse
from lateen.apiserver.users import OWNER
from lateen.security.api_access import ApiAccess
from tests.unit.apiserver.api import client as client
from tests.unit.apiserver.api import serving
from tests.unit.apiserver.conftest import config_map

Json = dict[str, Any]
Answer = Callable[[Json], Json]


class Hook:
    """A webhook's server: answers with `answer` of the request, and remembers what it was asked."""

    def __init__(self, access: ApiAccess) -> None:
        self.asked: list[Json] = []
        self.answer: Answer = lambda request: {"allowed": True}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append(review["request"])
                response = {"uid": review["request"]["uid"], **outer.answer(review["request"])}
                content = json.dumps({**review, "request": None, "response": response}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(access.server.certificate, access.server.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/admit"
        self.ca = base64.b64encode(access.ca.certificate.read_bytes()).decode()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def configuration(self, kind: str, **more: Any) -> Json:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        webhook = {
            "name": "hook.example.com",
            "clientConfig": {"url": self.url, "caBundle": self.ca},
            "rules": [rule],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
            **more,
        }
        head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration"}
        return {**head, "metadata": {"name": "hook"}, "webhooks": [webhook]}


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    one = Hook(ApiAccess(tmp_path / "pki"))
    yield one
    with contextlib.suppress(OSError):
        one.stop()


async def test_a_webhook_changes_what_is_written(store: Store, hook: Hook) -> None:
    def answer(request: Json) -> Json:
        patch = [{"op": "add", "path": "/data/added", "value": request["operation"].lower()}]
        return {
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        }

    hook.answer = answer
    async with serving(store) as client:
        await client.create(hook.configuration("Mutating"))
        made = await client.create(config_map("a", x="1"))
        assert made["data"] == {"x": "1", "added": "create"}
        changed = await client.patch("ConfigMap", "a", "default", {"data": {"y": "2"}})
        assert changed["data"] == {"x": "1", "y": "2", "added": "update"}
    first, second = hook.asked
    assert (first["name"], first["namespace"], first["userInfo"]["username"]) == ("a", "default", "lateen:owner")
    assert first["oldObject"] is None
    assert second["oldObject"]["data"] == {"x": "1", "added": "create"}


async def test_a_webhook_refuses(store: Store, hook: Hook) -> None:
    hook.answer = lambda request: {"allowed": False, "status": {"code": 403, "message": "not on a Sunday"}}
    async with serving(store) as client:
        await client.create(config_map("a"))
        await client.create(hook.configuration("Validating"))
        with pytest.raises(ForbiddenError, match=r'"hook.example.com" denied the request: not on a Sunday'):
            await client.create(config_map("b"))
        with pytest.raises(ForbiddenError):
            await client.delete("ConfigMap", "a")
        assert [each["metadata"]["name"] for each in await client.list("cm")] == ["a"]
        await client.delete("ValidatingWebhookConfiguration", "hook")
        await client.delete("ConfigMap", "a")


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_a_webhook_that_is_away(store: Store, hook: Hook, policy: str) -> None:
    hook.stop()
    async with serving(store) as client:
        await client.create(hook.configuration("Validating", failurePolicy=policy))
        if policy == "Fail":
            with pytest.raises(ApiError, match="failed calling webhook"):
                await client.create(config_map("a"))
        else:
            await client.create(config_map("a"))


async def test_a_webhook_with_another_certificate_is_not_believed(store: Store, hook: Hook, tmp_path: Path) -> None:
    other = ApiAccess(tmp_path / "other").ca.certificate.read_bytes()
    hook.ca = base64.b64encode(other).decode()
    async with serving(store) as client:
        await client.create(hook.configuration("Validating"))
        with pytest.raises(ApiError, match="failed calling webhook"):
            await client.create(config_map("a"))
    assert hook.asked == []


async def test_who_is_asked(store: Store, hook: Hook) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "istio-system"}}
    conditions = [{"name": "only-x", "expression": "has(object.data) && 'x' in object.data"}]
    configuration = hook.configuration("Validating", namespaceSelector=selector, matchConditions=conditions)
    async with serving(store) as client:
        await client.create(configuration)
        await client.create(config_map("a", x="1"))
        await client.create(config_map("b", "istio-system", y="1"))
        await client.create(config_map("c", "istio-system", x="1"))
        await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "d"}})
    assert [each["name"] for each in hook.asked] == ["c"]


async def test_warnings_reach_the_client(store: Store, hook: Hook, client: Client) -> None:
    hook.answer = lambda request: {"allowed": True, "warnings": ["think again"]}
    await client.create(hook.configuration("Validating"))
    answer = await client._http.post("/api/v1/namespaces/default/configmaps", json=config_map("a"))
    assert answer.headers["warning"] == '299 lateen "think again"'


async def test_a_webhook_behind_a_service_is_asked_inside_of_a_pod(store: Store, hook: Hook, tmp_path: Path) -> None:
    """Through the Service's port to its target port, of a Pod that is ready, by the name it has in a cluster."""
    dialled: list[tuple[str, str, int]] = []

    async def dial(namespace: str, name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        dialled.append((namespace, name, port))
        address = urlsplit(hook.url)
        return await asyncio.open_connection(address.hostname, address.port)

    hook.answer = lambda request: {"allowed": False, "status": {"message": "not today"}}
    service = {"name": "kubernetes", "namespace": "default", "port": 444, "path": "/admit"}
    admission = Admission(store, dial)
    asking = Admitting("CREATE", _target(), OWNER, False, config_map("a"), None, "me")
    await store.write(
        [Create(hook.configuration("Validating", clientConfig={"service": service, "caBundle": hook.ca}))]
    )
    with pytest.raises(ApiError, match="there is no service default/kubernetes"):
        await admission.validate(asking)
    ports = [{"name": "other", "port": 443}, {"name": "hook", "port": 444, "targetPort": 9443}]
    metadata = {"name": "kubernetes", "namespace": "default"}
    await store.write([Create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})])
    with pytest.raises(ApiError, match="no ready Pod is behind service default/kubernetes"):
        await admission.validate(asking)
    await store.write([Create(_slice())])
    with pytest.raises(ForbiddenError, match="not today"):
        await admission.validate(asking)
    assert dialled == [("default", "there", 9443)]
    assert hook.asked[0]["name"] == "a"
    await admission.close()


def _target() -> Target:
    return parse(Resources(), "POST", "", "v1", "namespaces/default/configmaps", watch=False)


def _slice() -> Json:
    def endpoint(name: str, *, ready: bool) -> Json:
        target = {"kind": "Pod", "name": name, "namespace": "default"}
        return {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": target}

    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "s",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "other", "port": 1}, {"name": "hook", "port": 9443}],
        "endpoints": [endpoint("not-yet", ready=False), endpoint("there", ready=True)],
    }
