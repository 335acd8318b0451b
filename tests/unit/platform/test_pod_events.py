"""What a kubelet tells of a Pod, by what its status was and is."""

from __future__ import annotations

from typing import Any

from lateen.platform.pod_events import events

Json = dict[str, Any]
POD: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}


def status(state: Json, last: Json | None = None, conditions: tuple[Json, ...] = ()) -> Json:
    container = {"name": "c", "state": state, **({"lastState": {"terminated": last}} if last else {})}
    return {"containerStatuses": [container], "conditions": list(conditions)}


def told(before: Json, after: Json) -> list[tuple[str, str, bool]]:
    return [(each.reason, each.message, each.warning) for each in events(POD, before, after)]


RUNNING: Json = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
FAILED: Json = {"exitCode": 3, "reason": "Error", "message": "boom", "finishedAt": "2026-01-01T00:00:01Z"}
WAITING: Json = {"waiting": {"reason": "CrashLoopBackOff", "message": "exit code 3: boom"}}


def test_the_life_of_a_container_is_told_once() -> None:
    assert told({}, status(RUNNING)) == [("Started", "Container started: c", False)]
    assert told(status(RUNNING), status(RUNNING)) == []
    crashed = told(status(RUNNING), status(WAITING, FAILED))
    assert crashed == [
        ("Error", "Container c ended with exit code 3 boom", True),
        ("BackOff", "Back-off restarting failed container c in pod p", True),
    ]
    assert told(status(WAITING, FAILED), status(WAITING, FAILED)) == []
    again = {"running": {"startedAt": "2026-01-01T00:00:09Z"}}
    assert told(status(WAITING, FAILED), status(again, FAILED)) == [("Started", "Container started: c", False)]


def test_success_is_no_warning() -> None:
    ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    assert told(status(RUNNING), status(ended)) == []


def test_why_a_pod_does_not_start() -> None:
    missing = {"waiting": {"reason": "CreateContainerConfigError", "message": "there is no ConfigMap x"}}
    assert told({}, status(missing)) == [("CreateContainerConfigError", "there is no ConfigMap x", True)]
    cordoned = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nodes"}
    after: Json = {"conditions": [cordoned]}
    assert told({}, after) == [("FailedScheduling", "no nodes", True)]
    assert told(after, after) == []
