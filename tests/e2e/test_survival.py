"""What a mesh survives: each of its processes killed under load, a crashing program, and everything at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lateen.bench.load import Load, Report, run
from lateen.daemon import supervisor
from lateen.platform import census
from tests.e2e.mesh import Mesh, eventually

REVIEWS = "/api/v1/products/0/reviews"
Json = dict[str, Any]


def pid_of(mesh: Mesh, process: str) -> int:
    """The pid of one of the mesh's own processes, 0 while it waits for its restart."""
    state = supervisor.state(mesh.settings)
    assert state is not None
    return next((each.pid for each in state.processes if each.name == process), 0)


def kill_under_load(mesh: Mesh, pid: int) -> Report:
    """Four seconds of load; after one of them the process is killed."""

    async def both() -> Report:
        load = Load(url=mesh.url + REVIEWS, connections=4, duration_s=4, rate=200, timeout_s=10)
        running = asyncio.create_task(run(load))
        await asyncio.sleep(1)
        os.kill(pid, signal.SIGKILL)
        return await running

    return asyncio.run(both())


@pytest.mark.parametrize("process", ["controlplane", "node", "agent"])
def test_no_request_fails_through_the_loss_of_a_process(bookinfo: Mesh, process: str) -> None:
    before = pid_of(bookinfo, process)
    report = kill_under_load(bookinfo, before)
    assert report.failed == 0, report.lines()
    assert report.requests > 400
    eventually(lambda: pid_of(bookinfo, process), lambda pid: pid not in (0, before))
    eventually(lambda: bookinfo.lateen("get", "pods", "-A", expect=None).returncode, lambda code: code == 0)


def restarts(mesh: Mesh, app: str, container: str) -> int:
    """How often a container of a service's only Pod was restarted, as its status says."""
    (pod,) = mesh.pods(app)
    return next(each["restartCount"] for each in pod["status"]["containerStatuses"] if each["name"] == container)


def envoys(uid: str) -> list[int]:
    """The Envoys of a Pod, seen from the machine."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
            if words[0].endswith(b"/envoy") and any(uid.encode() in word for word in words):
                found.append(int(entry.name))
    return found


def test_a_killed_envoy_is_back_within_two_seconds(bookinfo: Mesh) -> None:
    (pod,) = bookinfo.pods("productpage")
    uid = pod["metadata"]["uid"]
    (envoy,) = envoys(uid)
    before = restarts(bookinfo, "productpage", "istio-proxy")
    os.kill(envoy, signal.SIGKILL)
    eventually(lambda: envoys(uid), lambda pids: bool(pids) and envoy not in pids)
    eventually(lambda: bookinfo.ask("/productpage").status, lambda status: status == 200, within_s=20)
    eventually(lambda: restarts(bookinfo, "productpage", "istio-proxy"), lambda count: count > before)


def test_a_killed_application_is_restarted(bookinfo: Mesh) -> None:
    (pod,) = bookinfo.pods("details")
    (state,) = [each for each in pod["status"]["containerStatuses"] if each["name"] == "details"]
    before = state["restartCount"]
    program = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _runs_in(entry, bookinfo, pod, "lateen.demo.details")
    )
    os.kill(program, signal.SIGKILL)
    eventually(lambda: restarts(bookinfo, "details", "details"), lambda count: count > before)
    eventually(lambda: bookinfo.ask("/api/v1/products/0").status, lambda status: status == 200, within_s=20)


def _runs_in(entry: Path, mesh: Mesh, pod: Json, module: str) -> bool:
    """Whether a process of the machine is that program of that Pod."""
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if module.encode() not in words:
            return False
        inits = [int(each.pid) for each in census.processes(mesh.settings.state_dir) if each.init]
        network = (entry / "ns/net").readlink()
    except OSError:
        return False
    uid = pod["metadata"]["uid"].encode()
    return any(
        Path(f"/proc/{init}/ns/net").readlink() == network and uid in Path(f"/proc/{init}/cmdline").read_bytes()
        for init in inits
    ) or any(network == Path(f"/proc/{each}/ns/net").readlink() for each in envoys(pod["metadata"]["uid"]))


def test_a_crashing_application_backs_off_and_ps_says_why(bookinfo: Mesh) -> None:
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "crash", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "crash"}},
            "template": {
                "metadata": {"labels": {"app": "crash"}},
                "spec": {"containers": [{"name": "crash", "command": ["sh", "-c", "echo no database here; exit 3"]}]},
            },
        },
    }
    bookinfo.apply(deployment)
    try:
        eventually(
            lambda: bookinfo.lateen("ps").stdout,
            lambda text: "CrashLoopBackOff" in text and "no database here" in text,
            within_s=30,
        )
        assert "no database here" in bookinfo.lateen("logs", "deploy/crash").stdout
    finally:
        bookinfo.lateen("delete", "deployment", "crash")


def kill_everything(mesh: Mesh) -> None:
    """kill -9 of every process of the mesh, the supervisor first."""
    state = supervisor.state(mesh.settings)
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)

    def left() -> list[census.Process]:
        found = census.processes(mesh.settings.state_dir)
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return found

    eventually(left, lambda found: not found)


def namespaces() -> set[Path]:
    """The network namespaces that processes of this machine are in."""
    found: set[Path] = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                found.add((entry / "ns/net").readlink())
    return found


def links() -> set[str]:
    """The network links of this machine."""
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


def test_everything_killed_comes_back_the_same_and_down_leaves_nothing(worker_id: str) -> None:
    links_before = links()
    mesh = Mesh(f"y-{worker_id}-{os.getpid()}")
    try:
        mesh.up()
        root = (mesh.settings.layout().ca / "root-cert.pem").read_bytes()
        teapot = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
        rule = {"fault": teapot, "route": [{"destination": {"host": "productpage"}}]}
        mesh.apply(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "bookinfo", "namespace": "default"},
                "spec": {"hosts": ["*"], "gateways": ["bookinfo-gateway"], "http": [rule]},
            }
        )
        eventually(lambda: mesh.ask("/productpage").status, lambda status: status == 418)
        kill_everything(mesh)
        mesh.lateen("up", "--ready-timeout", "10", expect=None)  # never "ready": the page is a teapot now
        eventually(lambda: mesh.ask("/productpage").status, lambda status: status == 418, within_s=60)
        assert (mesh.settings.layout().ca / "root-cert.pem").read_bytes() == root
        own = Path("/proc/self/ns/net").readlink()
        inside = {Path(f"/proc/{each.pid}/ns/net").readlink() for each in census.processes(mesh.settings.state_dir)} - {
            own
        }
        assert len(inside) >= 8  # seven Pods and the fabric
        kill_everything(mesh)
        mesh.down()
        assert not census.processes(mesh.settings.state_dir)
        assert not inside & namespaces()
        assert links() == links_before
        assert not Path(mesh.settings.run_dir).exists()
    finally:
        mesh.remove()
