"""A machine outside of the platform: joined by its bundle alone, called and calling, killed, ill, and turned away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lateen.apiserver.client import Client
from lateen.security.ca_files import open_ca
from tests.e2e.machines import Host
from tests.e2e.mesh import Mesh, eventually, say
from tests.e2e.test_status import programmed, route

Json = dict[str, Any]
PRINCIPAL = "cluster.local/ns/default/sa/vm-account"

APPLICATION = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"by": "machine", "caller": self.headers.get("x-forwarded-client-cert", "")}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 9080), Handler).serve_forever()
"""
GET = """
import json, sys, urllib.error, urllib.request
answers = []
for _ in range(int(sys.argv[2])):
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=10) as got:
            answers.append([got.status, got.read().decode()])
    except urllib.error.HTTPError as error:
        answers.append([error.code, error.read().decode()])
    except OSError as error:
        answers.append([0, str(error)])
print(json.dumps(answers))
"""
SERVICE: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "hello"},
    "spec": {"selector": {"app": "hello"}, "ports": [{"name": "http", "port": 80, "targetPort": 9080}]},
}
ACCOUNT: Json = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vm-account"}}
GATEWAY: Json = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "for-machines", "namespace": "istio-system"},
    "spec": {
        "selector": {"istio": "ingressgateway"},
        "servers": [
            {
                "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
                "tls": {"mode": "AUTO_PASSTHROUGH"},
                "hosts": ["*.local"],
            }
        ],
    },
}
STRICT: Json = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "default"},
    "spec": {"mtls": {"mode": "STRICT"}},
}
ONLY_THE_MACHINE: Json = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "details", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "details"}},
        "rules": [{"from": [{"source": {"principals": [PRINCIPAL]}}]}],
    },
}
SETTINGS: Json = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "ProxyConfig",
    "metadata": {"name": "machines", "namespace": "default"},
    "spec": {"selector": {"matchLabels": {"app": "hello"}}, "environmentVariables": {"ISTIO_META_TEAM": "machines"}},
}
PROBE: Json = {"periodSeconds": 1, "failureThreshold": 1, "httpGet": {"port": 9080, "path": "/"}}


def group(name: str = "hello", **more: Any) -> Json:
    template = {"serviceAccount": "vm-account", "labels": {"app": "hello"}}
    head = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup"}
    return {**head, "metadata": {"name": name}, "spec": {"template": template, **more}}


@pytest.fixture
def host(bookinfo: Mesh) -> Iterator[Host]:
    if bookinfo.lan is None:
        pytest.skip("machines need networks of their own, which only root can make")
    made = bookinfo.lan.machine()
    yield made
    made.remove()


def bundle(mesh: Mesh, host: Host, name: str = "hello", *more: str) -> Path:
    """What `lateen vm` makes for a group, on the machine."""
    folder = host.home / f"bundle-{name}"
    mesh.lateen("vm", "entry", "configure", "--group", name, "-o", str(folder), *more)
    return folder


def entries(mesh: Mesh) -> list[Json]:
    async def read() -> list[Json]:
        async with Client(mesh.settings.layout().api_socket) as client:
            return await client.list("WorkloadEntry", "default")

    return asyncio.run(read())


def joined(host: Host) -> None:
    eventually(lambda: host.events("traffic redirected"), within_s=60)


def from_pod(mesh: Mesh, url: str, times: int = 1) -> list[tuple[int, str]]:
    (pod,) = mesh.pods("productpage")
    container = pod["spec"]["containers"][0]["name"]
    ok, output = mesh.inside(pod, container, ["python3", "-c", GET, url, str(times)], timeout_s=60)
    assert ok, output
    return [(status, text) for status, text in json.loads(output)]


def from_machine(host: Host, url: str, times: int = 1) -> list[tuple[int, str]]:
    done = host.python(GET, url, str(times))
    assert done.returncode == 0, done.stderr
    return [(status, text) for status, text in json.loads(done.stdout)]


