"""Deployments: a ReplicaSet for each template there was, and replicas moved from the old ones to the current one.

With RollingUpdate never more than replicas + maxSurge Pods are wanted and never fewer than replicas - maxUnavailable
are available; Pods that are not available anyway go first. With Recreate all old ones are gone before a new one is
made. A paused Deployment is scaled, not rolled. Former ReplicaSets are kept, without Pods, for `kubectl rollout undo`:
`revisionHistoryLimit` of them, numbered by the annotation `deployment.kubernetes.io/revision`.

What counts are the Pods themselves, not what ReplicaSets last said of them.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, Patch, Say, soonest, with_status
from lateen.platform.controllers.deployment_status import amount, status_of
from lateen.platform.controllers.ownership import claim

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
_DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
_MOST: Final = "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS: Final = (REVISION, _DESIRED, _MOST, "kubectl.kubernetes.io/last-applied-configuration")
_HISTORY: Final = 10
_COMPONENT: Final = "deployment-controller"


def template_hash(deployment: Json, collisions: int = 0) -> str:
    """The name of the Deployment's current Pod template."""
    template = d.spec(deployment)["template"]
    return d.digest([template, collisions] if collisions else template)


class _Set(msgspec.Struct, frozen=True):
    """One ReplicaSet with its Pods that count."""

    document: Json
    live: Sequence[Json]
    available: int

    @property
    def wanted(self) -> int:
        return d.spec(self.document).get("replicas", 1)

    @property
    def revision(self) -> int:
        said = d.annotations_of(self.document).get(REVISION, "")
        return int(said) if said.isdecimal() else 0

    @property
    def age(self) -> tuple[str, str]:
        return self.document["metadata"].get("creationTimestamp", ""), d.name(self.document)


class _Bounds(msgspec.Struct, frozen=True):
    wanted: int
    most: int
    least: int


def reconcile(deployment: Json, replica_sets: Sequence[Json], pods: Sequence[Json], now: float) -> Outcome:
    """What to do for one Deployment, given all ReplicaSets and Pods of its namespace."""
    if d.terminating(deployment):
        return Outcome()
    spec = d.spec(deployment)
    owned, actions = claim(deployment, replica_sets)
    strangers = {d.name(each) for each in replica_sets} - {d.name(each) for each in owned}
    min_ready_s = spec.get("minReadySeconds") or 0
    of_sets = [[pod for pod in pods if d.owned_by(pod, each)] for each in owned]
    waits = {d.uid(pod): d.available_in_s(pod, min_ready_s, now) for group in of_sets for pod in group if d.active(pod)}
    available = {uid for uid, wait in waits.items() if wait == 0}
    sets = [
        _Set(each, [pod for pod in group if d.active(pod)], sum(d.uid(pod) in available for pod in group))
        for each, group in zip(owned, of_sets, strict=True)
    ]
    leaving = any(d.terminating(pod) and not d.finished(pod) for group in of_sets for pod in group)
    sets.sort(key=lambda each: each.age)
    new = next((each for each in sets if _same_template(each.document, deployment)), None)
    old = [each for each in sets if each is not new]
    collisions = d.status(deployment).get("collisionCount") or 0
    while new is None and f"{d.name(deployment)}-{template_hash(deployment, collisions)}" in strangers:
        collisions += 1
    actions += _steps(deployment, new, old, leaving=leaving, collisions=collisions)
    new_pods = list(new.live) if new is not None else []
    old_pods = [pod for each in old for pod in each.live]
    name = d.name(new.document) if new is not None else ""
    status, again_s = status_of(deployment, name, new_pods, old_pods, available, now)
    status |= {"collisionCount": collisions} if collisions else {}
    if any(each["reason"] == "NewReplicaSetAvailable" for each in status["conditions"]):
        actions += _forget(old, spec.get("revisionHistoryLimit"))
    waiting = soonest(*(wait for wait in waits.values() if wait))
    return Outcome((*actions, *with_status(deployment, status)), soonest(again_s, waiting))


