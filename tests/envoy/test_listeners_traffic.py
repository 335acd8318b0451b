"""The listeners of a sidecar with traffic through the real Envoy: capture, mutual TLS, protocol by first bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.envoy.single_pod import (
    ADDRESS,
    ECHO_APPLICATION,
    GREETING_APPLICATION,
    HTTP_APPLICATION,
    SinglePod,
)

MARK = 0x539
"""A client with this mark is not captured on its way out: it stands for one without a proxy."""

APPLICATION = f"""
apiVersion: v1
kind: Pod
metadata: {{name: app, labels: {{app: app, security.istio.io/tlsMode: istio}}}}
spec: {{containers: [{{name: app}}]}}
status: {{phase: Running, podIP: {ADDRESS}}}
---
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec:
  clusterIP: 10.96.0.1
  selector: {{app: app}}
  ports:
  - {{name: http, port: 80, targetPort: 9080}}
  - {{name: tcp-greet, port: 7000}}
  - {{name: unknown, port: 7100}}
  - {{name: other, port: 7200}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
endpoints:
- {{addresses: [{ADDRESS}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: app, namespace: default}}}}
ports: [{{name: http, port: 9080}}, {{name: tcp-greet, port: 7000}}, {{name: unknown, port: 7100}},
        {{name: other, port: 7200}}]
---
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
"""
DISABLED = STRICT.replace("STRICT", "DISABLE")


@pytest.fixture(scope="module")
def running() -> Iterator[SinglePod]:
    with SinglePod([("app", "app")]) as made:
        made.application(HTTP_APPLICATION, 9080)
        made.application(GREETING_APPLICATION, 7000)
        made.application(HTTP_APPLICATION, 7100)
        made.application(ECHO_APPLICATION, 7200)
        made.application(HTTP_APPLICATION, 7300)
        yield made


@pytest.fixture
def pod(running: SinglePod) -> SinglePod:
    running.configure(APPLICATION)
    return running


@pytest.fixture
def strict(running: SinglePod) -> SinglePod:
    running.configure(APPLICATION, STRICT)
    return running


@pytest.mark.parametrize("port", [80, 7100])
def test_requests_go_by_mutual_tls_and_say_who_called(strict: SinglePod, port: int) -> None:
    answer = strict.get("10.96.0.1", port, "app")
    assert answer["status"] == 200, answer
    seen = json.loads(answer["body"])
    assert "URI=spiffe://cluster.local/ns/default/sa/default" in seen["headers"]["x-forwarded-client-cert"]
    assert seen["client"] == "127.0.0.6"


def test_streams_go_by_mutual_tls_without_waiting(strict: SinglePod) -> None:
    """A server that speaks first on a port declared as TCP is heard at once."""
    answer = strict.line("10.96.0.1", 7000)
    assert answer["line"] == "hello\n", answer
    assert answer["s"] < 1


def test_bytes_that_are_not_http_pass_where_the_protocol_is_found_out(strict: SinglePod) -> None:
    assert strict.line("10.96.0.1", 7200, "anything")["line"] == "got anything\n"


@pytest.mark.parametrize("port", [9080, 7100, 7300])
def test_plain_requests_pass_unless_the_policy_is_strict(running: SinglePod, port: int) -> None:
    """From a client without a proxy; 7300 is a port that no Service declares."""
    running.configure(APPLICATION)
    answer = running.get(ADDRESS, port, "app", mark=MARK)
    assert answer["status"] == 200, answer
    running.configure(APPLICATION, STRICT)
    assert running.get(ADDRESS, port, "app", mark=MARK)["status"] == 0


def test_plain_streams_pass_unless_the_policy_is_strict(running: SinglePod) -> None:
    running.configure(APPLICATION)
    assert running.line(ADDRESS, 7200, "anything", mark=MARK)["line"] == "got anything\n"
    running.configure(APPLICATION, STRICT)
    assert running.line(ADDRESS, 7200, "anything", mark=MARK)["line"] == ""


def test_a_port_may_differ_from_its_workload(running: SinglePod) -> None:
    selecting = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: app}
spec: {selector: {matchLabels: {app: app}}, mtls: {mode: STRICT}, portLevelMtls: {"9080": {mode: DISABLE}}}
---
"""
    running.configure(APPLICATION, selecting)
    assert running.get(ADDRESS, 9080, "app", mark=MARK)["status"] == 200
    assert running.get(ADDRESS, 7100, "app", mark=MARK)["status"] == 0
    answer = running.get("10.96.0.1", 80, "app")  # the client knows that this port takes plain traffic only
    assert answer["status"] == 200, answer
    assert "x-forwarded-client-cert" not in json.loads(answer["body"])["headers"]


def test_a_first_speaker_is_not_held_up_where_tls_is_disabled(running: SinglePod) -> None:
    running.configure(APPLICATION, DISABLED)
    answer = running.line(ADDRESS, 7000, mark=MARK)
    assert answer["line"] == "hello\n", answer
    assert answer["s"] < 1


def test_unknown_addresses_are_passed_on_or_refused(pod: SinglePod) -> None:
    """Nobody is at that address, so what counts is where the proxy sends the connection."""
    passed = pod.envoy.stat("cluster.PassthroughCluster.upstream_cx_total")
    pod.line("10.88.0.99", 7400, "anything")
    assert pod.envoy.stat("cluster.PassthroughCluster.upstream_cx_total") == passed + 1
    only_known = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
"""
    pod.configure(APPLICATION, only_known)
    pod.line("10.88.0.99", 7400, "anything")
    assert pod.envoy.stat("cluster.PassthroughCluster.upstream_cx_total") == passed + 1
    assert pod.get("10.96.0.1", 80, "somewhere.example")["status"] == 502
    assert pod.get("10.96.0.1", 80, "app")["status"] == 200


def test_http2_to_the_endpoint_when_the_rule_says_so(pod: SinglePod) -> None:
    """HTTP/1.1 from the application, HTTP/2 inside mutual TLS, HTTP/1.1 to the application."""
    upgraded = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app}
spec: {host: app, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
---
"""
    pod.configure(APPLICATION, upgraded)
    answer = pod.get("10.96.0.1", 80, "app")
    assert answer["status"] == 200, answer
    assert pod.envoy.stat("http.inbound_0.0.0.0_9080.downstream_cx_http2_total") > 0


def test_a_destination_rule_may_take_mutual_tls_away(running: SinglePod) -> None:
    plain = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app}
spec: {host: app, trafficPolicy: {tls: {mode: DISABLE}}}
---
"""
    running.configure(APPLICATION, plain)
    answer = running.get("10.96.0.1", 80, "app")
    assert answer["status"] == 200, answer
    assert "x-forwarded-client-cert" not in json.loads(answer["body"])["headers"]
    running.configure(APPLICATION, STRICT, plain)
    assert running.get("10.96.0.1", 80, "app")["status"] == 503
