"""The life of Pods: probes, restarts, Jobs, init containers, logs, stopping."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from lateen.platform import cgroups
from lateen.platform.logs import log_files
from lateen.platform.pod import Container, EmptyDir, Exec, HttpGet, Limits, Mount, Probe, Sleep, TcpSocket
from lateen.platform.sandbox import PlatformError, PodChanged
from tests.kernel.platform.harness import SETTINGS, Mesh, idle, layout, program, running, sidecar, web


def job(text: str, **changes: Any) -> Container:
    container = Container(name="app", argv=program(text), restart="Never")
    return msgspec.structs.replace(container, **changes)


async def test_a_job_ends_and_its_proxy_with_it(mesh: Mesh) -> None:
    work = job("print('worked', flush=True)")
    state = await mesh.platform.create(mesh.sandbox("job", work, **sidecar(mesh, "job")))
    done = await mesh.until(state.uid, lambda s: s.stopped)
    assert done.containers[0].last is not None
    assert (done.containers[0].last.exit_code, done.containers[0].last.reason) == (0, "Completed")
    assert done.proxy is not None
    assert done.proxy.phase == "terminated"
    assert mesh.log("job") == "worked\n"
    assert mesh.platform.pods()[state.uid].stopped, "it stays to say how it went"


async def test_on_failure_restarts_until_it_succeeds(mesh: Mesh) -> None:
    text = """
        import os, sys
        path = "/tmp-of-pod/tries"
        tries = int(open(path).read()) if os.path.exists(path) else 0
        open(path, "w").write(str(tries + 1))
        sys.exit(0 if tries == 2 else 3)
    """
    work = job(text, restart="OnFailure", mounts=(Mount(volume="t", path="/tmp-of-pod"),))
    state = await mesh.platform.create(mesh.sandbox("job", work, volumes={"t": EmptyDir()}))
    done = await mesh.until(state.uid, lambda s: s.stopped)
    assert done.containers[0].restarts == 2
    assert done.containers[0].last is not None
    assert done.containers[0].last.exit_code == 0


async def test_a_crashing_application_backs_off(mesh: Mesh) -> None:
    crash = job("print('no', flush=True); raise SystemExit(7)", restart="Always")
    state = await mesh.platform.create(mesh.sandbox("crash", crash))
    first = await mesh.until(state.uid, lambda s: s.containers[0].reason == "CrashLoopBackOff")
    assert first.containers[0].restarts == 1, "the first restart is immediate"
    assert first.containers[0].last is not None
    assert first.containers[0].last.exit_code == 7
    later = await mesh.until(state.uid, lambda s: s.containers[0].restarts == 3)
    waits = later.containers[0].started_at - first.containers[0].last.finished_at
    assert waits >= SETTINGS.backoff_first_s * 3, "0.2 s, then 0.4 s"
    assert [path.name for path in log_files(mesh.layout.logs / "crash", "app", previous=True)] == ["2.log"]
    await mesh.platform.restart(state.uid, "app")
    await mesh.until(state.uid, lambda s: s.containers[0].restarts == 4, timeout_s=1)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [(("/no/such/program",), 127, "No such file"), (("/etc/hostname",), 126, "Permission denied")],
)
async def test_a_program_that_cannot_be_executed(mesh: Mesh, argv: tuple[str, ...], code: int, words: str) -> None:
    state = await mesh.platform.create(mesh.sandbox("pod", Container(name="app", argv=argv)))
    seen = await mesh.until(state.uid, lambda s: s.containers[0].reason == "CrashLoopBackOff")
    last = seen.containers[0].last
    assert last is not None
    assert (last.exit_code, last.reason) == (code, "StartError")
    assert words in last.message


async def test_init_containers_come_first_and_one_by_one(mesh: Mesh) -> None:
    first = Container(name="first", argv=program("import time; time.sleep(0.1)"), init=True, restart="OnFailure")
    second = Container(name="second", argv=program("pass"), init=True, restart="OnFailure")
    state = await mesh.pod("pod", first, second, web(), **sidecar(mesh, "pod"))
    one, two, app = state.containers
    assert one.last is not None
    assert two.last is not None
    assert state.proxy is not None
    assert state.proxy.started_at < one.started_at
    assert one.last.finished_at <= two.started_at
    assert two.last.finished_at <= app.started_at


async def test_a_failed_init_container_ends_the_pod(mesh: Mesh) -> None:
    bad = Container(name="bad", argv=program("raise SystemExit(1)"), init=True, restart="Never")
    state = await mesh.platform.create(mesh.sandbox("pod", bad, idle()))
    failed = await mesh.until(state.uid, lambda s: s.stopped)
    assert [(c.phase, c.started_at > 0) for c in failed.containers] == [("terminated", True), ("terminated", False)]


SWITCHED = """
import http.server, os, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        self.send_response(503 if os.path.exists("/tmp/bad") else 200)
        self.send_header("content-length", "0")
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    "handler",
    [HttpGet(port=8080, path="/x"), Exec(("/bin/sh", "-c", "! test -e /tmp/bad"))],
    ids=["http", "exec"],
)
async def test_readiness_follows_the_application(mesh: Mesh, handler: HttpGet | Exec) -> None:
    ready = Probe(handler=handler, period_s=0.05, failure_threshold=2)
    pod = await mesh.pod("pod", Container(name="app", argv=program(SWITCHED), readiness=ready))
    await mesh.run(pod.uid, "touch", "/tmp/bad")
    bad = await mesh.until(pod.uid, lambda s: not s.ready)
    assert bad.containers[0].message.startswith("readiness probe failed: ")
    assert bad.containers[0].restarts == 0
    await mesh.run(pod.uid, "rm", "/tmp/bad")
    good = await mesh.until(pod.uid, lambda s: s.ready)
    assert good.containers[0].message == ""