def _steps(deployment: Json, new: _Set | None, old: Sequence[_Set], *, leaving: bool, collisions: int) -> list[Action]:
    """What to change of the ReplicaSets now."""
    spec = d.spec(deployment)
    recreate = d.part(spec, "strategy").get("type") == "Recreate"
    bounds = _bounds(spec, recreate=recreate)
    sets = [*old, *([new] if new is not None else [])]
    if spec.get("paused"):
        return _scaled(deployment, bounds, sets, new)
    actions = _numbered(deployment, new, old)
    if any(_desired(each) not in (None, bounds.wanted) for each in sets if each.wanted):
        return [*actions, *_scaled(deployment, bounds, sets, new)]
    emptied = [_resize(deployment, each, 0, bounds) for each in old if each.wanted]
    if recreate and (emptied or any(each.live for each in old) or (leaving and (new is None or not new.live))):
        return [*actions, *_flat(emptied)]
    if new is None:
        total = sum(each.wanted for each in old)
        size = bounds.wanted if recreate else max(0, min(bounds.wanted, bounds.most - total))
        made = _replica_set(deployment, template_hash(deployment, collisions), _next(old), size, bounds)
        return [*actions, Create(made), *_told(deployment, d.name(made), 0, size)]
    return [*actions, *_flat([_resize(deployment, each, size, bounds) for each, size in _moves(bounds, new, old)])]


def _moves(bounds: _Bounds, new: _Set, old: Sequence[_Set]) -> list[tuple[_Set, int]]:
    """New sizes: the current ReplicaSet grows as far as the surge allows, old ones shrink as far as others serve."""
    total = new.wanted + sum(each.wanted for each in old)
    if new.wanted > bounds.wanted:
        return [(new, bounds.wanted)]
    if new.wanted < bounds.wanted and (room := bounds.most - total) > 0:
        return [(new, min(bounds.wanted, new.wanted + room))]
    serving = new.available + sum(each.available for each in old)
    spare = total - bounds.least - max(0, new.wanted - new.available)
    sizes = {id(each): each.wanted for each in old}
    for each in old:  # those that serve nobody first
        broken = min(spare, max(0, each.wanted - each.available))
        if broken > 0:
            sizes[id(each)] -= broken
            spare -= broken
    surplus = serving - bounds.least
    for each in old:
        gone = min(surplus, sizes[id(each)])
        if gone > 0:
            sizes[id(each)] -= gone
            surplus -= gone
    return [(each, sizes[id(each)]) for each in old if sizes[id(each)] != each.wanted]


def _scaled(deployment: Json, bounds: _Bounds, sets: Sequence[_Set], new: _Set | None) -> list[Action]:
    """A changed number of replicas, shared out by the sizes that ReplicaSets have: a rollout goes on from there."""
    active = [each for each in sets if each.wanted]
    if len(active) <= 1:
        one = active[0] if active else new if new is not None else max(sets, key=lambda each: each.age, default=None)
        return [] if one is None else _flat([_resize(deployment, one, bounds.wanted, bounds)])
    total = sum(each.wanted for each in active)
    allowed = bounds.most if bounds.wanted else 0
    left = allowed - total
    by_size = sorted(active, key=lambda each: (each.wanted, each.age), reverse=True)
    sizes: list[int] = []
    for each in by_size:
        share = round(each.wanted * allowed / total) - each.wanted
        share = min(share, left) if left > 0 else max(share, left)
        sizes.append(each.wanted + share)
        left -= share
    sizes[0] = max(0, sizes[0] + left)
    return _flat([_resize(deployment, each, size, bounds) for each, size in zip(by_size, sizes, strict=True)])


def _resize(deployment: Json, one: _Set, size: int, bounds: _Bounds) -> list[Action]:
    """The ReplicaSet with that size, and with what the Deployment wants written beside it."""
    said = {_DESIRED: str(bounds.wanted), _MOST: str(bounds.most)}
    there = d.annotations_of(one.document)
    changed = {name: value for name, value in said.items() if there.get(name) != value}
    if size == one.wanted and not changed:
        return []
    patch: Json = {"metadata": {"annotations": changed}} if changed else {}
    patch |= {"spec": {"replicas": size}} if size != one.wanted else {}
    name = d.name(one.document)
    return [Patch("ReplicaSet", d.key(one.document), patch), *_told(deployment, name, one.wanted, size)]


