"""The Red Hat tutorial's scenarios on a whole mesh: its own objects, applied as they are published.

Deployments are the tutorial's too, with a local program in place of the image and its probes over HTTP.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.mesh import Answer, Mesh, eventually
from tests.paths import shared

pytestmark = pytest.mark.long
Json = dict[str, Any]
NAMESPACE = "tutorial"
PROGRAM = (Path(__file__).parent / "tutorial_program.py").read_text()
NEXT = {"customer": "preference", "preference": "recommendation"}
SIGMAS = 5


def published(file: str) -> list[Json]:
    """The documents of a file of the tutorial."""
    text = shared(f"samples/istio-tutorial/{file}.yml").read_text()
    return [each for each in yaml.safe_load_all(text) if each]


def runnable(raw: Json, *, replicas: int = 1, delay_s: float = 0) -> Json:
    """A Deployment of the tutorial with the local program in it."""
    spec = raw["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    labels = raw["spec"]["template"]["metadata"]["labels"]
    environment = {"SERVICE": labels["app"], "VERSION": labels["version"], "NEXT": NEXT.get(labels["app"], "")}
    made = {
        "name": container["name"],
        "command": ["python3", "-c", PROGRAM],
        "env": [{"name": name, "value": value} for name, value in {**environment, "DELAY_S": str(delay_s)}.items()],
        "ports": container["ports"][:1],
        "readinessProbe": {"httpGet": {"path": "/health/ready", "port": 8080}, "periodSeconds": 1},
    }
    template = {**raw["spec"]["template"], "spec": {**spec, "containers": [made]}}
    return {**raw, "spec": {**raw["spec"], "replicas": replicas, "template": template}}


class Tutorial:
    """The mesh with the tutorial in it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def apply(self, *files: str) -> None:
        """Applies files of `istiofiles`, in place of those before."""
        for kind in ("virtualservice", "destinationrule"):
            self.mesh.lateen("delete", kind, "recommendation", "-n", NAMESPACE, expect=None)
        for each in files:
            path = shared(f"samples/istio-tutorial/istiofiles/{each}.yml")
            self.mesh.lateen("apply", "-n", NAMESPACE, "--wait", "-f", str(path))

    def ask(self, **headers: str) -> Answer:
        """One request to customer, through the gateway."""
        return self.mesh.ask("/customer", {name.replace("_", "-"): value for name, value in headers.items()})

    def versions(self, requests: int = 24, **headers: str) -> Counter[str]:
        """Which versions answered how often; failures by their status."""
        return Counter(version(each) for each in self.answers(requests, 4, **headers))

    def answers(self, requests: int, at_once: int, **headers: str) -> list[Answer]:
        """The answers to many requests, so many at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            asked = [pool.submit(self.ask, **headers) for _ in range(requests)]
        return [each.result() for each in asked]

    def settled(self, wanted: set[str], **headers: str) -> None:
        """Waits until only those versions answer."""
        eventually(lambda: set(self.versions(12, **headers)), lambda seen: seen <= wanted)
        assert set(self.versions(24, **headers)) == wanted

    def tell(self, pod: Json, what: str) -> None:
        """The tutorial's `curl localhost:8080/misbehave` inside of a Pod."""
        program = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/{what}').read())"
        ok, output = self.mesh.inside(pod, "recommendation", ["python3", "-c", program])
        assert ok, output


def version(answer: Answer) -> str:
    """Which version of recommendation is in an answer, or its status."""
    found = re.search(r"recommendation (v\d)", answer.text)
    return found[1] if answer.status == 200 and found else str(answer.status)


@pytest.fixture(scope="module")
def running(mesh: Mesh) -> Iterator[Mesh]:
    mesh.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    documents: list[Json] = []
    for folder in ("customer", "preference", "recommendation"):
        documents += published(f"{folder}/kubernetes/Service")
        documents += published(f"{folder}/kubernetes/Deployment")
    documents += published("recommendation/kubernetes/Deployment-v2")
    made = [runnable(each) if each["kind"] == "Deployment" else each for each in documents]
    mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(made))
    yield mesh
    mesh.lateen("delete", "namespace", NAMESPACE)


@pytest.fixture
def tutorial(running: Mesh) -> Tutorial:
    for kind, name in (("virtualservice", "bookinfo"), ("gateway", "bookinfo-gateway")):
        running.lateen("delete", kind, name, expect=None)
    gateway = shared("samples/istio-tutorial/customer/kubernetes/Gateway.yml")
    running.lateen("apply", "-n", NAMESPACE, "-f", str(gateway))
    made = Tutorial(running)
    made.apply()
    eventually(lambda: set(made.versions(12)), lambda seen: seen == {"v1", "v2"}, within_s=120)
    return made


def near(found: Counter[str], wanted: dict[str, float]) -> None:
    times = sum(found.values())
    assert found.keys() <= wanted.keys(), found
    for name, share in wanted.items():
        assert abs(found[name] - times * share) <= SIGMAS * math.sqrt(times * share * (1 - share)), found


def test_the_chain_and_simple_routing(tutorial: Tutorial) -> None:
    text = tutorial.ask().text
    assert re.fullmatch(r"customer => preference => recommendation v\d from '.*': \d+", text), text
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-v2")
    tutorial.settled({"v2"})
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-v1")
    tutorial.settled({"v1"})
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-v1_and_v2")
    tutorial.settled({"v1", "v2"})
    near(tutorial.versions(300), {"v1": 0.9, "v2": 0.1})
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-v1_and_v2_75_25")
    eventually(lambda: tutorial.versions(40)["v2"], lambda count: count > 4)
    near(tutorial.versions(200), {"v1": 0.75, "v2": 0.25})


