"""What the routing documents of the Red Hat tutorial are to do, by its scenarios.

A case applies a file, with those its scenario applies before it, and sends traffic; its docstring says what is shown.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from tests.lab.client import ask, at_once
from tests.samples.istio import TUTORIAL, delays
from tests.samples.means import REGISTRY_ONLY, SELF, Case, each_subset, identified, near, said
from tests.samples.stage import Stage

THREE = f"{TUTORIAL}/destination-rule-recommendation-v1-v2-v3.yml"
TWO = f"{TUTORIAL}/destination-rule-recommendation-v1-v2.yml"
FOUR = f"{TUTORIAL}/destination-rule-recommendation-v4-v5-v6-v7.yml"


def version(name: str, rule: str, stage: Stage, server: str) -> None:
    """All requests go to one version."""
    stage.apply(rule, f"{TUTORIAL}/{name}.yml")
    assert {stage.who("recommendation", 8080).removesuffix("-2") for _ in range(6)} == {f"recommendation-{server}"}


def weighted(name: str, stage: Stage, first: float) -> None:
    """Requests are shared out between v1 and v2."""
    stage.apply(TWO, f"{TUTORIAL}/{name}.yml")
    found = stage.shares("recommendation", 400, 8080)
    near(found, {"recommendation-v1": first, "recommendation-v2": 1 - first})


def browser(name: str, stage: Stage, agent: str) -> None:
    """A browser by its user agent, which applications hand on as baggage, gets v2; everybody else v1."""
    stage.apply(TWO, f"{TUTORIAL}/{name}.yml")
    to = partial(stage.who, "recommendation", 8080)
    assert to(baggage_user_agent=f"Mozilla/5.0 {agent}/9").removesuffix("-2") == "recommendation-v2"
    assert {to(baggage_user_agent="curl/8"), to()} == {"recommendation-v1"}


def promotion(stage: Stage) -> None:
    """Users of one group get v3, of a larger group v2, everybody else v1."""
    stage.apply(THREE, f"{TUTORIAL}/virtual-service-promotion-v1-v2-v3.yml")
    to = partial(stage.who, "recommendation", 8080)
    found = [to(user_preference=each).removesuffix("-2") for each in ("1234", "124", "13")]
    assert found == ["recommendation-v3", "recommendation-v2", "recommendation-v1"]


def promoted(stage: Stage) -> None:
    """The larger group gets v3 now, everybody else v2."""
    stage.apply(THREE, f"{TUTORIAL}/virtual-service-promoted-v3.yml")
    to = partial(stage.who, "recommendation", 8080)
    assert to(baggage_user_preference="124") == "recommendation-v3"
    assert to(baggage_user_preference="2").removesuffix("-2") == "recommendation-v2"


def unavailable(stage: Stage) -> None:
    """Every request ends in 503, without having been sent."""
    stage.apply(TWO, f"{TUTORIAL}/virtual-service-recommendation-503.yml")
    assert {stage.who("recommendation", 8080) for _ in range(3)} == {"503"}
    assert stage.lab.servers.log == []


def timeout(stage: Stage) -> None:
    """An answer that takes longer than a second is 504."""
    stage.apply(f"{TUTORIAL}/virtual-service-recommendation-timeout.yml")
    slow = ask(stage.lab, "recommendation", port=8080, headers={"x-do": "wait 3"})
    assert slow.status == 504
    assert 0.9 < slow.seconds < 2.9
    assert stage.who("recommendation", 8080, x_do="wait 0.1").startswith("recommendation")


def mirrored(stage: Stage) -> None:
    """v1 answers; v2 gets a copy of each request."""
    stage.apply(TWO, f"{TUTORIAL}/virtual-service-recommendation-v1-mirror-v2.yml")
    assert {stage.who("recommendation", 8080) for _ in range(5)} == {"recommendation-v1"}
    stage.lab.wait(lambda: len(stage.lab.servers.log) == 10)
    seen = Counter(str(each["server"]).removesuffix("-2") for each in stage.lab.servers.log)
    assert seen == {"recommendation-v1": 5, "recommendation-v2": 5}


def retried(stage: Stage) -> None:
    """A version that is not available (refused connections and streams, UNAVAILABLE) costs no request: three more
    tries, two seconds each."""
    stage.apply(f"{TUTORIAL}/virtual-service-recommendation-v2_retry.yml")
    grpc = {"content-type": "application/grpc"}
    for _ in range(8):
        assert stage.who("recommendation", 8080).startswith("recommendation")
    slow = ask(stage.lab, "recommendation", port=8080, headers={"x-do": "wait 2.6", **grpc})
    assert slow.seconds >= 1.9
    assert len([each for each in stage.lab.servers.log if each["headers"].get("x-do")]) >= 1


def no_retries(stage: Stage) -> None:
    """A refused stream is not tried again, as it would be without the file."""
    file = f"{TUTORIAL}/virtual-service-no-retries.yml"
    upgrade = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: recommendation}
spec: {host: recommendation, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""
    tries: list[int] = []
    for files in ((), (file,)):
        stage.apply(*files, more=upgrade)
        stage.lab.servers.script("recommendation-v1", "reset*")
        ask(stage.lab, "recommendation", port=8080, headers={"x-do": "reset"})
        tries.append(len(stage.lab.servers.log))
    assert tries == [3, 1]
    for host in ("customer", "preference"):
        assert stage.who(host, 8080).startswith(host)


def virtualized(stage: Stage) -> None:
    """preference v2 gets the virtualized recommendation, all other clients v1."""
    stage.client(app="preference", version="v2")
    files = (
        f"{TUTORIAL}/destination-rule-recommendation-v1.yml",
        f"{TUTORIAL}/virtual-service-recommendation-virtualized.yml",
    )
    stage.apply(*files)
    assert stage.who("recommendation", 8080) == "recommendation-virtualized"
    stage.client(app="preference", version="v1")
    stage.apply(*files)
    assert stage.who("recommendation", 8080) == "recommendation-v1"


def tutorial_subsets(name: str, stage: Stage) -> None:
    """Each subset is the workloads with its version."""
    each_subset(stage, f"{TUTORIAL}/{name}.yml", "recommendation", 8080)


def random(stage: Stage) -> None:
    """Requests go to any workload, at random."""
    stage.apply(f"{TUTORIAL}/destination-rule-recommendation_lb_policy_app.yml")
    names = [each for each in stage.lab.world.names.values() if each.startswith("recommendation")]
    found = Counter(stage.who("recommendation", 8080) for _ in range(60 * len(names)))
    near(found, dict.fromkeys(names, 1 / len(names)))
    assert len(set(found.values())) > 1, "as even as in turns"


def breaker(stage: Stage) -> None:
    """One connection with one request waiting: with more clients than that some get 503 at once. One error ejects."""
    rule = f"{TUTORIAL}/destination-rule-recommendation_cb_policy_version_v2.yml"
    stage.apply(rule, f"{TUTORIAL}/virtual-service-recommendation-v1_and_v2_50_50.yml")
    found = at_once(stage.lab, 20, host="recommendation", port=8080, headers={"x-do": "wait 1"})
    refused = [each for each in found if each.status == 503]
    assert 10 <= len(refused) < 20
    assert all(each.headers.get("x-envoy-overloaded") for each in refused)
    assert max(each.seconds for each in refused) < 1


def ejection(stage: Stage) -> None:
    """A replica of v2 that fails once is ejected: the other one answers, and so does v1. The old field
    consecutiveErrors counts, and a finding names the new ones."""
    rule = f"{TUTORIAL}/destination-rule-recommendation_cb_policy_pool_ejection.yml"
    assert {code for code, _ in said(rule)} == {"IST0002"}
    stage.apply(rule, f"{TUTORIAL}/virtual-service-recommendation-v1_and_v2_50_50.yml")
    stage.lab.servers.script("recommendation-v2-2", "503*")
    ejected = r"cluster\.outbound.8080.version-v2.recommendation.*ejections_active"
    for _ in range(200):
        if stage.who("recommendation", 8080) == "503":
            break
    stage.lab.wait(lambda: stage.lab.stat(ejected) == 1, within_s=60)
    found = Counter(stage.who("recommendation", 8080) for _ in range(60))
    assert found.keys() == {"recommendation-v1", "recommendation-v2"}


def mutual_default(stage: Stage) -> None:
    """All services of the namespace tutorial are called by mutual TLS, others are not."""
    stage.lab.certificates.leaf("tutorial", "root", uri="spiffe://cluster.local/ns/tutorial/sa/default")
    with identified(stage, {"preference": "tutorial"}):
        stage.apply(f"{TUTORIAL}/destination-rule-tls.yml")
        there = ask(stage.lab, "preference.tutorial", port=8080, authority="preference.tutorial").seen
        assert (there["tls"], there["client"]) == (True, SELF)
        assert not ask(stage.lab, "preference", port=8080).seen["tls"]


def world_clock(stage: Stage) -> None:
    """Where only registered hosts may be reached, the entry lets worldtimeapi.org through."""
    clock = partial(ask, stage.lab, "10.88.90.2", port=80, authority="worldtimeapi.org")
    stage.apply(more=REGISTRY_ONLY)
    assert clock().status == 0, "nothing serves that port, so it is closed"
    stage.apply(f"{TUTORIAL}/service-entry-egress-worldclockapi.yml", more=REGISTRY_ONLY)
    assert clock().server == "worldtimeapi"


def customer(name: str, stage: Stage, user: str) -> None:
    """The gateway leads /customer (of a user, in a workshop) to customer, which sees the path without it."""
    stage.apply(
        f"istio-tutorial/customer/kubernetes/{name}.yml", edit=lambda text: text.replace("$WORKSHOP_USER", user)
    )
    answer = ask(stage.lab, "gateway", f"/customer{user}", 80, authority="any.test")
    assert (answer.server, answer.seen["path"]) == ("customer", "/")
    assert stage.edge("/other") == "404"


CASES: dict[str, Case] = {
    **{
        f"{TUTORIAL}/virtual-service-recommendation-v{number}.yml": partial(
            version, f"virtual-service-recommendation-v{number}", THREE if number <= 3 else FOUR, server=f"v{number}"
        )
        for number in range(1, 8)
    },
    **{
        f"{TUTORIAL}/virtual-service-recommendation-v1_and_v2{name}.yml": partial(
            weighted, f"virtual-service-recommendation-v1_and_v2{name}", first=first
        )
        for name, first in {"": 0.9, "_50_50": 0.5, "_75_25": 0.75}.items()
    },
    **{
        f"{TUTORIAL}/virtual-service-{agent.lower()}-recommendation-v2.yml": partial(
            browser, f"virtual-service-{agent.lower()}-recommendation-v2", agent=agent
        )
        for agent in ("Firefox", "Mobile", "Safari")
    },
    f"{TUTORIAL}/virtual-service-promotion-v1-v2-v3.yml": promotion,
    f"{TUTORIAL}/virtual-service-promoted-v3.yml": promoted,
    f"{TUTORIAL}/virtual-service-recommendation-503.yml": unavailable,
    f"{TUTORIAL}/virtual-service-recommendation-delay.yml": delays,
    f"{TUTORIAL}/virtual-service-recommendation-timeout.yml": timeout,
    f"{TUTORIAL}/virtual-service-recommendation-v1-mirror-v2.yml": mirrored,
    f"{TUTORIAL}/virtual-service-recommendation-v2_retry.yml": retried,
    f"{TUTORIAL}/virtual-service-no-retries.yml": no_retries,
    f"{TUTORIAL}/virtual-service-recommendation-virtualized.yml": virtualized,
    **{
        f"{TUTORIAL}/destination-rule-recommendation{name}.yml": partial(
            tutorial_subsets, f"destination-rule-recommendation{name}"
        )
        for name in ("", "-v1", "-v1-v2", "-v1-v2-v3", "-v4-v5-v6-v7")
    },
    f"{TUTORIAL}/destination-rule-recommendation_lb_policy_app.yml": random,
    f"{TUTORIAL}/destination-rule-recommendation_cb_policy_version_v2.yml": breaker,
    f"{TUTORIAL}/destination-rule-recommendation_cb_policy_pool_ejection.yml": ejection,
    f"{TUTORIAL}/destination-rule-tls.yml": mutual_default,
    f"{TUTORIAL}/service-entry-egress-worldclockapi.yml": world_clock,
    **{
        f"istio-tutorial/customer/kubernetes/{name}.yml": partial(customer, name, user=user)
        for name, user in {"Gateway": "", "Gateway.workshop": "7"}.items()
    },
}
