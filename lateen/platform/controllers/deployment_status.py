"""What a Deployment says of itself: counts, whether enough of it serves, and how its rollout goes.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d

PROGRESS_DEADLINE_S = 600


def amount(value: int | str, of: int, *, up: bool) -> int:
    """A number of Pods given as such or as a percentage of the wanted ones."""
    if isinstance(value, int):
        return value
    share = of * float(value.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def status_of(
    deployment: Json, current: str, new: Sequence[Json], old: Sequence[Json], available: set[str], now: float
) -> tuple[Json, float | None]:
    """The status, and when the deadline of a rollout will have passed (None: nothing is under way). `current` names
    the ReplicaSet of the present template."""
    spec, before = d.spec(deployment), d.status(deployment)
    wanted, total = spec.get("replicas", 1), len(new) + len(old)
    counts = {
        "replicas": total,
        "updatedReplicas": len(new),
        "readyReplicas": sum(d.ready(pod) for pod in (*new, *old)),
        "availableReplicas": len(available),
        "unavailableReplicas": max(0, wanted - len(available)),
    }
    rolling = d.part(d.part(spec, "strategy"), "rollingUpdate")
    least = wanted - amount(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    enough = len(available) >= least
    complete = bool(current) and len(new) == total == wanted == len(available)
    previous = d.condition(deployment, "Progressing") or {}
    generation = deployment["metadata"].get("generation", 0)
    moved = {**counts, "observedGeneration": generation} != {
        name: before.get(name, 0) for name in (*counts, "observedGeneration")
    }
    updated = d.timestamp(now) if moved else previous.get("lastUpdateTime") or d.timestamp(now)
    deadline_s = spec.get("progressDeadlineSeconds") or PROGRESS_DEADLINE_S
    left_s = (d.seconds(updated) or now) + deadline_s - now
    progressing: Json = {"type": "Progressing", "lastUpdateTime": updated, "status": "True"}
    if complete:
        message = f'ReplicaSet "{current}" has successfully progressed.'
        progressing |= {"reason": "NewReplicaSetAvailable", "message": message}
    elif spec.get("paused"):
        progressing |= {"status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}
    elif left_s > 0:
        progressing |= {"reason": "ReplicaSetUpdated", "message": f"{len(new)} of {wanted} Pods are new"}
    else:
        message = f"no progress for {deadline_s} s: {_hindrance([*new, *old], available)}"
        progressing |= {"status": "False", "reason": "ProgressDeadlineExceeded", "message": message}
    availability: Json = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": f"{len(available)} of {wanted} Pods are available"
        + ("" if len(available) >= wanted else f": {_hindrance([*new, *old], available)}"),
    }
    status: Json = {
        "observedGeneration": generation,
        **counts,
        "conditions": d.conditions(d.parts(before, "conditions"), (availability, progressing), now),
    }
    over = complete or left_s <= 0 or spec.get("paused")
    return status, None if over else left_s


def _hindrance(pods: Sequence[Json], available: set[str]) -> str:
    """Why the first Pod that isn't available is not, as far as its status says."""
    for pod in sorted(pods, key=d.name):
        if d.uid(pod) in available:
            continue
        for container in d.parts(d.status(pod), "containerStatuses"):
            waiting = d.part(d.part(container, "state"), "waiting")
            if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
                return f"{d.name(pod)}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        return f"{d.name(pod)} is not ready"
    return "Pods are being made"
