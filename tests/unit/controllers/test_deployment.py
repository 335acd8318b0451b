"""Deployments with their ReplicaSets: the rollout law under random events, and each of its rules by example."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers import sets
from lateen.platform.controllers.actions import Create, Outcome, Patch, Say, Status
from lateen.platform.controllers.deployment import HASH_LABEL, REVISION, reconcile, template_hash
from tests.unit.controllers.documents import NOW, Mesh, deployment, names, pod, rolling, set_ready


def one_step(mesh: Mesh, now: float = NOW) -> Outcome:
    return reconcile(mesh.all("Deployment")[0], mesh.all("ReplicaSet"), mesh.pods, now)


def rollout(mesh: Mesh) -> int:
    """One step of the Deployment, then of each ReplicaSet; how much there was to do."""
    done = mesh.perform(one_step(mesh))
    return done + sum(mesh.perform(sets.replica_set(each, mesh.pods, NOW)) for each in mesh.all("ReplicaSet"))


def roll_to_rest(mesh: Mesh) -> None:
    for _ in range(50):
        mesh.gone()
        for each in mesh.pods:
            set_ready(each, True)
        if not rollout(mesh):
            mesh.gone()
            return
    raise AssertionError("the rollout does not come to rest")


def changed(mesh: Mesh, version: str = "", **spec: Any) -> Json:
    """The Deployment of a mesh with another spec."""
    there = copy.deepcopy(mesh.all("Deployment")[0])
    if version:
        there["spec"]["template"]["spec"]["containers"][0]["command"] = ["web", version]
    there["spec"] |= spec
    return there


def sizes(mesh: Mesh) -> dict[str, int]:
    """Replicas by revision."""
    return {d.annotations_of(each)[REVISION]: each["spec"]["replicas"] for each in mesh.all("ReplicaSet")}


def test_pods_are_made_of_the_whole_template() -> None:
    mesh = Mesh(web := deployment(2))
    roll_to_rest(mesh)
    assert len(mesh.pods) == 2
    made = mesh.pods[0]
    assert d.name(made).startswith(f"web-{template_hash(web)}-")
    assert made["spec"] == web["spec"]["template"]["spec"]
    assert made["metadata"]["labels"] == {"app": "web", HASH_LABEL: template_hash(web)}
    (reference,) = made["metadata"]["ownerReferences"]
    (made_by,) = mesh.all("ReplicaSet")
    assert (reference["kind"], reference["uid"], reference["controller"]) == ("ReplicaSet", d.uid(made_by), True)
    assert d.owned_by(made_by, web)
    assert made_by["spec"]["selector"] == {"matchLabels": {"app": "web", HASH_LABEL: template_hash(web)}}
    assert (d.annotations_of(made_by)[REVISION], d.annotations_of(mesh.all("Deployment")[0])[REVISION]) == ("1", "1")
    status = mesh.all("Deployment")[0]["status"]
    assert (status["readyReplicas"], status["availableReplicas"], status["unavailableReplicas"]) == (2, 2, 0)
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Available": "True",
        "Progressing": "True",
    }


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(0, 6),
    surge=st.sampled_from([0, 1, 2, "25%", "100%"]),
    unavailable=st.sampled_from([0, 1, 2, "25%", "100%"]),
    events=st.lists(st.tuples(st.sampled_from(["ready", "unready", "gone", "change", "nothing"]), st.integers(0, 9))),
)
def test_a_rollout_never_exceeds_its_bounds_and_always_ends(
    replicas: int, surge: int | str, unavailable: int | str, events: list[tuple[str, int]]
) -> None:
    mesh = Mesh(deployment(replicas, strategy=rolling(surge, unavailable)))
    roll_to_rest(mesh)
    web = mesh.all("Deployment")[0]
    most = replicas + (surge if isinstance(surge, int) else -(-replicas * int(surge[:-1]) // 100))
    least = replicas - (unavailable if isinstance(unavailable, int) else replicas * int(unavailable[:-1]) // 100)
    if surge == 0 and least == replicas:
        least = replicas - 1
    changes = 0
    for event, index in events:
        pods = [each for each in mesh.pods if not d.terminating(each)]
        chosen = pods[index % len(pods)] if pods else None
        if event == "change":
            changes += 1
            web = copy.deepcopy(mesh.all("Deployment")[0])
            web["spec"]["template"]["spec"]["containers"][0]["command"] = ["web", f"changed {changes}"]
            mesh.put(web)
        elif event == "gone":
            mesh.gone()
        elif event in ("ready", "unready") and chosen is not None:
            set_ready(chosen, event == "ready")
        available = sum(d.ready(each) for each in mesh.pods if d.active(each))
        rollout(mesh)
        live = [each for each in mesh.pods if d.active(each)]
        assert len(live) <= most
        assert sum(d.ready(each) for each in live) >= min(available, least)
    roll_to_rest(mesh)
    current = template_hash(mesh.all("Deployment")[0])
    assert [d.labels(each)[HASH_LABEL] for each in mesh.pods] == [current] * replicas


def test_a_broken_new_template_keeps_the_old_pods_serving() -> None:
    mesh = Mesh(deployment(3))
    roll_to_rest(mesh)
    serving = names(mesh.pods)
    mesh.put(changed(mesh, version="broken"))
    for _ in range(5):
        rollout(mesh)
    live = [each for each in mesh.pods if d.active(each)]
    assert [name for name in names(live) if name in serving] == serving
    assert len(live) == 4  # one more than wanted: maxSurge 25% of 3, rounded up


def test_recreate_waits_for_the_last_old_pod() -> None:
    recreate = {"type": "Recreate"}
    mesh = Mesh(deployment(2, strategy=recreate))
    roll_to_rest(mesh)
    mesh.put(changed(mesh, version="2"))
    rollout(mesh)
    assert [d.terminating(each) for each in mesh.pods] == [True, True]
    rollout(mesh)
    assert len(mesh.pods) == 2
    mesh.gone()
    rollout(mesh)
    rollout(mesh)
    assert {d.labels(each)[HASH_LABEL] for each in mesh.pods} == {template_hash(deployment(2, version="2"))}
    assert len(mesh.pods) == 2


def test_scaling_down_gives_up_unready_pods_first_then_the_youngest() -> None:
    mesh = Mesh(deployment(4))
    roll_to_rest(mesh)
    in_order = names(mesh.pods)
    set_ready(mesh.pods[1], False)
    mesh.put(changed(mesh, replicas=2))
    rollout(mesh)
    assert [d.name(each) for each in mesh.pods if d.terminating(each)] == [in_order[1], in_order[3]]


def test_finished_pods_are_replaced() -> None:
    mesh = Mesh(deployment(1))
    roll_to_rest(mesh)
    mesh.pods[0]["status"]["phase"] = "Failed"
    rollout(mesh)
    assert [d.terminating(each) for each in mesh.pods] == [True, False]


def test_objects_are_adopted_and_let_go_by_the_selector() -> None:
    mesh = Mesh(web := deployment(2))
    roll_to_rest(mesh)
    (one,) = mesh.all("ReplicaSet")
    current = template_hash(web)
    orphan = pod("orphan", {"app": "web", HASH_LABEL: current})
    stranger = pod("stranger", {"app": "web"})
    relabelled = pod("relabelled", {"app": "debug", HASH_LABEL: current})
    relabelled["metadata"]["ownerReferences"] = [d.owner_reference(one)]
    outcome = sets.replica_set(one, [orphan, stranger, relabelled], NOW)
    patched = {action.key[1]: action.patch for action in outcome.actions if isinstance(action, Patch)}
    assert patched == {
        "orphan": {"metadata": {"ownerReferences": [d.owner_reference(one)]}},
        "relabelled": {"metadata": {"ownerReferences": None}},
    }
    assert sum(isinstance(action, Create) for action in outcome.actions) == 1
    lonely = copy.deepcopy(one)
    del lonely["metadata"]["ownerReferences"]
    actions = reconcile(mesh.all("Deployment")[0], [lonely], mesh.pods, NOW).actions
    assert [each.patch for each in actions if isinstance(each, Patch)] == [
        {"metadata": {"ownerReferences": [d.owner_reference(web)]}}
    ]
    assert not any(isinstance(each, Create) for each in actions)


def test_every_template_has_a_replica_set_and_an_undo_takes_up_the_old_one() -> None:
    mesh = Mesh(deployment(2))
    roll_to_rest(mesh)
    for version in ("2", "3"):
        mesh.put(changed(mesh, version=version))
        roll_to_rest(mesh)
    assert sizes(mesh) == {"1": 0, "2": 0, "3": 2}
    mesh.put(changed(mesh, version="1"))  # what `kubectl rollout undo --to-revision=1` does
    roll_to_rest(mesh)
    assert sizes(mesh) == {"4": 2, "2": 0, "3": 0}
    assert d.annotations_of(mesh.all("Deployment")[0])[REVISION] == "4"
    assert {each["spec"]["containers"][0]["command"][1] for each in mesh.pods} == {"1"}


def test_history_is_as_long_as_asked_for() -> None:
    mesh = Mesh(deployment(1, revisionHistoryLimit=2))
    for version in map(str, range(2, 8)):
        roll_to_rest(mesh)
        mesh.put(changed(mesh, version=version))
    roll_to_rest(mesh)
    assert sizes(mesh) == {"5": 0, "6": 0, "7": 1}


def test_scaling_during_a_rollout_is_shared_out() -> None:
    mesh = Mesh(deployment(10, strategy=rolling(3, 2)))
    roll_to_rest(mesh)
    mesh.put(changed(mesh, version="2"))
    for _ in range(4):  # the new Pods do not become ready
        rollout(mesh)
    assert sizes(mesh) == {"1": 8, "2": 5}
    mesh.put(changed(mesh, replicas=15))
    mesh.perform(one_step(mesh))
    assert sizes(mesh) == {"1": 11, "2": 7}  # Kubernetes' own example


def test_what_is_scaled_is_told() -> None:
    mesh = Mesh(web := deployment(2))
    said = [each.message for each in one_step(mesh).actions if isinstance(each, Say)]
    assert said == [f"Scaled up replica set web-{template_hash(web)} from 0 to 2"]


def test_a_name_that_is_taken_is_avoided() -> None:
    taken = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"web-{template_hash(deployment())}", "namespace": "shop", "uid": "u-other"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "other"}}, "template": {}},
    }
    mesh = Mesh(deployment(1), taken)
    (made,) = (each.document for each in one_step(mesh).actions if isinstance(each, Create))
    assert d.name(made) == f"web-{template_hash(deployment(), 1)}" != d.name(taken)


def test_a_pod_counts_after_min_ready_seconds() -> None:
    mesh = Mesh(deployment(1, minReadySeconds=30))
    rollout(mesh)
    set_ready(mesh.pods[0], True, since=NOW - 10)
    outcome = one_step(mesh)
    assert outcome.again_s == 20
    (status,) = (action.status for action in outcome.actions if isinstance(action, Status))
    assert (status["readyReplicas"], status["availableReplicas"]) == (1, 0)


def test_a_paused_deployment_is_scaled_but_not_rolled() -> None:
    mesh = Mesh(deployment(3))
    roll_to_rest(mesh)
    mesh.put(changed(mesh, version="2", replicas=2, paused=True))
    roll_to_rest(mesh)
    assert [d.labels(each)[HASH_LABEL] for each in mesh.pods] == [template_hash(deployment(3))] * 2


def test_a_rollout_without_progress_says_why() -> None:
    mesh = Mesh(deployment(1, progressDeadlineSeconds=60))
    rollout(mesh)
    mesh.pods[0]["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": "web", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "boom"}}}],
    }
    rollout(mesh)
    assert one_step(mesh).again_s == pytest.approx(60)
    (action,) = one_step(mesh, NOW + 61).actions
    assert isinstance(action, Status)
    (progressing,) = (each for each in action.status["conditions"] if each["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert "CrashLoopBackOff: boom" in progressing["message"]


def test_nothing_to_do_is_no_action() -> None:
    mesh = Mesh(deployment(2))
    roll_to_rest(mesh)
    assert one_step(mesh, NOW + 100).actions == ()
