"""What a kubelet tells people of its Pods: read off from two statuses of one Pod, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Say

_COMPONENT: Final = "kubelet"
_ENDED_BADLY: Final = ("Error", "OOMKilled", "StartError")


def events(pod: Json, before: Json, after: Json) -> Iterator[Say]:
    """What has happened between two statuses: containers that started, ended badly, wait for another start, or fail
    their probes."""
    scheduled, was = _scheduled(after), _scheduled(before)
    if scheduled.get("reason") == "Unschedulable" != was.get("reason"):
        yield Say(pod, "FailedScheduling", str(scheduled["message"]), "default-scheduler", warning=True)
    parts = ("initContainerStatuses", "containerStatuses")
    known = {each["name"]: each for part in parts for each in d.parts(before, part)}
    for each in [one for part in parts for one in d.parts(after, part)]:
        old = known.get(each["name"], {})
        state, old_state = d.part(each, "state"), d.part(old, "state")
        if "running" in state and state != old_state:
            yield Say(pod, "Started", f"Container started: {each['name']}", _COMPONENT)
        for ended, was in (
            (d.part(state, "terminated"), d.part(old_state, "terminated")),
            (d.part(d.part(each, "lastState"), "terminated"), d.part(d.part(old, "lastState"), "terminated")),
        ):
            if ended and ended != was and ended.get("reason") in _ENDED_BADLY:
                text = f"Container {each['name']} ended with exit code {ended['exitCode']} {ended.get('message', '')}"
                yield Say(pod, str(ended["reason"]), text.rstrip(), _COMPONENT, warning=True)
        waiting, waited = d.part(state, "waiting"), d.part(old_state, "waiting")
        if waiting.get("reason") == "CrashLoopBackOff" != waited.get("reason"):
            text = f"Back-off restarting failed container {each['name']} in pod {d.name(pod)}"
            yield Say(pod, "BackOff", text, _COMPONENT, warning=True)
        elif (
            waiting.get("message")
            and waiting != waited
            and waiting.get("reason") not in ("CrashLoopBackOff", "Restarting")
        ):
            yield Say(pod, str(waiting.get("reason")), str(waiting["message"]), _COMPONENT, warning=True)


def _scheduled(status: Json) -> Json:
    return next((each for each in d.parts(status, "conditions") if each["type"] == "PodScheduled"), Json())
