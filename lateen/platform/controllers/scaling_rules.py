"""How fast replicas may change: stabilization windows and policies of an autoscaler's `spec.behavior`.

Going up is immediate and at most doubles (or adds four) in 15 s; going down waits until five minutes have passed in
which nothing asked for more. `spec.behavior` changes each of these.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#configurable-scaling-behavior
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from lateen.api.struct import Json
from lateen.lib.quantities import parse_quantity
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.metrics import TOLERANCE, Tolerances

_UP: Final[Json] = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Final[Json] = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_KEPT_S: Final = 3600.0

Dated = tuple[tuple[float, int], ...]
"""Numbers with the times at which they were said, oldest first."""


class Memory(msgspec.Struct, frozen=True):
    """What an autoscaler remembers: what its metrics asked for, and by how much it went up and down."""

    asked: Dated = ()
    up: Dated = ()
    down: Dated = ()

    def scaled(self, change: int, now: float) -> Memory:
        """With one more change of the number of replicas."""
        if change > 0:
            return msgspec.structs.replace(self, up=(*_recent(self.up, now - _KEPT_S), (now, change)))
        return msgspec.structs.replace(self, down=(*_recent(self.down, now - _KEPT_S), (now, -change)))


class Decision(msgspec.Struct, frozen=True):
    """The replicas to have, and the conditions AbleToScale and ScalingLimited that tell why."""

    replicas: int
    able: Json
    limited: Json


def rules(spec: Json, direction: Literal["scaleUp", "scaleDown"]) -> Json:
    """One direction's rules with Kubernetes' defaults."""
    given = d.part(d.part(spec, "behavior"), direction)
    said = {name: part for name, part in given.items() if part is not None and part != []}
    return (_UP if direction == "scaleUp" else _DOWN) | said


def tolerances(spec: Json) -> Tolerances:
    """How far a ratio may be off."""

    def of(direction: Literal["scaleUp", "scaleDown"]) -> float:
        said = rules(spec, direction).get("tolerance")
        return TOLERANCE if said is None else float(parse_quantity(said).value)

    return Tolerances(of("scaleUp"), of("scaleDown"))


def bounds(spec: Json) -> tuple[int, int]:
    """The fewest and the most replicas."""
    return spec.get("minReplicas", 1), spec["maxReplicas"]


def decide(spec: Json, current: int, asked: int, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """What becomes of what the metrics ask for."""
    up, down = rules(spec, "scaleUp"), rules(spec, "scaleDown")
    wait_up, wait_down = up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"]
    lowest = min((asked, *(number for _, number in _recent(memory.asked, now - wait_up))))
    highest = max((asked, *(number for _, number in _recent(memory.asked, now - wait_down))))
    wanted = min(max(current, lowest), highest)
    if wanted > asked:
        able = _true("AbleToScale", "ScaleDownStabilized", "more was asked for recently: the highest of that is taken")
    elif wanted < asked:
        able = _true("AbleToScale", "ScaleUpStabilized", "less was asked for recently: the lowest of that is taken")
    else:
        able = _true("AbleToScale", "ReadyForNewScale", "what is asked for may be done at once")
    kept = _recent(memory.asked, now - max(wait_up, wait_down))
    remembered = msgspec.structs.replace(memory, asked=(*kept, (now, asked)))
    replicas, limited = _limited(spec, current, wanted, memory, now)
    return Decision(replicas, able, limited), remembered


def _limited(spec: Json, current: int, wanted: int, memory: Memory, now: float) -> tuple[int, Json]:
    least, most = bounds(spec)
    if wanted > current:
        fastest = max(current, _limit(rules(spec, "scaleUp"), current, memory, now, up=True))
        if wanted > min(most, fastest):
            why = (
                ("TooManyReplicas", f"more is asked for than maxReplicas {most}")
                if most < fastest
                else ("ScaleUpLimit", "more is asked for than may be added in that time")
            )
            return min(most, fastest), _true("ScalingLimited", *why)
    elif wanted < current:
        fastest = min(current, _limit(rules(spec, "scaleDown"), current, memory, now, up=False))
        if wanted < max(least, fastest):
            why = (
                ("TooFewReplicas", f"less is asked for than minReplicas {least}")
                if least > fastest
                else ("ScaleDownLimit", "more would go than may go in that time")
            )
            return max(least, fastest), _true("ScalingLimited", *why)
    if wanted > most:
        return most, _true("ScalingLimited", "TooManyReplicas", f"more is asked for than maxReplicas {most}")
    if wanted < least:
        return least, _true("ScalingLimited", "TooFewReplicas", f"less is asked for than minReplicas {least}")
    return wanted, {
        "type": "ScalingLimited",
        "status": "False",
        "reason": "DesiredWithinRange",
        "message": "the desired count is within the acceptable range",
    }


def _limit(rule: Json, current: int, memory: Memory, now: float, *, up: bool) -> int:
    """The farthest that policies allow to go now."""
    if rule["selectPolicy"] == "Disabled":
        return current
    found: list[int] = []
    for policy in rule["policies"]:
        since = now - policy["periodSeconds"]
        added = sum(number for _, number in _recent(memory.up, since))
        taken = sum(number for _, number in _recent(memory.down, since))
        begun, value = current - added + taken, policy["value"]
        if policy["type"] == "Pods":
            found.append(begun + value if up else begun - value)
        else:
            found.append(math.ceil(begun * (1 + value / 100)) if up else int(begun * (1 - value / 100)))
    farthest = (rule["selectPolicy"] == "Max") == up
    return max(found) if farthest else min(found)


def _recent(dated: Dated, since: float) -> Dated:
    return tuple(each for each in dated if each[0] > since)


def _true(kind: str, reason: str, message: str) -> Json:
    return {"type": kind, "status": "True", "reason": reason, "message": message}