async def test_a_failing_liveness_probe_restarts_the_container(mesh: Mesh) -> None:
    live = Probe(handler=HttpGet(port=8080), period_s=0.05, failure_threshold=2)
    up = Probe(handler=TcpSocket(port=8080), period_s=0.05, failure_threshold=100)
    pod = await mesh.pod("pod", Container(name="app", argv=program(SWITCHED), startup=up, liveness=live))
    await mesh.run(pod.uid, "touch", "/tmp/bad")
    again = await mesh.until(pod.uid, lambda s: s.containers[0].restarts == 1 and s.ready)
    assert again.containers[0].last is not None
    assert again.containers[0].last.message == "liveness probe failed: HTTP status 503"


async def test_a_startup_probe_holds_the_others_back_and_restarts_when_it_fails(mesh: Mesh) -> None:
    up = Probe(handler=Exec(("/bin/false",)), period_s=0.03, failure_threshold=3)
    live = Probe(handler=Exec(("/bin/false",)), period_s=0.01, failure_threshold=1)
    state = await mesh.platform.create(mesh.sandbox("pod", msgspec.structs.replace(idle(), startup=up, liveness=live)))
    seen = await mesh.until(state.uid, lambda s: s.containers[0].restarts == 1)
    assert seen.containers[0].last is not None
    assert seen.containers[0].last.message.startswith("startup probe failed")


async def test_https_probe_does_not_check_the_certificate(mesh: Mesh) -> None:
    text = """
        import http.server, ssl, subprocess
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-subj", "/CN=x", "-keyout", "/tmp/k", "-out", "/tmp/c"], check=True)
        server = http.server.HTTPServer(("0.0.0.0", 8443), http.server.SimpleHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("/tmp/c", "/tmp/k")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.serve_forever()
    """
    ready = Probe(handler=HttpGet(port=8443, scheme="HTTPS"), period_s=0.1)
    await mesh.pod("pod", Container(name="app", argv=program(text), readiness=ready))


async def test_graceful_stop_waits_then_kills(mesh: Mesh) -> None:
    stubborn = (
        "import signal, time\nsignal.signal(15, lambda *a: print('heard', flush=True))\nprint('up', flush=True)\n"
    )
    stubborn += "while True: time.sleep(1)"
    pod = await mesh.pod("pod", Container(name="app", argv=program(stubborn)))
    while "up\n" not in mesh.log("pod"):
        await asyncio.sleep(0.01)
    began = time.monotonic()
    await mesh.platform.delete(pod.uid, 0.5)
    assert 0.5 <= time.monotonic() - began < 3
    assert mesh.log("pod") == "up\nheard\n"


