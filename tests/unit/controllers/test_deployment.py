"""Deployments: the rollout law under random events, and each of its rules by example."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Create, Delete, Patch, Status
from lateen.platform.controllers.deployment import HASH_LABEL, reconcile, template_hash
from tests.unit.controllers.documents import NOW, Mesh, deployment, names, pod, rolling, set_ready


def rollout(mesh: Mesh) -> None:
    mesh.perform(reconcile(mesh.all("Deployment")[0], mesh.pods, NOW))


def roll_to_rest(mesh: Mesh) -> None:
    def become_ready() -> None:
        mesh.gone()
        for each in mesh.pods:
            set_ready(each, True)

    mesh.settle(lambda: reconcile(mesh.all("Deployment")[0], mesh.pods, NOW), become_ready)
    mesh.gone()


def test_pods_are_made_of_the_whole_template() -> None:
    mesh = Mesh(web := deployment(2))
    roll_to_rest(mesh)
    assert len(mesh.pods) == 2
    made = mesh.pods[0]
    assert d.name(made).startswith(f"web-{template_hash(web)}-")
    assert made["spec"] == web["spec"]["template"]["spec"]
    assert made["metadata"]["labels"] == {"app": "web", HASH_LABEL: template_hash(web)}
    (reference,) = made["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"], reference["controller"]) == (
        "Deployment", "web", "u-web", True,
    )  # fmt: skip
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
    mesh.put(deployment(3, version="broken") | {"status": mesh.all("Deployment")[0]["status"]})
    for _ in range(5):
        rollout(mesh)
    live = [each for each in mesh.pods if d.active(each)]
    assert [name for name in names(live) if name in serving] == serving
    assert len(live) == 4  # one more than wanted: maxSurge 25% of 3, rounded up


def test_recreate_waits_for_the_last_old_pod() -> None:
    recreate = {"type": "Recreate"}
    mesh = Mesh(deployment(2, strategy=recreate))
    roll_to_rest(mesh)
    mesh.put(deployment(2, version="2", strategy=recreate))
    rollout(mesh)
    assert [d.terminating(each) for each in mesh.pods] == [True, True]
    rollout(mesh)
    assert len(mesh.pods) == 2
    mesh.gone()
    rollout(mesh)
    assert {d.labels(each)[HASH_LABEL] for each in mesh.pods} == {template_hash(deployment(2, version="2"))}
    assert len(mesh.pods) == 2


def test_scaling_down_gives_up_unready_pods_first_then_the_youngest() -> None:
    mesh = Mesh(deployment(4))
    roll_to_rest(mesh)
    in_order = names(mesh.pods)
    set_ready(mesh.pods[1], False)
    mesh.put(deployment(2))
    rollout(mesh)
    assert [d.name(each) for each in mesh.pods if d.terminating(each)] == [in_order[1], in_order[3]]


def test_finished_pods_are_replaced() -> None:
    mesh = Mesh(deployment(1))
    roll_to_rest(mesh)
    mesh.pods[0]["status"]["phase"] = "Failed"
    rollout(mesh)
    assert [d.terminating(each) for each in mesh.pods] == [True, False]


def test_pods_are_adopted_and_let_go_by_the_selector() -> None:
    web = deployment(2)
    current = template_hash(web)
    orphan = pod("orphan", {"app": "web", HASH_LABEL: current})
    stranger = pod("stranger", {"app": "web"})
    relabelled = pod("relabelled", {"app": "debug", HASH_LABEL: current})
    relabelled["metadata"]["ownerReferences"] = [d.owner_reference(web)]
    outcome = reconcile(web, [orphan, stranger, relabelled], NOW)
    patched = {action.key[1]: action.patch for action in outcome.actions if isinstance(action, Patch)}
    assert patched == {
        "orphan": {"metadata": {"ownerReferences": [d.owner_reference(web)]}},
        "relabelled": {"metadata": {"ownerReferences": None}},
    }
    assert sum(isinstance(action, Create) for action in outcome.actions) == 1
    assert not any(isinstance(action, Delete) for action in outcome.actions)


def test_a_pod_counts_after_min_ready_seconds() -> None:
    mesh = Mesh(deployment(1, minReadySeconds=30))
    rollout(mesh)
    set_ready(mesh.pods[0], True, since=NOW - 10)
    outcome = reconcile(mesh.all("Deployment")[0], mesh.pods, NOW)
    assert outcome.again_s == 20
    (status,) = (action.status for action in outcome.actions if isinstance(action, Status))
    assert (status["readyReplicas"], status["availableReplicas"]) == (1, 0)


def test_a_paused_deployment_is_scaled_but_not_rolled() -> None:
    mesh = Mesh(deployment(3))
    roll_to_rest(mesh)
    mesh.put(deployment(2, version="2", paused=True))
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
    assert reconcile(mesh.all("Deployment")[0], mesh.pods, NOW).again_s == pytest.approx(60)
    (action,) = reconcile(mesh.all("Deployment")[0], mesh.pods, NOW + 61).actions
    assert isinstance(action, Status)
    (progressing,) = (each for each in action.status["conditions"] if each["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert "CrashLoopBackOff: boom" in progressing["message"]


def test_nothing_to_do_is_no_action() -> None:
    mesh = Mesh(deployment(2))
    roll_to_rest(mesh)
    assert reconcile(mesh.all("Deployment")[0], mesh.pods, NOW + 100).actions == ()
