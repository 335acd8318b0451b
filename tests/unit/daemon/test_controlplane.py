"""The control plane as a process: API, pages, findings, and what a kill leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.apiserver.errors import BadRequestError, ConflictError, NotFoundError
from lateen.daemon import settings as settings_module
from lateen.lib.findings import Level, Position
from lateen.lib.keypair import new_request
from lateen.lib.signing import SigningError
from lateen.security import client as security
from lateen.security.client import CertificateClient, unix_target

Json = dict[str, Any]

ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - route:
        - destination:
            host: revews
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: revews}
spec:
  ports: [{name: http, port: 80}]
"""
EXTERNAL = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example, www.example]
  resolution: DNS
  ports: [{name: https, number: 443, protocol: TLS}]
"""


def account(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ControlPlane:
    """One control plane process on directories and ports of its own."""

    def __init__(self, directory: Path, **more: Any) -> None:
        flags = {"name": "t", "state_dir": str(directory / "s"), "run_dir": str(directory / "r")}
        ports = {f"{each}_port": free_port() for each in ("console", "debug", "api", "xds")}
        self.settings = settings_module.load(None, {}, {**flags, **ports, **more})
        self.layout = self.settings.layout()
        self.layout.state.mkdir()
        self.layout.run.mkdir()
        self.file = settings_module.write(self.settings)
        self.client = Client(self.layout.api_socket)
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "lateen.daemon.controlplane", str(self.file), str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(program, stdout=log, stderr=log)

    async def up(self) -> None:
        self.process = self.start()
        async with asyncio.timeout(60):
            while not await self.client.ready():
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def page(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.settings.console_port}{path}", timeout=30, **more)


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    with tempfile.TemporaryDirectory(prefix="lateen-") as directory:
        each = ControlPlane(Path(directory))
        await each.up()
        yield each
        await each.client.close()
        each.kill()


async def test_an_unknown_host_is_said_by_apply_and_shown_by_get_until_it_is_there(plane: ControlPlane) -> None:
    result = await apply_files(plane.client, [("route.yaml", ROUTE)])
    assert result.applied
    (finding,) = [each for each in result.findings if each.level is Level.WARNING]
    assert finding.position == Position("route.yaml", 9, 19)
    assert "revews" in finding.message

    async def shown() -> list[str]:
        status: Json = (await plane.client.get("vs", "reviews")).get("status") or {}
        return [each["code"] for each in status.get("findings", ()) if each["level"] == "warning"]

    async with asyncio.timeout(20):
        while await shown() != [finding.code]:
            await asyncio.sleep(0.02)
    await apply_files(plane.client, [("service.yaml", SERVICE)])
    async with asyncio.timeout(20):
        while await shown():
            await asyncio.sleep(0.02)


async def test_after_kill_9_it_is_the_same_mesh(plane: ControlPlane) -> None:
    await apply_files(plane.client, [("route.yaml", ROUTE), ("service.yaml", SERVICE)])
    before = await plane.client.get("vs", "reviews")
    root = (plane.layout.ca / "root-cert.pem").read_bytes()
    plane.kill()
    await plane.up()
    after = await plane.client.get("vs", "reviews")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert (plane.layout.ca / "root-cert.pem").read_bytes() == root


async def test_external_hosts_get_addresses_that_stay(plane: ControlPlane) -> None:
    entry = EXTERNAL
    assert (await apply_files(plane.client, [("e.yaml", entry)])).applied

    async def addresses() -> dict[str, str]:
        status: Json = (await plane.client.get("se", "api")).get("status") or {}
        return {each["host"]: each["value"] for each in status.get("addresses", ())}

    async with asyncio.timeout(20):
        while len(before := await addresses()) != 2:
            await asyncio.sleep(0.02)
    assert all(each.startswith("240.240.") for each in before.values())
    plane.kill()
    await plane.up()
    assert await addresses() == before
    assert (await apply_files(plane.client, [("e.yaml", entry.replace("[api.example, ", "["))])).applied
    async with asyncio.timeout(20):
        while await addresses() != {"www.example": before["www.example"]}:
            await asyncio.sleep(0.02)
    label = "{name: api, labels: {networking.istio.io/enable-autoallocate-ip: 'false'}}"
    assert (await apply_files(plane.client, [("e.yaml", entry.replace("{name: api}", label))])).applied
    async with asyncio.timeout(20):
        while await addresses():
            await asyncio.sleep(0.02)


async def test_a_second_one_on_the_same_store_ends_with_the_reason(plane: ControlPlane) -> None:
    second = plane.start()
    assert await asyncio.to_thread(second.wait, 60) == 1
    assert "store.db cannot be opened" in plane.log.read_text().splitlines()[-1]
    assert "Traceback" not in plane.log.read_text()
    assert await plane.client.ready()


async def test_it_ends_when_told(plane: ControlPlane) -> None:
    assert plane.process is not None
    watch = plane.client.watch("cm", since="1")  # an open watch does not keep it
    reader = asyncio.ensure_future(anext(watch))
    plane.process.terminate()
    assert await asyncio.to_thread(plane.process.wait, 30) == 0
    with contextlib.suppress(Exception):
        await reader
    await watch.aclose()


async def test_pages_show_the_mesh_and_no_secret(plane: ControlPlane) -> None:
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\ndata: {k: aHVudGVyMg==}\n"
    )
    await apply_files(plane.client, [("secret.yaml", secret), ("route.yaml", ROUTE)])
    for path in (
        "/",
        "/api/overview",
        "/api/objects",
        "/api/objects/secret",
        "/api/proxies",
        "/metrics",
    ):
        page = plane.page(path)
        assert page.status_code == 200, path
        assert "hunter2" not in page.text
        assert "aHVudGVyMg" not in page.text
    assert "VirtualService default/reviews" in plane.page("/").text
    assert "<script" not in plane.page("/").text
    assert plane.page("/api/objects/secret").json()["items"][0]["data"] == {"k": "***", "password": "***"}
    assert plane.page("/api/overview").json()["objects"]["VirtualService"] == 1
    metrics = plane.page("/metrics").text
    assert 'lateen_objects{kind="Secret"} 1.0' in metrics
    assert 'pilot_k8s_cfg_events{event="add",type="VirtualService"} 1.0' in metrics
    assert "pilot_virt_services 1.0" in metrics
    assert 'pilot_push_triggers{type="config"}' in metrics
    assert 'pilot_proxy_convergence_time_bucket{le="30"}' in metrics
    assert "pilot_xds_cds_reject 0.0" in metrics
    assert plane.page("/healthz").status_code == plane.page("/readyz").status_code == 200
    assert plane.page("/api/objects/nonsense").status_code == 404
    assert plane.page("/", headers={"host": "evil.example"}).status_code == 400
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    env = [{"name": "DB_PASSWORD", "value": "hunter3"}, {"name": "COLOR", "value": "blue"}]
    pod["spec"] = {"containers": [{"name": "c", "command": ["true"], "env": env}]}
    await plane.client.create(pod)
    shown = plane.page("/api/objects/pod").text
    assert "hunter3" not in shown
    assert "blue" in shown
    # The API itself gives them to the mesh's own user.
    assert (await plane.client.get("secret", "s"))["data"]["password"] == "aHVudGVyMg=="


async def test_names_of_objects_cannot_script_the_page(plane: ControlPlane) -> None:
    label = "x<script>alert(1)</script>"
    result = await apply_files(
        plane.client,
        [(f"{label}.yaml", ROUTE.replace("revews", "revews.example.com"))],
    )
    assert result.applied
    async with asyncio.timeout(20):
        while "script" not in plane.page("/").text:
            await asyncio.sleep(0.05)
    assert "<script" not in plane.page("/").text


async def test_a_token_is_bound_to_a_pod_that_is_there(plane: ControlPlane) -> None:
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    pod["spec"] = {"serviceAccountName": "app", "containers": [{"name": "c", "command": ["true"]}]}
    made = await plane.client.create(pod)

    def request(uid: str) -> Json:
        return {"spec": {"boundObjectRef": {"kind": "Pod", "name": "p", "uid": uid}, "expirationSeconds": 3600}}

    uid = made["metadata"]["uid"]
    for name in ("app", "admin"):
        await plane.client.create(account(name))
    path = "/api/v1/namespaces/default/serviceaccounts/{}/token"
    answer = await plane.client.post(path.format("app"), request(uid))
    assert answer["status"]["token"].count(".") == 2
    with pytest.raises(ConflictError):
        await plane.client.post(path.format("app"), request("another"))
    with pytest.raises(BadRequestError, match="does not run as"):
        await plane.client.post(path.format("admin"), request(uid))
    await plane.client.delete("ServiceAccount", "app", "default")
    with pytest.raises(NotFoundError, match="no ServiceAccount default/app"):
        await plane.client.post(path.format("app"), request(uid))


async def test_who_deletes_an_account_ends_its_tokens(plane: ControlPlane) -> None:
    """Also when an account of that name is made again: it is another."""
    await plane.client.create(account("app"))
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    pod["spec"] = {"serviceAccountName": "app", "containers": [{"name": "c", "command": ["true"]}]}
    made = await plane.client.create(pod)
    bound = {"kind": "Pod", "name": "p", "uid": made["metadata"]["uid"]}

    async def token() -> str:
        asked = {"spec": {"boundObjectRef": bound}}
        answer = await plane.client.post("/api/v1/namespaces/default/serviceaccounts/app/token", asked)
        return answer["status"]["token"]

    target = unix_target(plane.layout.run / "ca.sock")
    signer = CertificateClient(security.ControlPlane(target, target, plane.layout.ca / "root-cert.pem"))
    first = await token()
    assert len(await signer.sign(new_request()[1], token=first)) == 2
    await plane.client.delete("ServiceAccount", "app", "default")
    with pytest.raises(SigningError, match=r"PERMISSION_DENIED: .*that account was deleted"):
        await signer.sign(new_request()[1], token=first)
    await plane.client.create(account("app"))
    with pytest.raises(SigningError, match="PERMISSION_DENIED"):
        await signer.sign(new_request()[1], token=first)
    assert len(await signer.sign(new_request()[1], token=await token())) == 2
