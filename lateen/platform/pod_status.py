"""From what a Pod's init reports to the status of its document.

The status has the form Kubernetes gives it; the proxy appears among the containers as `istio-proxy`, so that who
looks sees it and why it isn't ready. Conditions of types not known here (readiness gates) are kept.
"""

from __future__ import annotations

from typing import Final

from lateen.api.struct import Json
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.platform.controllers import documents as d
from lateen.platform.environment import ConfigError
from lateen.platform.pod import ContainerState, Ended, PodState

POD_CANNOT_RUN: Final = "LTN0601"
"""A Pod cannot be run as it is written."""
OURS = ("PodScheduled", "Initialized", "ContainersReady", "Ready")


def running(pod: Json, state: PodState, now: float) -> Json:
    """The status of a Pod that the platform runs."""
    containers = [each for each in state.containers if not each.init]
    shown = [*([state.proxy] if state.proxy else []), *containers]
    ended = bool(containers) and all(each.phase == "terminated" for each in containers)
    stopped = [each.last.exit_code for each in containers if each.last is not None]
    started = any(each.phase == "running" or each.restarts > 0 for each in shown if each is not state.proxy)
    broken = any(each.init and each.phase == "terminated" and _code(each) for each in state.containers)
    if broken or (ended and any(stopped)):
        phase = "Failed"
    elif ended:
        phase = "Succeeded"
    elif started or (not containers and state.proxy is not None and state.proxy.phase == "running"):
        phase = "Running"
    else:
        phase = "Pending"
    initialized = all(each.phase == "terminated" and not _code(each) for each in state.containers if each.init)
    initial = [_container(each) for each in state.containers if each.init]
    return {
        "phase": phase,
        "podIP": state.ip,
        "podIPs": [{"ip": state.ip}],
        "hostIP": "127.0.0.1",
        "startTime": d.timestamp(state.started_at),
        "conditions": _conditions(pod, initialized=initialized, ready=state.ready and not ended, shown=shown, now=now),
        **({"initContainerStatuses": initial} if initial else {}),
        "containerStatuses": [_container(each) | ({"ready": False} if ended else {}) for each in shown],
    }


def not_running(pod: Json, reason: str, message: str, now: float) -> Json:
    """The status of a Pod that is not there (yet, or any more): each container waits for that reason. An address it
    had is kept."""
    waiting = {"waiting": {"reason": reason, "message": message}}
    names = [each["name"] for each in d.parts(d.spec(pod), "containers")]
    kept = {name: d.status(pod)[name] for name in ("podIP", "podIPs") if name in d.status(pod)}
    return {
        **kept,
        "phase": "Pending",
        "conditions": _conditions(pod, initialized=False, ready=False, shown=[], now=now, why=(reason, message)),
        "containerStatuses": [
            {"name": name, "ready": False, "started": False, "restartCount": 0, "state": waiting} for name in names
        ],
    }


def unschedulable(pod: Json, now: float) -> Json:
    """The status of a Pod that may not be started: the machine is cordoned."""
    message = "0/1 nodes are available: 1 node(s) were unschedulable."
    made: Json = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    before = d.parts(d.status(pod), "conditions")
    kept = [each for each in before if each["type"] not in OURS]
    return {"phase": "Pending", "conditions": [*d.conditions(before, [made], now), *kept]}


def _conditions(
    pod: Json,
    *,
    initialized: bool,
    ready: bool,
    shown: list[ContainerState],
    now: float,
    why: tuple[str, str] | None = None,
) -> list[Json]:
    before = d.parts(d.status(pod), "conditions")
    kept = [each for each in before if each["type"] not in OURS]
    gates = [each["conditionType"] for each in d.parts(d.spec(pod), "readinessGates")]
    met = {each["type"] for each in kept if each.get("status") == "True"}
    closed = [gate for gate in gates if gate not in met]
    unready = [each.name for each in shown if not each.ready]
    if why is None and unready:
        why = ("ContainersNotReady", f"not ready: {', '.join(unready)}")
    pod_why = ("ReadinessGatesNotReady", f"not true: {', '.join(closed)}") if ready and closed else why
    made = [
        _condition("PodScheduled", True, None),
        _condition("Initialized", initialized, why),
        _condition("ContainersReady", ready, why),
        _condition("Ready", ready and not closed, pod_why),
    ]
    return [*d.conditions(before, made, now), *kept]


def _condition(kind: str, holds: bool, why: tuple[str, str] | None) -> Json:
    if holds or why is None:
        return {"type": kind, "status": "True" if holds else "False"}
    return {"type": kind, "status": "False", "reason": why[0], "message": why[1]}


def _container(state: ContainerState) -> Json:
    made: Json = {
        "name": state.name,
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "state": _state(state),
    }
    if state.last is not None and state.phase != "terminated":
        made["lastState"] = {"terminated": _ended(state.last)}
    return made


def _state(state: ContainerState) -> Json:
    if state.phase == "running":
        return {"running": {"startedAt": d.timestamp(state.started_at)}}
    if state.phase == "terminated" and state.last is not None:
        return {"terminated": _ended(state.last)}
    waiting = {"reason": state.reason or "ContainerCreating", "message": state.message or _last_words(state.last)}
    return {"waiting": {key: value for key, value in waiting.items() if value}}


def _last_words(last: Ended | None) -> str:
    """How the previous run ended, for a container that waits for its next."""
    if last is None:
        return ""
    return f"exit code {last.exit_code}" + (f": {last.message}" if last.message else "")


def _ended(ended: Ended) -> Json:
    made = {
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "message": ended.message,
        "startedAt": d.timestamp(ended.started_at),
        "finishedAt": d.timestamp(ended.finished_at),
    }
    return {key: value for key, value in made.items() if value != ""}


def _code(state: ContainerState) -> int:
    return state.last.exit_code if state.last else 0


def cannot_run(pod: Json, error: ConfigError) -> Finding:
    """What keeps a Pod from running, as a finding on it."""
    return Finding(
        code=POD_CANNOT_RUN,
        level=Level.WARNING,
        message=str(error),
        ref=Ref("", "Pod", d.namespace(pod), d.name(pod)),
        path="spec",
        remedy="give the container a command" if error.reason == "NoCommand" else "",
    )
