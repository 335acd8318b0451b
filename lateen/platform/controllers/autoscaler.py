"""HorizontalPodAutoscalers: the replicas of a Deployment, ReplicaSet or StatefulSet, by what its Pods use.

The greatest number that any metric asks for is taken (`metrics`), held back by the rules of `spec.behavior`
(`scaling_rules`) and kept between `minReplicas` and `maxReplicas`. Where a metric is not known, nothing is taken away.
A target with no replicas is left alone: that is how autoscaling is switched off.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from lateen.api.struct import Json
from lateen.lib.usage import Measured
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Outcome, Patch, Say, with_status
from lateen.platform.controllers.cluster import Cluster
from lateen.platform.controllers.metrics import Proposal, Unknown, propose
from lateen.platform.controllers.scaling_rules import Decision, Memory, bounds, decide, tolerances

SCALABLE: Final = ("Deployment", "ReplicaSet", "StatefulSet")
PERIOD_S: Final = 5.0
"""How often an autoscaler looks; measurements are as old as that at most."""

_COMPONENT: Final = "horizontal-pod-autoscaler"
_DEFAULT: Final[Json] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


class _Wanted(msgspec.Struct, frozen=True):
    """What is to become of the replicas; `lines` are those of `status.currentMetrics`."""

    decision: Decision
    active: Json
    why: str
    lines: tuple[Json, ...]
    memory: Memory


class Autoscalers:
    """All autoscalers of a cluster, each with what it remembers."""

    def __init__(self, cluster: Cluster, measured: Callable[[], Measured], clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._measured = measured
        self._clock = clock
        self._memories: dict[str, Memory] = {}

    def __call__(self, key: d.Key) -> Outcome:
        """What to do for one autoscaler now."""
        found = self._cluster.get("HorizontalPodAutoscaler", key)
        if found is None:
            return Outcome()
        reference = d.spec(found)["scaleTargetRef"]
        kind = reference["kind"] if reference["kind"] in SCALABLE else ""
        target = self._cluster.get(kind, (key[0], reference["name"])) if kind else None
        pods = self._cluster.namespace("Pod", key[0])
        memory = self._memories.get(d.uid(found), Memory())
        outcome, self._memories[d.uid(found)] = reconcile(found, target, pods, self._measured(), memory, self._clock())
        return outcome

    def forget(self, uid: str) -> None:
        """An autoscaler is gone."""
        self._memories.pop(uid, None)


def reconcile(
    found: Json, target: Json | None, pods: Sequence[Json], measured: Measured, memory: Memory, now: float
) -> tuple[Outcome, Memory]:
    """What to do for one HorizontalPodAutoscaler, given its target and all Pods of the namespace."""
    if d.terminating(found):
        return Outcome(), memory
    if target is None:
        reference = d.spec(found)["scaleTargetRef"]
        known = reference["kind"] in SCALABLE
        message = (
            f"there is no {reference['kind']} {reference['name']}"
            if known
            else f"{reference['kind']} is not scaled here; {', '.join(SCALABLE)} are"
        )
        return _stopped(found, "AbleToScale", "FailedGetScale", message, now), memory
    able: Json = {
        "type": "AbleToScale",
        "status": "True",
        "reason": "SucceededGetScale",
        "message": "the target is there",
    }
    current = d.spec(target).get("replicas", 1)
    there = d.status(target).get("replicas", 0)
    if current == 0:
        off: Json = {
            "type": "ScalingActive",
            "status": "False",
            "reason": "ScalingDisabled",
            "message": "scaling is disabled since the replica count of the target is zero",
        }
        return _outcome(found, [able, off], there, 0, (), now), memory
    wanted = _wanted(found, target, pods, measured, memory, now)
    if isinstance(wanted, Unknown):
        return _stopped(found, "ScalingActive", wanted.reason, wanted.message, now, able, there), memory
    replicas, memory = wanted.decision.replicas, wanted.memory
    able, actions, last = wanted.decision.able, list[Action](), d.status(found).get("lastScaleTime")
    if replicas != current:
        actions.append(Patch(target["kind"], d.key(target), {"spec": {"replicas": replicas}}))
        actions.append(Say(found, "SuccessfulRescale", f"New size: {replicas}; reason: {wanted.why}", _COMPONENT))
        memory = memory.scaled(replicas - current, now)
        message = f"the target was scaled to {replicas}"
        able = {"type": "AbleToScale", "status": "True", "reason": "SucceededRescale", "message": message}
        last = d.timestamp(now)
    conditions = [able, wanted.active, wanted.decision.limited]
    return _outcome(found, conditions, there, replicas, wanted.lines, now, actions, last), memory


def _wanted(
    found: Json, target: Json, pods: Sequence[Json], measured: Measured, memory: Memory, now: float
) -> _Wanted | Unknown:
    spec, current = d.spec(found), d.spec(target).get("replicas", 1)
    selector = d.spec(target).get("selector")
    counted = [pod for pod in pods if d.matches(selector, d.labels(pod)) and d.active(pod)]
    answers = [
        propose(each, current, counted, measured, tolerances(spec), now)
        for each in d.parts(spec, "metrics") or [_DEFAULT]
    ]
    known = [each for each in answers if isinstance(each, Proposal)]
    unknown = [each for each in answers if isinstance(each, Unknown)]
    least, most = bounds(spec)
    lines = tuple(each.status for each in known)
    outside = current > most or current < least
    best = max(known, key=lambda each: each.replicas) if known else None
    if not outside and (best is None or (unknown and best.replicas < current)):
        return unknown[0]
    if outside:
        asked = min(max(current, least), most)
        why = f"current number of replicas {'above' if current > most else 'below'} the bounds of the autoscaler"
        active = _active("the number of replicas is outside of the bounds")
    else:
        assert best is not None
        asked = best.replicas
        why = f"{best.words} above target" if asked > current else "all metrics below target"
        active = _active(f"the replicas are counted from {best.words}")
    decision, memory = decide(spec, current, asked, memory, now)
    return _Wanted(decision, active, why, lines, memory)


def _active(message: str) -> Json:
    return {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": message}


def _stopped(
    found: Json, kind: str, reason: str, message: str, now: float, able: Json | None = None, there: int = 0
) -> Outcome:
    """Nothing can be done, and why: said once as an event, and as a condition as long as it lasts."""
    before = d.condition(found, kind) or {}
    condition: Json = {"type": kind, "status": "False", "reason": reason, "message": message}
    said = (before.get("status"), before.get("reason"), before.get("message")) == ("False", reason, message)
    actions = [] if said else [Say(found, reason, message, _COMPONENT, warning=True)]
    desired = d.status(found).get("desiredReplicas", 0)
    conditions = [condition] if able is None else [able, condition]
    last = d.status(found).get("lastScaleTime")
    return _outcome(found, conditions, there, desired, (), now, actions, last)


def _outcome(
    found: Json,
    conditions: Sequence[Json],
    there: int,
    desired: int,
    lines: Sequence[Json],
    now: float,
    actions: Sequence[Action] = (),
    last: str | None = None,
) -> Outcome:
    before = d.parts(d.status(found), "conditions")
    types = {each["type"] for each in conditions}
    kept = [each for each in before if each["type"] not in types]
    status: Json = {
        "observedGeneration": found["metadata"].get("generation", 0),
        "currentReplicas": there,
        "desiredReplicas": desired,
        "conditions": [*d.conditions(before, conditions, now), *kept],
    }
    if lines:
        status["currentMetrics"] = list(lines)
    if last:
        status["lastScaleTime"] = last
    return Outcome((*actions, *with_status(found, status)), PERIOD_S)