def test_a_machine_and_pods_call_each_other(bookinfo: Mesh, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways by mutual TLS, with the name of the other end proven; killed, and back; and gone in the end."""
    mesh = bookinfo
    mesh.apply(SERVICE, ACCOUNT, group(), GATEWAY, STRICT, SETTINGS)
    folder = bundle(mesh, host)
    host.start("python3", "-c", APPLICATION)
    agent = host.agent(folder)
    joined(host)
    (entry,) = entries(mesh)
    assert entry["metadata"]["name"] == f"hello-{host.address}"

    started = json.loads((host.home / "run" / "proxy" / "envoy.json").read_bytes())
    assert started["node"]["metadata"]["TEAM"] == "machines"
    assert started["node"]["metadata"]["NAME"] == entry["metadata"]["name"]

    _, text = eventually(lambda: from_pod(mesh, "http://hello/")[0], lambda seen: seen[0] == 200)
    assert json.loads(text)["by"] == "machine"
    assert "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage" in json.loads(text)["caller"]

    for url in ("http://details:9080/details/0", "http://details.default.svc.cluster.local:9080/details/0"):
        _, text = eventually(lambda url=url: from_machine(host, url)[0], lambda seen: seen[0] == 200, within_s=30)
        assert json.loads(text)["id"] == 0, text
    mesh.apply(ONLY_THE_MACHINE)
    eventually(lambda: from_pod(mesh, "http://details:9080/details/0")[0][0], lambda code: code == 403)
    assert {status for status, _ in from_machine(host, "http://details:9080/details/0", 20)} == {200}

    uid = entry["metadata"]["uid"]
    os.killpg(agent.pid, signal.SIGKILL)
    agent.wait()
    host.log.unlink()
    agent = host.agent(folder)
    joined(host)
    eventually(lambda: from_pod(mesh, "http://hello/")[0][0], lambda code: code == 200)
    assert entries(mesh)[0]["metadata"]["uid"] == uid, "within its grace an entry stays"
    certificates = [each["event"] for each in host.events() if each["event"].startswith("certificate")]
    assert certificates == [], "the kept certificate is still good"
    assert {status for status, _ in from_machine(host, "http://details:9080/details/0", 20)} == {200}

    started = host.events("agent started")[0]["timestamp"], host.events("traffic redirected")[0]["timestamp"]
    say(capsys, f"a machine: agent started {started[0]}, traffic redirected {started[1]}")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=30) == 0
    eventually(lambda: entries(mesh), lambda found: found == [], within_s=5)
    listed = host.python("import subprocess; print(subprocess.run(['nft', 'list', 'ruleset'], capture_output=True))")
    assert "lateen_vm" not in listed.stdout, "a machine that has left is as it was"


def test_what_the_probe_says_decides_over_traffic_and_a_dead_machine_is_removed(bookinfo: Mesh, host: Host) -> None:
    mesh = bookinfo
    mesh.apply(SERVICE, ACCOUNT, group(probe=PROBE))
    agent = host.agent(bundle(mesh, host))
    joined(host)

    def healthy() -> str:
        conditions = [each for entry in entries(mesh) for each in entry.get("status", {}).get("conditions", ())]
        return next((each["status"] for each in conditions if each["type"] == "Healthy"), "")

    eventually(healthy, lambda seen: seen == "False")
    assert from_pod(mesh, "http://hello/")[0][0] == 503, "nobody takes traffic yet"
    application = host.start("python3", "-c", APPLICATION)
    eventually(healthy, lambda seen: seen == "True")
    eventually(lambda: from_pod(mesh, "http://hello/")[0][0], lambda code: code == 200)
    os.killpg(application.pid, signal.SIGKILL)
    eventually(healthy, lambda seen: seen == "False")
    os.killpg(agent.pid, signal.SIGKILL)
    assert entries(mesh), "a machine may come back"
    eventually(lambda: entries(mesh), lambda found: found == [], within_s=60)


def test_the_end_of_a_group_ends_its_machines(bookinfo: Mesh, host: Host) -> None:
    """Entry, traffic and the stream of the proxy, at once; what the agent hears is why."""
    mesh = bookinfo
    mesh.apply(SERVICE, ACCOUNT, group(), GATEWAY)
    host.start("python3", "-c", APPLICATION)
    host.agent(bundle(mesh, host))
    joined(host)
    eventually(lambda: from_pod(mesh, "http://hello/")[0][0], lambda code: code == 200)
    name = f"hello-{host.address}"
    assert name in mesh.lateen("proxy-status").stdout
    mesh.lateen("delete", "workloadgroup", "hello")
    eventually(lambda: entries(mesh), lambda found: found == [], within_s=5)
    eventually(lambda: mesh.lateen("proxy-status").stdout, lambda text: name not in text, within_s=5)
    eventually(lambda: from_pod(mesh, "http://hello/")[0][0], lambda code: code == 503)
    said = eventually(lambda: [each["reason"] for each in host.events("not joined")])
    assert "there is no WorkloadGroup default/hello" in said[0]


@pytest.mark.long
def test_a_machine_that_is_cut_off_is_behind_then_gone_then_back(bookinfo: Mesh, host: Host) -> None:
    """No packet passes: its stream neither ends nor answers, until the keep-alive (40 s) does."""
    mesh = bookinfo
    mesh.apply(SERVICE, ACCOUNT, group(), GATEWAY)
    host.agent(bundle(mesh, host))
    joined(host)
    eventually(lambda: from_machine(host, "http://details:9080/details/0")[0][0], lambda code: code == 200, 30)
    rule = route("details", 501)
    mesh.apply(rule)
    mesh.lateen("wait", "vs/details")
    machine = f"hello-{host.address}.default"
    assert machine in json.loads(mesh.lateen("why-push", "vs/details", "-o", "json").stdout)[0]["proxies"]
    everybody = programmed(mesh, rule)["message"]
    host.cut_off()
    mesh.apply(route("details", 502))
    assert f"{machine} has not answered" in mesh.lateen("wait", "vs/details", "--timeout", "3", expect=3).stdout
    assert f"{machine} behind for" in mesh.lateen("status").stdout
    mesh.lateen("wait", "vs/details", "--timeout", "60")
    assert "behind" not in mesh.lateen("status", expect=None).stdout
    eventually(lambda: entries(mesh), lambda found: found == [], 60)
    host.mend()
    eventually(lambda: entries(mesh), lambda found: len(found) == 1, 90)
    eventually(lambda: from_machine(host, "http://details:9080/details/0")[0][0], lambda code: code == 200, 60)
    eventually(lambda: programmed(mesh, rule)["message"], lambda message: message == everybody)


def test_who_is_turned_away_is_told_why(bookinfo: Mesh, host: Host) -> None:
    """Wrong bundles, one after the other on one machine; what the agent says first, and says once."""
    mesh = bookinfo
    refused = mesh.lateen("vm", "entry", "configure", "--group", "none", "-o", str(host.home / "none"), expect=1)
    assert "there is no WorkloadGroup default/none" in refused.stderr
    assert not (host.home / "none").exists()
    mesh.apply(ACCOUNT, group(), group("former"))
    good = bundle(mesh, host)
    former = bundle(mesh, host, "former")
    mesh.lateen("delete", "workloadgroup", "former")

    def changed(name: str, file: str, old: str, new: str) -> Path:
        copy = host.home / name
        copy.mkdir()
        for each in good.iterdir():
            (copy / each.name).write_bytes(each.read_bytes())
        text = (copy / file).read_text()
        assert old in text
        (copy / file).write_text(text.replace(old, new))
        return copy

    assert mesh.lan is not None
    port = mesh.flags["vm_login_port"]
    token = (good / "istio-token").read_text()
    other_root = open_ca(host.home / "other-mesh").trust_pem
    wrong: dict[str, Path] = {
        "the token is not accepted": changed("token", "istio-token", token[-20:], "A" * 20),
        "there is no WorkloadGroup default/former": former,
        "is not vouched for by root-cert.pem of the bundle": changed(
            "root", "root-cert.pem", (good / "root-cert.pem").read_text(), other_root
        ),
        "cannot be reached": changed("address", "cluster.env", f"{mesh.lan.host}:{port}", f"{mesh.lan.host}:1"),
    }
    for reason, folder in wrong.items():
        host.log.unlink(missing_ok=True)
        agent = host.agent(folder)
        (first, *_) = eventually(lambda: host.events("no certificate"), within_s=60)
        assert reason in first["reason"], first
        assert [each["reason"] for each in host.events("no certificate")].count(first["reason"]) == 1
        assert token not in host.log.read_text()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(timeout=30) == 0
    log = (mesh.settings.layout().logs / "controlplane.log").read_text()
    assert token.rpartition(".")[2] not in log
    assert log.count("there is no WorkloadGroup default/former") == 1
    assert entries(mesh) == []
