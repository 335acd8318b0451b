"""`lateen up` and `lateen down`: what makes a mesh be there, and what makes it be gone.

`up` is idempotent: what runs is left alone, what is missing is started. Nothing is started before the preflight
found no obstacle. `down` needs nothing to be alive: Pods and processes are found by their records and, when those
are lost, by the marker that each of them carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.daemon import settings as settings_module
from lateen.daemon import supervisor
from lateen.daemon.settings import Settings
from lateen.lib.errors import LateenError
from lateen.platform import census, paths
from lateen.platform import down as platform
from lateen.platform.paths import marker
from lateen.platform.preflight import obstacles

Json = dict[str, Any]
Report = Callable[[str], None]
"""Is told each step in one line; a line that starts with a carriage return replaces the one before."""

DEMO = Path(__file__).parent.parent / "demo"
_POLL_S = 0.05
_TRIES = 4
_LEFT_S = 5


class NotReadyError(LateenError):
    """The mesh did not become ready in time; the message says what is missing and why."""


async def up(settings: Settings, report: Report, *, demo: bool | None = None) -> None:
    """Starts what is missing of the mesh and returns when it is ready.

    `demo` None applies the demo to a mesh that has no Deployments yet, True always, False never. LateenError for an
    obstacle or when the mesh is not ready after `ready_timeout_s`.
    """
    layout = settings.layout()
    deadline = time.monotonic() + settings.ready_timeout_s
    if not supervisor.running(settings):
        await _daemons_gone(settings)
    if supervisor.running(settings):
        report(f"the mesh {settings.name} runs already")
        settings = settings_module.read(layout.state / "settings.json")
    else:
        found = obstacles(layout, _listeners(settings), _ranges(settings))
        if found:
            remedies = [each.remedy for each in found]
            if _daemons(settings):
                remedies.insert(0, f"lateen down: processes of the mesh {settings.name} are left from before")
            raise LateenError(
                "this machine is not ready for a mesh:\n" + "\n".join(f"  - {each.what}" for each in found),
                remedy="\n       ".join(remedies),
            )
        for directory in (layout.state, layout.run, layout.logs, layout.run / "pods", layout.xds_socket.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        file = settings_module.write(settings)
        report("starting the control plane, the node, the agent and the forwarder")
        _start_supervisor(settings, file)
    client = Client(layout.api_socket, "lateen up")
    before = _restarts(settings)
    try:
        await _until(deadline, lambda: _control_plane_ready(settings, client, before), lambda: _why_processes(settings))
        if demo or (demo is None and not await client.list("Deployment")):
            report("applying the demo application")
            files = [(path.name, path.read_text()) for path in sorted(DEMO.glob("*.yaml"))]
            result = await apply_files(client, files)
            if not result.applied:
                raise LateenError("the demo was refused:\n" + "\n".join(map(str, result.findings)))
        await _pods_ready(settings, client, deadline, report)
        if settings.gateway_port and await _has_gateway(client):
            url = f"http://{settings.host}:{settings.gateway_port}/productpage"
            report(f"waiting for {url}")
            await _until(deadline, lambda: _answers(url), lambda: _why_url(url))
    finally:
        await client.close()


async def down(settings: Settings, report: Report) -> None:
    """Stops every process of the mesh and removes what it made, whatever is still alive of it."""
    layout = settings.layout()
    state = supervisor.state(settings)
    if state is not None and state.pid:
        report("stopping the control plane, the node, the agent and the forwarder")
        _signal(state.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                while supervisor.running(settings):  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(_POLL_S)
    report("stopping the Pods")
    ended = await platform.down(layout)
    if ended.killed:
        report(f"ended by force: {', '.join(sorted(set(ended.killed)))}")
    shutil.rmtree(layout.run, ignore_errors=True)


def _daemons(settings: Settings) -> list[census.Process]:
    """What the mesh's supervisor had started, Pods apart."""
    return [each for each in census.processes(settings.state_dir) if each.command.startswith("python")]