def test_smart_routing_by_user_agent(tutorial: Tutorial) -> None:
    for agent in ("safari", "firefox"):
        tutorial.apply("destination-rule-recommendation-v1-v2", f"virtual-service-{agent}-recommendation-v2")
        tutorial.settled({"v2"}, user_agent=f"Mozilla/5.0 {agent.capitalize()}/605")
        tutorial.settled({"v1"}, user_agent="curl/8")


def test_dark_launch_by_mirroring(tutorial: Tutorial) -> None:
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-v1-mirror-v2")
    tutorial.settled({"v1"})
    counted = _count(tutorial)
    assert set(tutorial.versions(20)) == {"v1"}
    eventually(lambda: _count(tutorial) - counted, lambda copies: copies >= 20)


def _count(tutorial: Tutorial) -> int:
    """How many requests v2 has had, without asking it for an answer through the mesh."""
    (pod,) = tutorial.mesh.pods("recommendation", "v2")
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/').read().decode())"
    ok, output = tutorial.mesh.inside(pod, "recommendation", ["python3", "-c", program])
    assert ok, output
    return int(output.strip().rpartition(" ")[2])


def test_faults_503_and_delay(tutorial: Tutorial) -> None:
    tutorial.apply("destination-rule-recommendation-v1-v2", "virtual-service-recommendation-503")
    tutorial.settled({"503"})
    assert "Error: 503 - fault filter abort" in tutorial.ask().text
    tutorial.apply("destination-rule-recommendation", "virtual-service-recommendation-delay")
    eventually(lambda: tutorial.ask().took_s, lambda took_s: took_s > 6.9, within_s=60)
    answers = tutorial.answers(20, 20)
    assert {each.status for each in answers} == {200}
    late = sum(each.took_s > 6.9 for each in answers)
    assert abs(late - 10) <= SIGMAS * math.sqrt(5)


def test_retry_and_timeout(tutorial: Tutorial) -> None:
    """A version that answers 503 is an answer and no reason to retry by default, as in Istio since 1.24; a rule may say
    so. A version that takes 3 s is beyond the timeout."""
    (broken,) = tutorial.mesh.pods("recommendation", "v2")
    tutorial.tell(broken, "misbehave")
    try:
        tutorial.apply("virtual-service-recommendation-v2_retry")
        eventually(lambda: set(tutorial.versions(12)), lambda seen: seen == {"v1", "503"})
        rule = published("istiofiles/virtual-service-recommendation-v2_retry")[0]
        rule["metadata"]["namespace"] = NAMESPACE
        rule["spec"]["http"][0]["retries"]["retryOn"] = "5xx"
        tutorial.mesh.apply(rule)
        tutorial.settled({"v1"})
    finally:
        tutorial.tell(broken, "behave")
    slow = runnable(published("recommendation/kubernetes/Deployment-v2-timeout")[0], delay_s=3)
    fast = runnable(published("recommendation/kubernetes/Deployment-v2")[0])
    try:
        tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(slow))
        tutorial.apply("virtual-service-recommendation-timeout")
        eventually(lambda: set(tutorial.versions(12)), lambda seen: seen == {"v1", "503"}, within_s=60)
        failed = eventually(tutorial.ask, lambda answer: answer.status == 503, within_s=60)
        assert "Error: 504" in failed.text
        assert 0.9 < failed.took_s < 2.9
    finally:
        tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(fast))


def test_load_balancing_and_pool_ejection(tutorial: Tutorial) -> None:
    """The tutorial's order: v2 has two replicas, requests go to all three, one replica misbehaves and is ejected."""
    two = runnable(published("recommendation/kubernetes/Deployment-v2")[0], replicas=2)
    one = runnable(published("recommendation/kubernetes/Deployment-v2")[0])
    tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(two))
    try:
        tutorial.apply("destination-rule-recommendation_lb_policy_app")
        eventually(lambda: set(_replicas(tutorial, 30)), lambda seen: len(seen) == 3, within_s=120)
        found = _replicas(tutorial, 180)
        near(found, dict.fromkeys(found, 1 / 3))
        rule = "destination-rule-recommendation_cb_policy_pool_ejection"
        tutorial.apply(rule, "virtual-service-recommendation-v1_and_v2_50_50")
        broken = tutorial.mesh.pods("recommendation", "v2")[0]
        tutorial.tell(broken, "misbehave")
        eventually(lambda: tutorial.ask().status, lambda status: status == 503, within_s=60)
        report = tutorial.mesh.load("/customer", requests=60, connections=2)
        assert report.failed <= 1, report.lines()
        tutorial.tell(broken, "behave")
    finally:
        tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(one))


def _replicas(tutorial: Tutorial, requests: int) -> Counter[str]:
    texts = [each.text for each in tutorial.answers(requests, 2)]
    return Counter(found[1] for text in texts if (found := re.search(r"from '([^']*)'", text)))


def test_circuit_breaker(tutorial: Tutorial) -> None:
    """One connection and one waiting request to v2, which is slow: more clients than that fail fast."""
    slow = runnable(published("recommendation/kubernetes/Deployment-v2-timeout")[0], delay_s=1)
    fast = runnable(published("recommendation/kubernetes/Deployment-v2")[0])
    try:
        tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(slow))
        rule = "destination-rule-recommendation_cb_policy_version_v2"
        tutorial.apply(rule, "virtual-service-recommendation-v2")
        eventually(lambda: tutorial.ask().took_s, lambda took_s: took_s > 0.9, within_s=60)
        answers = tutorial.answers(12, 12)
        opened = [each for each in answers if each.status == 503]
        assert len(opened) >= 6, Counter(each.status for each in answers)
        assert all("Error: 503" in each.text for each in opened)
        assert Counter(each.status for each in answers)[200] >= 1
    finally:
        tutorial.mesh.lateen("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(fast))