async def test_a_program_that_ignores_sigterm_by_default_ends_at_once(mesh: Mesh) -> None:
    pod = await mesh.pod("pod", idle())
    began = time.monotonic()
    await mesh.platform.delete(pod.uid, 30)
    assert time.monotonic() - began < 2


async def test_pre_stop_comes_before_the_signal(mesh: Mesh) -> None:
    hook = Exec(("/bin/sh", "-c", "echo > /tmp/hooked; exit 0"))
    text = """
        import os, signal, time
        word = lambda: "hooked" if os.path.exists("/tmp/hooked") else "not"
        signal.signal(15, lambda *a: (print(word(), flush=True), os._exit(0)))
        print("up", flush=True)
        time.sleep(100)
    """
    for name, pre_stop in (("one", hook), ("two", Sleep(0.2))):
        pod = await mesh.pod(name, Container(name="app", argv=program(text), pre_stop=pre_stop))
        while "up\n" not in mesh.log(name):
            await asyncio.sleep(0.01)
        await mesh.platform.delete(pod.uid, 5)
    assert mesh.log("one") == "up\nhooked\n"
    assert mesh.log("two") == "up\nnot\n"


async def test_logs_turn_over(mesh: Mesh) -> None:
    settings = msgspec.structs.replace(SETTINGS, log_bytes=10_000)
    async with running(layout(), settings) as small:
        text = "import time\nfor i in range(3000): print(f'line {i:06}', flush=True)\ntime.sleep(100)"
        await small.pod("pod", Container(name="app", argv=program(text)))
        async with asyncio.timeout(10):
            while "line 002999" not in small.log("pod"):
                await asyncio.sleep(0.02)
        files = log_files(small.layout.logs / "pod", "app")
        assert [path.name for path in files] == ["0.log.1", "0.log"]
        assert all(path.stat().st_size < 10_000 + 65536 for path in files)


async def test_refusals_name_their_reason(mesh: Mesh) -> None:
    pod = await mesh.pod("pod", idle())
    with pytest.raises(PlatformError, match="running already"):
        await mesh.platform.create(mesh.sandbox("pod", idle()))
    with pytest.raises(PlatformError, match=f"address {pod.ip} is in use by Pod u-pod"):
        await mesh.platform.create(mesh.sandbox("second", idle(), ip=pod.ip))
    with pytest.raises(PlatformError, match="has no container other"):
        await mesh.platform.restart(pod.uid, "other")
    with pytest.raises(PlatformError, match="no Pod nobody"):
        await mesh.platform.restart("nobody", "app")
    await mesh.platform.delete("nobody", 1)


async def test_events_tell_the_latest_state_of_each_pod(mesh: Mesh) -> None:
    pods = [await mesh.pod(f"pod{i}", idle()) for i in range(3)]
    seen: dict[str, Any] = {}
    async with asyncio.timeout(5):
        async for event in mesh.platform.events():
            assert isinstance(event, PodChanged)
            seen[event.state.uid] = event.state
            if len(seen) == 3:
                break
    assert seen == {pod.uid: mesh.platform.pods()[pod.uid] for pod in pods}


@pytest.mark.skipif(not cgroups.available(), reason="this user may not make control groups")
async def test_limits(mesh: Mesh) -> None:
    eat = job("x = bytearray(200_000_000)", limits=Limits(memory_bytes=64 << 20))
    state = await mesh.platform.create(mesh.sandbox("eat", eat))
    done = await mesh.until(state.uid, lambda s: s.stopped)
    assert (done.containers[0].reason, done.containers[0].last and done.containers[0].last.exit_code) == (
        "OOMKilled",
        137,
    )
    burn = """
        import time
        began = time.monotonic()
        while time.monotonic() - began < 1: pass
        print(time.process_time(), flush=True)
    """
    state = await mesh.platform.create(mesh.sandbox("burn", job(burn, limits=Limits(cpus=0.2))))
    await mesh.until(state.uid, lambda s: s.stopped)
    assert float(mesh.log("burn")) < 0.5


async def test_fifty_pods_at_once(mesh: Mesh) -> None:
    began = time.monotonic()
    made = await asyncio.gather(
        *(mesh.platform.create(mesh.sandbox(f"pod{i}", idle(), redirect=None)) for i in range(50))
    )
    assert len({state.ip for state in made}) == 50
    assert time.monotonic() - began < 5