def _told(deployment: Json, name: str, before: int, after: int) -> list[Action]:
    if before == after:
        return []
    message = f"Scaled {'up' if after > before else 'down'} replica set {name} from {before} to {after}"
    return [Say(deployment, "ScalingReplicaSet", message, _COMPONENT)]


def _numbered(deployment: Json, new: _Set | None, old: Sequence[_Set]) -> list[Action]:
    """The current ReplicaSet has the highest number, and the Deployment the same."""
    actions: list[Action] = []
    number = max(_next(old), new.revision if new is not None else 0)
    if new is not None:
        wanted: Json = {}
        if new.revision < number:
            wanted["metadata"] = {"annotations": {REVISION: str(number)}}
        min_ready_s = d.spec(deployment).get("minReadySeconds")
        if (d.spec(new.document).get("minReadySeconds") or 0) != (min_ready_s or 0):
            wanted["spec"] = {"minReadySeconds": min_ready_s}
        if wanted:
            actions.append(Patch("ReplicaSet", d.key(new.document), wanted))
    if d.annotations_of(deployment).get(REVISION) != str(number):
        actions.append(Patch("Deployment", d.key(deployment), {"metadata": {"annotations": {REVISION: str(number)}}}))
    return actions


def _next(old: Sequence[_Set]) -> int:
    return max((each.revision for each in old), default=0) + 1


def _forget(old: Sequence[_Set], limit: int | None) -> list[Action]:
    """Former ReplicaSets beyond the history that is kept."""
    empty = [each for each in old if not each.wanted and not each.live and not d.terminating(each.document)]
    empty.sort(key=lambda each: (each.revision, each.age))
    surplus = len(empty) - (_HISTORY if limit is None else limit)
    return [Delete("ReplicaSet", d.key(each.document), d.uid(each.document)) for each in empty[: max(0, surplus)]]


def _bounds(spec: Json, *, recreate: bool) -> _Bounds:
    wanted = spec.get("replicas", 1)
    if recreate:
        return _Bounds(wanted, wanted, wanted)
    rolling = d.part(d.part(spec, "strategy"), "rollingUpdate")
    surge = amount(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = amount(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return _Bounds(wanted, wanted + surge, wanted - unavailable)


def _desired(each: _Set) -> int | None:
    said = d.annotations_of(each.document).get(_DESIRED, "")
    return int(said) if said.isdecimal() else None


def _same_template(replica_set: Json, deployment: Json) -> bool:
    """Whether a ReplicaSet was made from the Deployment's template: that with the label of its hash."""
    template = d.spec(replica_set)["template"]
    metadata = d.part(template, "metadata")
    labels = {name: value for name, value in d.part(metadata, "labels").items() if name != HASH_LABEL}
    return {**template, "metadata": {**metadata, "labels": labels}} == d.spec(deployment)["template"]


def _replica_set(deployment: Json, current: str, revision: int, size: int, bounds: _Bounds) -> Json:
    spec = d.spec(deployment)
    template, selector = spec["template"], spec["selector"]
    metadata = d.part(template, "metadata")
    labels = {**d.part(metadata, "labels"), HASH_LABEL: current}
    kept = {name: value for name, value in d.annotations_of(deployment).items() if name not in _OWN_ANNOTATIONS}
    made: Json = {
        "replicas": size,
        "selector": {**selector, "matchLabels": {**d.part(selector, "matchLabels"), HASH_LABEL: current}},
        "template": {**template, "metadata": {**metadata, "labels": labels}},
    }
    if spec.get("minReadySeconds"):
        made["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{d.name(deployment)}-{current}",
            "namespace": d.namespace(deployment),
            "labels": labels,
            "annotations": {
                **kept,
                REVISION: str(revision),
                _DESIRED: str(bounds.wanted),
                _MOST: str(bounds.most),
            },
            "ownerReferences": [d.owner_reference(deployment)],
        },
        "spec": made,
    }


def _flat(groups: Iterable[list[Action]]) -> list[Action]:
    return [each for group in groups for each in group]
