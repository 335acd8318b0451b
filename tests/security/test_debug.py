"""The debug paths at 15014: for the mesh's own user and for who has a token with the role; no secret in any of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lateen.apiserver.applying import apply_files
from tests.security.plane import Attacked, attacked

PATHS = ("syncz", "adsz", "configz", "registryz", "endpointz", "authorizationz", "mesh")
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: vault-1, namespace: bank, labels: {kubernetes.io/service-name: vault}}
endpoints: [{addresses: [10.88.0.9], conditions: {ready: true}}]
ports: [{name: http, port: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: few, namespace: bank}
spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: plugin, namespace: bank}
spec: {url: "file:///nowhere.wasm", pluginConfig: {api_key: hunter2-plugin, nested: {password: hunter2-nested}},
       vmConfig: {env: [{name: DB_PASSWORD, value: hunter2-environment}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: traces
      opentelemetry:
        service: vault.bank.svc.cluster.local
        port: 80
        http: {path: /v1, timeout: 1s, headers: [{name: Authorization, value: hunter2-header}]}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Attacked]:
    async with attacked() as made:
        assert (await apply_files(made.client, [("all.yaml", SERVICE)])).applied
        yield made


def at(plane: Attacked, path: str, token: str = "", **headers: str) -> httpx.Response:
    """The answer of the debug port to a program of this user."""
    more = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"http://127.0.0.1:{plane.settings.debug_port}{path}", headers={**more, **headers}, timeout=30)


async def test_the_meshs_own_user_sees_what_there_is_and_no_secret(plane: Attacked) -> None:
    listed = (await asyncio.to_thread(at, plane, "/debug")).json()
    assert sorted(listed) == sorted(f"/debug/{each}" for each in PATHS)
    found: dict[str, Any] = {}
    for path in PATHS:
        answer = await asyncio.to_thread(at, plane, f"/debug/{path}")
        assert answer.status_code == 200, path
        assert "hunter2" not in answer.text, path
        assert "secret of the shop" not in answer.text
        found[path] = answer.json()
    (service,) = [each for each in found["registryz"] if each["hostname"] == "vault.bank.svc.cluster.local"]
    assert service["ports"] == [{"name": "http", "port": 80, "protocol": "http"}]
    (port,) = [each for each in found["endpointz"] if each["service"] == "vault.bank.svc.cluster.local:http"]
    assert [(each["address"], each["port"]) for each in port["endpoints"]] == [("10.88.0.9", 8080)]
    assert [each["metadata"]["name"] for each in found["authorizationz"]["policies"]["bank"]] == ["few"]
    assert {each["kind"] for each in found["configz"]} >= {"AuthorizationPolicy", "WasmPlugin"}
    assert found["mesh"]["extensionProviders"][0]["name"] == "traces"
    assert (await asyncio.to_thread(at, plane, "/debug/registryz?namespace=shop")).json() == []


async def test_streams_are_there_while_they_are_open(plane: Attacked) -> None:
    node = "sidecar~10.0.0.2~vault-1.bank~bank.svc.cluster.local"
    key, chain = await plane.identity("bank")
    async with plane.channel(key, chain) as channel, plane.open_stream(channel, node):
        (client,) = (await asyncio.to_thread(at, plane, "/debug/adsz")).json()["clients"]
        assert client["proxy"] == "vault-1.bank"
        assert client["follows"] == {"CDS": "*"}
        (proxy,) = (await asyncio.to_thread(at, plane, "/debug/syncz")).json()
        assert proxy["types"]["CDS"]["state"] in ("STALE", "SYNCED")


async def test_tokens_open_what_their_roles_name(plane: Attacked) -> None:
    debugging = await plane.account_token("bank", "debugger", "lateen:debug")
    viewing = await plane.account_token("bank", "viewer", "view")
    for path in ("", *(f"/{each}" for each in PATHS)):
        assert at(plane, f"/debug{path}", debugging).status_code == 200
        refused = at(plane, f"/debug{path}", viewing)
        assert refused.status_code == 403
        assert f'cannot get path "/debug{path}"' in refused.json()["message"]
        assert at(plane, f"/debug{path}", viewing[:-4] + "AAAA").status_code == 401
    await plane.client.delete("ServiceAccount", "debugger", "bank")
    assert at(plane, "/debug/syncz", debugging).status_code == 401, "its account is gone"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_of_the_machine_needs_a_token(plane: Attacked) -> None:
    def ask(path: str, *headers: str) -> tuple[str, str]:
        url = f"http://127.0.0.1:{plane.settings.debug_port}{path}"
        command = ["setpriv", "--reuid", "65534", "--clear-groups", "curl", "-s", "-w", "\n%{http_code}", url]
        command += [part for each in headers for part in ("-H", each)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        body, _, code = done.stdout.rpartition("\n")
        return code, body

    token = await plane.account_token("shop", "debugger", "lateen:debug")
    for path in ("/debug", *(f"/debug/{each}" for each in PATHS)):
        code, body = await asyncio.to_thread(ask, path)
        assert (code, json.loads(body)["reason"]) == ("401", "Unauthorized")
        assert (await asyncio.to_thread(ask, path, f"Authorization: Bearer {token}"))[0] == "200"
    for path in ("/metrics", "/ready", "/version"):
        assert (await asyncio.to_thread(ask, path))[0] == "200", path
    assert (await asyncio.to_thread(ask, "/metrics", "Host: evil.example"))[0] == "400"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_a_header_makes_nobody_the_meshs_user(plane: Attacked) -> None:
    """Another user names a connection that the mesh's user has open."""
    with socket.create_connection(("127.0.0.1", plane.settings.debug_port)) as own:
        named = f"127.0.0.1:{own.getsockname()[1]}"
        for header in (f"X-Forwarded-For: {named}", f"Forwarded: for={named}", f"X-Real-IP: {named}"):
            url = f"http://127.0.0.1:{plane.settings.debug_port}/debug/configz"
            command = ["setpriv", "--reuid", "65534", "--clear-groups", "curl", "-s", "-H", header, url]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=True)
            assert json.loads(done.stdout)["reason"] == "Unauthorized", header


async def test_the_api_asks_for_the_role_too(plane: Attacked) -> None:
    context = ssl.create_default_context(cafile=str(plane.layout.api / "ca.crt"))
    for role, code in (("lateen:debug", 200), ("view", 403)):
        token = await plane.account_token("shop", f"api-{role.replace(':', '-')}", role)
        for path in ("/debug/configz", "/metrics"):
            url = f"https://127.0.0.1:{plane.settings.api_port}{path}"
            headers = {"authorization": f"Bearer {token}"}
            for ask in (httpx.get, httpx.head):
                answer = await asyncio.to_thread(ask, url, headers=headers, verify=context, timeout=30)
                assert answer.status_code == code, (role, path)
