"""ReplicaSets, StatefulSets and DaemonSets: Pods of one template, so many, numbered, or one on this machine.

A StatefulSet's Pods have names that stay. With OrderedReady they are made one after the other, each when those before
it are ready, and go in the opposite order; a new template replaces them from the highest number down to `partition`,
one at a time. A DaemonSet has one Pod here, since there is one machine. The label `controller-revision-hash` tells
which template a Pod was made from.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, soonest, with_status
from lateen.platform.controllers.ownership import claim

REVISION_LABEL = "controller-revision-hash"


def replica_set(found: Json, pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one ReplicaSet, given all Pods of its namespace."""
    if d.terminating(found):
        return Outcome()
    spec, wanted = d.spec(found), d.spec(found).get("replicas", 1)
    owned, actions = claim(found, pods)
    live = sorted((pod for pod in owned if d.active(pod)), key=_first_to_go)
    available, again_s = _available(live, spec, now)
    actions += _ended(owned)
    actions += [Create(_pod(found, {}), found)] * max(0, wanted - len(live))
    actions += [Delete("Pod", d.key(pod), d.uid(pod), found) for pod in live[: max(0, len(live) - wanted)]]
    status: Json = {
        "observedGeneration": found["metadata"].get("generation", 0),
        "replicas": len(live),
        "fullyLabeledReplicas": len(live),
        "readyReplicas": sum(map(d.ready, live)),
        "availableReplicas": available,
    }
    return Outcome((*actions, *with_status(found, status)), again_s)


def stateful_set(found: Json, pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one StatefulSet, given all Pods of its namespace."""
    if d.terminating(found):
        return Outcome()
    spec, current = d.spec(found), d.digest(d.spec(found)["template"])
    owned = {d.name(pod): pod for pod in pods if d.owned_by(pod, found)}
    first = d.part(spec, "ordinals").get("start") or 0
    wanted = [f"{d.name(found)}-{first + index}" for index in range(spec.get("replicas", 1))]
    live = [pod for pod in owned.values() if d.active(pod)]
    available, again_s = _available(live, spec, now)
    actions = _ended(list(owned.values())) or _next(spec, wanted, owned, current, found)
    updated = [pod for pod in live if d.labels(pod).get(REVISION_LABEL) == current]
    done = len(updated) == len(live) == len(wanted)
    before = d.status(found)
    status: Json = {
        "observedGeneration": found["metadata"].get("generation", 0),
        "replicas": len(live),
        "readyReplicas": sum(map(d.ready, live)),
        "availableReplicas": available,
        "updatedReplicas": len(updated),
        "currentReplicas": len(updated) if done else len(live) - len(updated),
        "updateRevision": current,
        "currentRevision": current if done else before.get("currentRevision") or current,
        "collisionCount": 0,
    }
    return Outcome((*actions, *with_status(found, status)), again_s)


def _next(spec: Json, wanted: list[str], owned: Mapping[str, Json], current: str, found: Json) -> list[Action]:
    """The next step of a StatefulSet whose Pods all run or are on their way out."""
    ordered = spec.get("podManagementPolicy") != "Parallel"
    actions: list[Action] = []
    for name in wanted:
        pod = owned.get(name)
        if pod is None:
            actions.append(Create(_pod(found, {REVISION_LABEL: current, POD_NAME: name}, name), found))
        if ordered and (pod is None or not d.ready(pod) or d.terminating(pod)):
            return actions
    surplus = sorted((name for name in owned if name not in wanted), key=_ordinal, reverse=True)
    for name in surplus:
        if not d.terminating(owned[name]):
            actions.append(_delete(owned[name]))
        if ordered:
            return actions
    if actions or d.part(spec, "updateStrategy").get("type") == "OnDelete":
        return actions
    if any(d.terminating(pod) or not d.ready(pod) for pod in owned.values()):
        return actions
    partition = d.part(d.part(spec, "updateStrategy"), "rollingUpdate").get("partition") or 0
    for name in reversed(wanted):
        if _ordinal(name) >= partition and d.labels(owned[name]).get(REVISION_LABEL) != current:
            return [_delete(owned[name])]
    return actions


POD_NAME = "statefulset.kubernetes.io/pod-name"


def daemon_set(found: Json, pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one DaemonSet, given all Pods of its namespace."""
    if d.terminating(found):
        return Outcome()
    spec, current = d.spec(found), d.digest(d.spec(found)["template"])
    owned = [pod for pod in pods if d.owned_by(pod, found)]
    live = sorted((pod for pod in owned if d.active(pod)), key=_first_to_go)
    old = [pod for pod in live if d.labels(pod).get(REVISION_LABEL) != current]
    available, again_s = _available(live, spec, now)
    actions = _ended(owned)
    if not any(not d.finished(pod) for pod in owned):
        actions.append(Create(_pod(found, {REVISION_LABEL: current}), found))
    elif len(live) > 1:
        actions += [_delete(pod) for pod in live[:-1]]
    elif old and d.part(spec, "updateStrategy").get("type") != "OnDelete":
        actions += [_delete(pod) for pod in old]
    status: Json = {
        "observedGeneration": found["metadata"].get("generation", 0),
        "desiredNumberScheduled": 1,
        "currentNumberScheduled": min(1, len(live)),
        "numberMisscheduled": 0,
        "numberReady": min(1, sum(map(d.ready, live))),
        "numberAvailable": min(1, available),
        "numberUnavailable": 1 - min(1, available),
        "updatedNumberScheduled": min(1, len(live) - len(old)),
    }
    return Outcome((*actions, *with_status(found, status)), again_s)


def _available(live: Sequence[Json], spec: Json, now: float) -> tuple[int, float | None]:
    """How many are available, and when the next one will be."""
    waits = [d.available_in_s(pod, spec.get("minReadySeconds") or 0, now) for pod in live]
    return sum(wait == 0 for wait in waits), soonest(*(wait for wait in waits if wait))


def _ended(owned: Sequence[Json]) -> list[Action]:
    """Finished Pods are no replicas any more: they make room."""
    return [_delete(pod) for pod in owned if d.finished(pod) and not d.terminating(pod)]


def _delete(pod: Json) -> Action:
    return Delete("Pod", d.key(pod), d.uid(pod))


def _first_to_go(pod: Json) -> tuple[bool, list[int], str]:
    """Pods that are not ready before ready ones, then the youngest."""
    created = pod["metadata"].get("creationTimestamp", "")
    return d.ready(pod), [-ord(each) for each in created], d.name(pod)


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])


def _pod(found: Json, labels: Mapping[str, str], name: str = "") -> Json:
    template = d.spec(found)["template"]
    metadata, spec = d.part(template, "metadata"), d.part(template, "spec")
    made: Json = {
        "namespace": d.namespace(found),
        "labels": {**d.part(metadata, "labels"), **labels},
        "ownerReferences": [d.owner_reference(found)],
    }
    if name:
        made["name"] = name
        spec = {"hostname": name, **spec}
    else:
        made["generateName"] = f"{d.name(found)}-"
    if metadata.get("annotations"):
        made["annotations"] = metadata["annotations"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": spec}