async def _daemons_gone(settings: Settings) -> None:
    """Waits for the processes of a supervisor that was killed: they end by themselves, and hold ports until then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEFT_S):
            while _daemons(settings) and not supervisor.running(settings):  # noqa: ASYNC110 (other processes)
                await asyncio.sleep(_POLL_S)


def _listeners(settings: Settings) -> list[tuple[str, int, str]]:
    return [
        (settings.host, settings.gateway_port, "--gateway-port"),
        (settings.host, settings.https_port, "--https-port"),
        ("127.0.0.1", settings.console_port, "--console-port"),
        ("127.0.0.1", settings.debug_port, "--debug-port"),
        ("127.0.0.1", settings.api_port, "--api-port"),
        ("127.0.0.1", settings.xds_port, "--xds-port"),
        ("127.0.0.1", settings.plaintext_xds_port, "--plaintext-xds-port"),
        *(
            [
                (settings.vm_host, settings.xds_port, "--xds-port"),
                (settings.vm_host, settings.vm_login_port, "LATEEN_VM_LOGIN_PORT"),
                (settings.vm_host, settings.vm_gateway_port, "LATEEN_VM_GATEWAY_PORT"),
            ]
            if settings.vm_host
            else []
        ),
    ]


def _ranges(settings: Settings) -> list[tuple[str, str]]:
    return [(settings.pod_range, "LATEEN_POD_RANGE"), (settings.vip_range, "LATEEN_VIP_RANGE")]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _start_supervisor(settings: Settings, file: Path) -> None:
    with (settings.layout().logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lateen.daemon.supervisor", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | marker(settings.layout()),
            start_new_session=True,
        )
    while process.poll() is None and not supervisor.running(settings):
        time.sleep(_POLL_S / 10)


async def _until(
    deadline: float, ready: Callable[[], Awaitable[bool]], why: Callable[[], str | Awaitable[str]]
) -> None:
    while not await ready():
        if time.monotonic() > deadline:
            said = why()
            raise NotReadyError(said if isinstance(said, str) else await said, remedy="lateen ps, lateen logs")
        await asyncio.sleep(_POLL_S)


def _why_processes(settings: Settings) -> str:
    logs = settings.layout().logs
    state = supervisor.state(settings)
    if state is None:
        return f"the supervisor ended: {_last_line(logs / 'supervisor.log')}"
    ended = [f"{each.name} ({each.ended}: {_last_line(logs / each.name)})" for each in state.processes if each.ended]
    return f"the control plane does not answer; ended: {', '.join(ended) or 'none'}; logs: {logs}"


def _last_line(log: Path) -> str:
    try:
        lines = log.with_suffix(".log").read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "it printed nothing"


def _restarts(settings: Settings) -> int:
    """How often the control plane was started again so far."""
    state = supervisor.state(settings)
    return next((each.restarts for each in state.processes if each.name == "controlplane"), 0) if state else 0


async def _control_plane_ready(settings: Settings, client: Client, before: int) -> bool:
    """True when it answers. NotReadyError when it ends again and again: waiting longer would not help.

    `before` is how often it was restarted before it was waited for: what was is no reason.
    """
    if await client.ready():
        return True
    if supervisor.state(settings) is None or _restarts(settings) - before >= _TRIES:
        raise NotReadyError(_why_processes(settings), remedy="lateen logs controlplane; then lateen down, lateen up")
    return False


async def _pods_ready(settings: Settings, client: Client, deadline: float, report: Report) -> None:
    said = ""
    waiting: list[str] = ["no Pod yet"]
    while waiting:
        pods = await client.list("Pod")
        wanted = sum(
            int(each["spec"].get("replicas", 1)) for each in await client.list("Deployment") if each.get("spec")
        )
        live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        here = paths.recorded_pods(settings.run_dir)  # a status may be from before the mesh was last stopped
        waiting = [_why_pod(pod) for pod in live if not (_ended(pod) or (pod_ready(pod) and _uid(pod) in here))]
        ready = len(live) - len(waiting)
        if len(live) < wanted:
            waiting.append(f"{wanted - len(live)} Pods are not made yet")
        line = f"Pods ready: {ready} of {max(wanted, len(live))}"
        if line != said:
            report("\r" + line)
            said = line
        if waiting and time.monotonic() > deadline:
            raise NotReadyError("\n".join([line, *waiting]), remedy="lateen ps, lateen logs POD")
        if waiting:
            await asyncio.sleep(_POLL_S)


def _uid(pod: Json) -> str:
    return pod["metadata"]["uid"]


def _ended(pod: Json) -> bool:
    """True when a Pod has run to its end (a Job's): nothing of it will run again."""
    status: Json = pod.get("status") or {}
    return status.get("phase") in ("Succeeded", "Failed")


def pod_ready(pod: Json) -> bool:
    """True when a Pod is Ready."""
    status: Json = pod.get("status") or {}
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions", ()))


def _why_pod(pod: Json) -> str:
    name = f"{pod['metadata'].get('namespace')}/{pod['metadata'].get('name')}"
    status: Json = pod.get("status") or {}
    containers: list[Json] = status.get("containerStatuses") or []
    for container in containers:
        states: dict[str, Json] = container.get("state") or {}
        for state in states.values():
            if state.get("reason"):
                return f"{name}: {container.get('name')}: {state['reason']} {state.get('message', '')}".rstrip()
    return (
        f"{name}: {status.get('reason') or status.get('phase') or 'not started'} {status.get('message', '')}".rstrip()
    )


async def _has_gateway(client: Client) -> bool:
    gateways = await client.list("Gateway")
    return any(each["metadata"]["name"] == "bookinfo-gateway" for each in gateways)


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


async def _why_url(url: str) -> str:
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            answer = await http.get(url)
    except httpx.HTTPError as error:
        return f"{url} does not answer: {error!r}"
    return f"{url} answers {answer.status_code}: {answer.text[:200]}"
