"""Deployments: keep the wanted number of Pods of the current template, and replace older ones step by step.

Pods belong to the Deployment directly; the label `pod-template-hash` tells which template each was made from, so
there is no ReplicaSet in between. Replacement follows Kubernetes' rules: with RollingUpdate never more than
replicas + maxSurge Pods and never fewer than replicas - maxUnavailable available ones; Pods that are not available
anyway go first. With Recreate all old ones are gone before a new one is made. A paused Deployment is scaled, not
rolled; as old templates are not kept, Pods it lacks are made from the current one.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, Patch, soonest, with_status

HASH_LABEL = "pod-template-hash"
PROGRESS_DEADLINE_S = 600


def template_hash(deployment: Json) -> str:
    """The name of the Deployment's current Pod template."""
    return d.digest(d.spec(deployment)["template"])


def reconcile(deployment: Json, pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one Deployment, given all Pods of its namespace."""
    if d.terminating(deployment):
        return Outcome()
    spec, current = d.spec(deployment), template_hash(deployment)
    owned, claims = _claim(deployment, pods)
    live = [pod for pod in owned if d.active(pod)]
    new = [pod for pod in live if d.labels(pod).get(HASH_LABEL) == current]
    old = [pod for pod in live if d.labels(pod).get(HASH_LABEL) != current]
    min_ready_s = spec.get("minReadySeconds") or 0
    waits = {d.uid(pod): d.available_in_s(pod, min_ready_s, now) for pod in live}
    available = {uid for uid, wait in waits.items() if wait == 0}
    leaving = any(d.terminating(pod) and not d.finished(pod) for pod in owned)
    create, remove = _steps(spec, new, old, available, leaving)
    actions: list[Action] = [*claims]
    actions += [Create(_pod(deployment, current))] * create
    actions += [Delete("Pod", d.key(pod), d.uid(pod)) for pod in remove]
    # finished Pods are no replicas any more: they make room
    actions += [Delete("Pod", d.key(pod), d.uid(pod)) for pod in owned if d.finished(pod) and not d.terminating(pod)]
    status, again_s = _status(deployment, new, old, available, now)
    waiting = soonest(*(wait for wait in waits.values() if wait))
    return Outcome((*actions, *with_status(deployment, status)), soonest(again_s, waiting))


def _claim(deployment: Json, pods: Sequence[Json]) -> tuple[list[Json], list[Action]]:
    """The Deployment's Pods, and the changes of ownership that follow from its selector.

    A Pod of a template (it has the hash label) that nobody owns and the selector matches is taken on; an owned Pod
    that the selector no longer matches is let go.
    """
    selector, owned, claims = d.spec(deployment).get("selector"), list[Json](), list[Action]()
    for pod in pods:
        matched = d.matches(selector, d.labels(pod))
        if d.owned_by(pod, deployment):
            if matched:
                owned.append(pod)
            elif not d.terminating(pod):
                claims.append(Patch("Pod", d.key(pod), {"metadata": {"ownerReferences": None}}))
        elif matched and d.owner(pod) is None and HASH_LABEL in d.labels(pod) and not d.terminating(pod):
            owned.append(pod)
            references = [d.owner_reference(deployment)]
            claims.append(Patch("Pod", d.key(pod), {"metadata": {"ownerReferences": references}}))
    return owned, claims


def _steps(
    spec: Json, new: list[Json], old: list[Json], available: set[str], leaving: bool
) -> tuple[int, Sequence[Json]]:
    """How many Pods to make now, and which to end now."""
    wanted = spec.get("replicas", 1)
    surplus = _first_to_go(new, available)[: max(0, len(new) - wanted)]
    total = len(new) + len(old)
    if spec.get("paused"):
        candidates = [*_first_to_go(old, available), *_first_to_go(new, available)]
        return max(0, wanted - total), candidates[: max(0, total - wanted)]
    strategy = d.part(spec, "strategy")
    if strategy.get("type") == "Recreate":
        blocked = bool(old) or (leaving and not new)
        return 0 if blocked else max(0, wanted - len(new)), [*surplus, *old]
    rolling = d.part(strategy, "rollingUpdate")
    surge = _amount(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = _amount(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    create = max(0, min(wanted - len(new), wanted + surge - total))
    least = wanted - unavailable
    new_unavailable = sum(d.uid(pod) not in available for pod in new)
    broken = [pod for pod in _first_to_go(old, available) if d.uid(pod) not in available]
    serving = [pod for pod in _first_to_go(old, available) if d.uid(pod) in available]
    spare = len(available) - least
    return create, [
        *surplus,
        *broken[: max(0, total - least - new_unavailable)],
        *serving[: max(0, spare)],
    ]


def _first_to_go(pods: Sequence[Json], available: set[str]) -> list[Json]:
    """In the order in which they are given up: unavailable before available, then the youngest."""
    youngest = sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), d.name(pod)), reverse=True)
    return sorted(youngest, key=lambda pod: d.uid(pod) in available)


def _amount(value: int | str, of: int, *, up: bool) -> int:
    """A number of Pods given as such or as a percentage of the wanted ones."""
    if isinstance(value, int):
        return value
    share = of * float(value.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def _pod(deployment: Json, current: str) -> Json:
    template = d.spec(deployment)["template"]
    metadata = d.part(template, "metadata")
    made: Json = {
        "generateName": f"{d.name(deployment)}-{current}-",
        "namespace": d.namespace(deployment),
        "labels": {**d.part(metadata, "labels"), HASH_LABEL: current},
        "ownerReferences": [d.owner_reference(deployment)],
    }
    if metadata.get("annotations"):
        made["annotations"] = metadata["annotations"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": d.part(template, "spec")}


def _status(
    deployment: Json, new: list[Json], old: list[Json], available: set[str], now: float
) -> tuple[Json, float | None]:
    """The status, and when the deadline of a rollout will have passed."""
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
    least = wanted - _amount(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    enough = len(available) >= least
    complete = len(new) == total == wanted == len(available)
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
        progressing |= {"reason": "NewReplicaSetAvailable", "message": "every Pod is of the current template"}
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
    return status, None if complete or left_s <= 0 else left_s


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
