"""HorizontalPodAutoscalers: what is asked for by measurements, and what becomes of it by their rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.struct import Json
from lateen.lib.usage import Amount, Measured
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Patch, Say, Status
from lateen.platform.controllers.autoscaler import reconcile
from lateen.platform.controllers.scaling_rules import Memory, decide
from tests.unit.controllers.documents import NOW, deployment, pod


def autoscaler(least: int = 1, most: int = 10, metrics: list[Json] | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-hpa", "generation": 3},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": metrics if metrics is not None else [cpu(50)],
            **spec,
        },
    }


def cpu(percent: int) -> Json:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def amount(resource: str, value: str, container: str = "") -> Json:
    source: Json = {"name": resource, "target": {"type": "AverageValue", "averageValue": value}}
    if container:
        return {"type": "ContainerResource", "containerResource": {**source, "container": container}}
    return {"type": "Resource", "resource": source}


def working(index: int, request: str | None = "100m", *, ready: bool = True, started_s: float = 3600) -> Json:
    resources: Json = {"requests": {"cpu": request}} if request else {}
    one = pod(f"web-{index}", ready=ready, containers=[{"name": "web", "resources": resources}])
    one["status"]["startTime"] = d.timestamp(NOW - started_s)
    return one


def using(*cpus: float | None, memory_bytes: int = 0) -> Measured:
    """What Pods 0, 1, ... use; None is not measured."""
    pods = {
        f"u-web-{index}": {"web": Amount(each, memory_bytes)} for index, each in enumerate(cpus) if each is not None
    }
    return Measured(NOW, 5, pods)


def run(
    found: Json, replicas: int, pods: list[Json], measured: Measured, memory: Memory | None = None
) -> tuple[int, Json, list[Say]]:
    """The replicas afterwards, the status, and the events."""
    target = deployment(replicas) | {"status": {"replicas": len(pods)}}
    outcome, _ = reconcile(found, target, pods, measured, memory or Memory(), NOW)
    scaled = [each.patch["spec"]["replicas"] for each in outcome.actions if isinstance(each, Patch)]
    status = next((each.status for each in outcome.actions if isinstance(each, Status)), found.get("status"))
    assert status is not None
    return (scaled or [replicas])[0], status, [each for each in outcome.actions if isinstance(each, Say)]


def condition(status: Json, kind: str) -> tuple[str, str]:
    (found,) = (each for each in status["conditions"] if each["type"] == kind)
    return found["status"], found["reason"]


def test_busy_pods_get_more_beside_them() -> None:
    replicas, status, said = run(autoscaler(), 2, [working(0), working(1)], using(0.1, 0.1))
    assert replicas == 4  # at 100 % of the request, where 50 % is aimed at
    assert (status["currentReplicas"], status["desiredReplicas"], status["observedGeneration"]) == (2, 4, 3)
    assert status["lastScaleTime"] == d.timestamp(NOW)
    current = status["currentMetrics"][0]["resource"]["current"]
    assert current == {"averageUtilization": 100, "averageValue": "100m"}
    assert condition(status, "AbleToScale") == ("True", "SucceededRescale")
    assert condition(status, "ScalingActive") == ("True", "ValidMetricFound")
    assert condition(status, "ScalingLimited") == ("False", "DesiredWithinRange")
    (event,) = said
    assert (event.reason, event.message) == (
        "SuccessfulRescale",
        "New size: 4; reason: cpu utilization (percentage of request) above target",
    )


@pytest.mark.parametrize("used", [0.046, 0.05, 0.054])
def test_nearly_right_is_right(used: float) -> None:
    replicas, status, said = run(autoscaler(), 2, [working(0), working(1)], using(used, used))
    assert (replicas, said) == (2, [])
    assert condition(status, "AbleToScale") == ("True", "ReadyForNewScale")


def test_the_tolerance_can_be_narrowed() -> None:
    narrow = autoscaler(behavior={"scaleUp": {"tolerance": "0.01"}})
    assert run(narrow, 2, [working(0), working(1)], using(0.054, 0.054))[0] == 3


def test_bounds_win_and_say_so() -> None:
    replicas, status, _ = run(autoscaler(most=3), 2, [working(0), working(1)], using(0.9, 0.9))
    assert replicas == 3
    assert condition(status, "ScalingLimited") == ("True", "TooManyReplicas")
    replicas, status, said = run(autoscaler(least=2), 1, [working(0)], using(0.001))
    assert replicas == 2
    assert "below the bounds" in said[0].message


def test_going_down_waits_for_five_quiet_minutes() -> None:
    pods = [working(index) for index in range(4)]
    busy_before = Memory(asked=((NOW - 200, 4),))
    replicas, status, _ = run(autoscaler(), 4, pods, using(0.01, 0.01, 0.01, 0.01), busy_before)
    assert replicas == 4
    assert condition(status, "AbleToScale") == ("True", "ScaleDownStabilized")
    quiet = Memory(asked=((NOW - 301, 4), (NOW - 200, 1)))
    assert run(autoscaler(), 4, pods, using(0.01, 0.01, 0.01, 0.01), quiet)[0] == 1


def test_the_window_is_configurable() -> None:
    at_once = autoscaler(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    asked = Memory(asked=((NOW - 5, 4),))
    assert run(at_once, 4, [working(index) for index in range(4)], using(0.01, 0.01, 0.01, 0.01), asked)[0] == 1


def test_policies_hold_the_pace() -> None:
    spec = autoscaler(most=100, behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}})
    decision, memory = decide(spec["spec"], 5, 50, Memory(), NOW)
    assert (decision.replicas, decision.limited["reason"]) == (7, "ScaleUpLimit")
    decision, memory = decide(spec["spec"], 7, 50, memory.scaled(2, NOW), NOW + 30)
    assert decision.replicas == 7
    assert decide(spec["spec"], 7, 50, memory, NOW + 61)[0].replicas == 9
    still = autoscaler(behavior={"scaleDown": {"selectPolicy": "Disabled"}})
    decision, _ = decide(still["spec"], 8, 1, Memory(), NOW)
    assert (decision.replicas, decision.limited["reason"]) == (8, "ScaleDownLimit")
    default, _ = decide(autoscaler(most=100)["spec"], 10, 100, Memory(), NOW)
    assert default.replicas == 20  # twice as many within 15 s
    few, _ = decide(autoscaler(most=100)["spec"], 1, 100, Memory(), NOW)
    assert few.replicas == 5  # or four more


def test_a_pod_that_is_starting_says_nothing_of_the_load() -> None:
    pods = [working(0), working(1, ready=False, started_s=20)]
    assert run(autoscaler(), 2, pods, using(0.1, 5.0))[0] == 2  # its start takes processor time too


def test_what_is_not_measured_changes_nothing() -> None:
    pods = [working(0), working(1), working(2)]
    assert run(autoscaler(), 3, pods, using(0.1, None, None))[0] == 3  # one busy Pod of three: two count as idle
    assert run(autoscaler(), 3, pods, using(0.01, 0.01, None))[0] == 3  # the third may be busy
    replicas, status, said = run(autoscaler(), 3, pods, using(None, None, None))
    assert (replicas, condition(status, "ScalingActive")) == (3, ("False", "FailedGetResourceMetric"))
    assert [(each.reason, each.warning) for each in said] == [("FailedGetResourceMetric", True)]
    known = autoscaler() | {"status": status}
    assert run(known, 3, pods, using(None, None, None))[2] == []  # it is said once


def test_a_container_without_a_request_is_named() -> None:
    _, status, _ = run(autoscaler(), 1, [working(0, request=None)], using(1.0))
    (active,) = (each for each in status["conditions"] if each["type"] == "ScalingActive")
    assert "missing request for cpu in container web of Pod web-0" in active["message"]


def test_amounts_memory_and_single_containers() -> None:
    assert run(autoscaler(metrics=[amount("cpu", "50m")]), 1, [working(0)], using(0.2))[0] == 4
    mebi = autoscaler(metrics=[amount("memory", "64Mi")])
    assert run(mebi, 1, [working(0)], using(0.0, memory_bytes=192 << 20))[0] == 3
    alone = autoscaler(metrics=[amount("cpu", "50m", "web")])
    assert run(alone, 1, [working(0)], using(0.2))[0] == 4
    _, status, _ = run(autoscaler(metrics=[amount("cpu", "50m", "other")]), 1, [working(0)], using(0.2))
    assert condition(status, "ScalingActive") == ("False", "FailedGetContainerResourceMetric")


def test_the_greediest_metric_counts_and_an_unknown_one_takes_nothing_away() -> None:
    both = autoscaler(metrics=[cpu(50), amount("memory", "64Mi")])
    assert run(both, 1, [working(0)], using(0.1, memory_bytes=192 << 20))[0] == 3
    external: Json = {"type": "External", "external": {"metric": {"name": "queue"}}}
    odd = autoscaler(metrics=[cpu(50), external])
    assert run(odd, 2, [working(0), working(1)], using(0.2, 0.2))[0] > 2
    quiet = Memory()
    assert run(odd, 2, [working(0), working(1)], using(0.001, 0.001), quiet)[0] == 2


def test_no_target_and_no_replicas() -> None:
    outcome, _ = reconcile(autoscaler(), None, [], Measured(), Memory(), NOW)
    status = next(each.status for each in outcome.actions if isinstance(each, Status))
    assert condition(status, "AbleToScale") == ("False", "FailedGetScale")
    _, status, _ = run(autoscaler(), 0, [], Measured())
    assert condition(status, "ScalingActive") == ("False", "ScalingDisabled")


@settings(max_examples=200, deadline=None)
@given(
    replicas=st.integers(1, 12),
    least=st.integers(1, 5),
    span=st.integers(0, 8),
    used=st.lists(st.one_of(st.none(), st.floats(0, 3)), min_size=1, max_size=12),
)
def test_it_stays_within_its_bounds_and_follows_the_load(
    replicas: int, least: int, span: int, used: list[float | None]
) -> None:
    pods = [working(index) for index in range(len(used))]
    after, _, _ = run(autoscaler(least, least + span), replicas, pods, using(*used))
    assert least <= after <= least + span or after == replicas  # nothing known: nothing done
    known = [each for each in used if each is not None]
    if known and len(known) == len(used) == replicas and least <= replicas <= least + span:
        if sum(known) / len(known) > 0.06:
            assert after >= replicas
        if sum(known) / len(known) < 0.04:
            assert after <= replicas
