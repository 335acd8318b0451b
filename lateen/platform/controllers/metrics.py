"""How many replicas a metric asks for: what Pods use of a resource, against what they request or a fixed amount.

Pods that are about to end don't count. One that has just started tells nothing about the load yet (its start is work
too), and one without a measurement is taken for what would change the least, so that neither makes the number swing.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from lateen.api.struct import Json
from lateen.lib.quantities import parse_quantity
from lateen.lib.usage import Amount, Measured
from lateen.platform.controllers import documents as d

TOLERANCE: Final = 0.1
_WARM_UP_S: Final = 300.0
_FIRST_READY_S: Final = 30.0


class Proposal(msgspec.Struct, frozen=True):
    """The replicas that one metric asks for, its line of `status.currentMetrics`, and what was measured in words."""

    replicas: int
    status: Json
    words: str


class Unknown(msgspec.Struct, frozen=True):
    """Why a metric asks for nothing: a reason in one word, and what to read."""

    reason: str
    message: str


class Tolerances(msgspec.Struct, frozen=True):
    """By how much a ratio may be off before anything is done."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def hold(self, ratio: float) -> bool:
        """Whether that is near enough to 1."""
        return 1 - self.down <= ratio <= 1 + self.up


def propose(
    metric: Json, replicas: int, pods: Sequence[Json], measured: Measured, tolerances: Tolerances, now: float
) -> Proposal | Unknown:
    """What one entry of `spec.metrics` asks for, given the Pods of the target and how many replicas are wanted now."""
    kind = metric["type"]
    if kind not in ("Resource", "ContainerResource"):
        return Unknown(f"FailedGet{kind}Metric", f"metrics of type {kind} are not measured here; Resource is")
    part = "resource" if kind == "Resource" else "containerResource"
    source = metric[part]
    resource, target, container = source["name"], source["target"], source.get("container", "")
    if resource not in ("cpu", "memory"):
        return Unknown(f"FailedGet{kind}Metric", f"{resource} is not measured here; cpu and memory are")
    ready, unready, missing = _grouped(pods, measured, resource, container, now)
    if not ready:
        why = "there are no Pods" if not pods else f"none of {len(pods)} Pods has been measured and is ready"
        return Unknown(f"FailedGet{kind}Metric", f"unable to get {resource} of the target: {why}")
    average = sum(ready.values()) / len(ready)
    shown: Json = {"averageValue": _text(resource, average)}
    if "averageUtilization" in target:
        requests: dict[str, float] = {}
        for pod in pods:
            found = _request(pod, resource, container)
            if isinstance(found, Unknown):
                return found
            requests[d.uid(pod)] = found
        wanted = target["averageUtilization"]
        asked = sum(requests[uid] for uid in ready)
        if not asked:
            return Unknown(f"FailedGet{kind}Metric", f"no Pod of the target requests any {resource}")
        shown["averageUtilization"] = int(100 * sum(ready.values()) / asked)
        words = f"{resource} utilization (percentage of request)"
        # where nothing is known, a Pod is taken to use what it requests, or more when more is aimed at
        likely = {uid: request * max(1.0, wanted / 100) for uid, request in requests.items()}

        def ratio(values: Mapping[str, float]) -> float:
            return 100 * sum(values.values()) / sum(requests[uid] for uid in values) / wanted
    else:
        aim = float(parse_quantity(target["averageValue"]).value)
        words = f"average {resource}"
        likely = {d.uid(pod): aim for pod in pods}

        def ratio(values: Mapping[str, float]) -> float:
            return sum(values.values()) / len(values) / aim

    wants = _replicas(replicas, ready, unready, missing, likely, ratio(ready), ratio, tolerances)
    line = {"name": resource, **({"container": container} if container else {}), "current": shown}
    return Proposal(wants, {"type": kind, part: line}, words)


def _replicas(
    replicas: int,
    ready: Mapping[str, float],
    unready: Sequence[str],
    missing: Sequence[str],
    likely: Mapping[str, float],
    first: float,
    ratio: _Ratio,
    tolerances: Tolerances,
) -> int:
    """From ratios to replicas: unmeasured Pods count for what keeps the number where it is."""
    idle = bool(unready) and first > 1
    if not idle and not missing:
        return replicas if tolerances.hold(first) else math.ceil(round(first * len(ready), 9))
    values = dict(ready)
    if missing:
        values |= {uid: likely[uid] if first < 1 else 0.0 for uid in missing}
    if idle:
        values |= dict.fromkeys(unready, 0.0)
    second = ratio(values)
    if tolerances.hold(second) or (first < 1) != (second < 1):
        return replicas
    wants = math.ceil(round(second * len(values), 9))
    backwards = (second < 1 and wants > replicas) or (second > 1 and wants < replicas)
    return replicas if backwards else wants


class _Ratio(Protocol):
    """Called with what Pods use (by uid): how much that is of what is aimed at."""

    def __call__(self, values: Mapping[str, float], /) -> float: ...


def _grouped(
    pods: Sequence[Json], measured: Measured, resource: str, container: str, now: float
) -> tuple[dict[str, float], list[str], list[str]]:
    """Use by uid of Pods that tell something; uids of those that have not come to work yet; of those not measured."""
    ready, unready, missing = dict[str, float](), list[str](), list[str]()
    for pod in pods:
        uid = d.uid(pod)
        used = _used(pod, measured, resource, container)
        if d.phase(pod) == "Pending":
            unready.append(uid)
        elif used is None:
            missing.append(uid)
        elif resource == "cpu" and _starting(pod, measured, now):
            unready.append(uid)
        else:
            ready[uid] = used
    return ready, unready, missing


def _starting(pod: Json, measured: Measured, now: float) -> bool:
    """Whether what a Pod uses of the processor may be its start rather than the load."""
    condition, since = d.condition(pod, "Ready"), d.seconds(d.status(pod).get("startTime") or "")
    if condition is None or since is None:
        return True
    changed = d.seconds(condition.get("lastTransitionTime") or "") or since
    if since + _WARM_UP_S > now:
        return condition["status"] == "False" or measured.at < changed + measured.window_s
    return condition["status"] == "False" and since + _FIRST_READY_S > changed


def _used(pod: Json, measured: Measured, resource: str, container: str) -> float | None:
    amounts = measured.pods.get(d.uid(pod))
    names = [container] if container else [each["name"] for each in d.parts(d.spec(pod), "containers")]
    if amounts is None or any(name not in amounts for name in names):
        return None
    return sum(_of(amounts[name], resource) for name in names)


def _of(amount: Amount, resource: str) -> float:
    return amount.cpus if resource == "cpu" else float(amount.memory_bytes)


def _request(pod: Json, resource: str, container: str) -> float | Unknown:
    total = 0.0
    for each in d.parts(d.spec(pod), "containers"):
        if container and each["name"] != container:
            continue
        resources = d.part(each, "resources")
        said = d.part(resources, "requests").get(resource) or d.part(resources, "limits").get(resource)
        if said is None:
            message = f"missing request for {resource} in container {each['name']} of Pod {d.name(pod)}"
            return Unknown("FailedGetResourceMetric", message)
        total += float(parse_quantity(said).value)
    return total


def _text(resource: str, value: float) -> str:
    return f"{round(value * 1000)}m" if resource == "cpu" else f"{round(value / 1024)}Ki"
