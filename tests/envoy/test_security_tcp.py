"""AuthorizationPolicy for TCP through the real Envoy: Istio's semantics, and not one byte for who is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.envoy.guarded_pod import MARK, Call, GuardedPod
from tests.envoy.single_pod import ADDRESS, ECHO_APPLICATION, GREETING_APPLICATION
from tests.envoy.test_security_authorization import lines, logging, policy, source, when

GREETS = 7000
ECHOES = 7001
UNDECLARED = 7002
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
  ports: [{{name: tcp-greet, port: {GREETS}}}, {{name: tcp-echo, port: {ECHOES}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
endpoints:
- {{addresses: [{ADDRESS}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: app, namespace: default}}}}
ports: [{{name: tcp-greet, port: {GREETS}}}, {{name: tcp-echo, port: {ECHOES}}}]
---
"""
DISABLED = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: app}
spec: {selector: {matchLabels: {app: app}}, mtls: {mode: DISABLE}}
---
"""
ALICE = "ns/a/sa/alice"
BOB = "ns/b/sa/bob"
SOON_S = 1.0


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(GREETING_APPLICATION, GREETS)
        made.application(ECHO_APPLICATION, ECHOES)
        made.application(GREETING_APPLICATION, UNDECLARED)
        yield made


def greeted(by: str, source: str = "", sni: str = "app", timeout_s: float = 8) -> Call:
    """A caller that says nothing and waits for the application to speak."""
    return Call(by, port=GREETS, line=True, source=source, sni=sni, timeout_s=timeout_s)


def answered(by: str) -> Call:
    """A caller that speaks first."""
    return Call(by, port=ECHOES, line=True, send="x\n")


RULES: list[tuple[str, list[Call], list[Call]]] = [
    (source("principals: [cluster.local/ns/a/sa/alice]"), [greeted(ALICE)], [greeted(BOB)]),
    (source("notPrincipals: [cluster.local/ns/a/sa/alice]"), [greeted(BOB)], [greeted(ALICE)]),
    (source('principals: ["*/sa/alice"]'), [greeted(ALICE)], [greeted(BOB)]),
    (source("principals: [cluster.local/ns/a/*]"), [greeted(ALICE)], [greeted(BOB)]),
    (source('principals: ["*"]'), [greeted(ALICE), greeted(BOB)], []),
    (source("namespaces: [a]"), [greeted(ALICE)], [greeted(BOB), greeted("ns/aa/sa/alice")]),
    (source("notNamespaces: [a]"), [greeted(BOB)], [greeted(ALICE)]),
    (source("serviceAccounts: [a/alice]"), [greeted(ALICE)], [greeted(BOB)]),
    (source("trustDomains: [cluster.local]"), [greeted(ALICE)], []),
    (source("ipBlocks: [10.88.0.0/13]"), [greeted(ALICE)], [greeted(ALICE, source="127.0.0.1")]),
    (source("notIpBlocks: [127.0.0.0/8]"), [greeted(ALICE)], [greeted(ALICE, source="127.0.0.1")]),
    (source("remoteIpBlocks: [127.0.0.1/32]"), [greeted(ALICE, source="127.0.0.1")], [greeted(ALICE)]),
    (source("namespaces: [a], notIpBlocks: [127.0.0.0/8]"), [greeted(ALICE)], [greeted(BOB)]),
    (when("connection.sni", "values: [x.app]"), [greeted(ALICE, sni="x.app")], [greeted(ALICE, sni="y.app")]),
    (when("destination.port", f'values: ["{GREETS}"]'), [greeted(ALICE)], [Call(ALICE, port=UNDECLARED, line=True)]),
    (when("destination.ip", f"values: [{ADDRESS}]"), [greeted(ALICE)], []),
    (f'rules: [{{to: [{{operation: {{ports: ["{GREETS}"]}}}}]}}]', [greeted(ALICE)], [answered(ALICE)]),
    ("rules: [{}]", [greeted(ALICE), answered(BOB)], []),
    (source('principals: ["cluster.local/ns/a/sa/it\'s)%"]'.replace("'s", "''s")), [], [greeted(ALICE)]),
]


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(("rule", "matching", "others"), RULES, ids=[each[0] for each in RULES])
def test_who_is_refused_hears_nothing_and_who_is_allowed_does_not_wait(
    pod: GuardedPod, action: str, rule: str, matching: list[Call], others: list[Call]
) -> None:
    pod.configure(APPLICATION, policy(f"{{action: {action}, {rule}}}"))
    allowed, refused = (matching, others) if action == "ALLOW" else (others, matching)
    for each in pod.calls(allowed):
        assert each.text in ("hello\n", "got x\n"), each
        assert each.seconds < SOON_S, each
    for each in pod.calls(refused):
        assert each.text == "", each


def test_a_refused_peer_never_reaches_the_application(pod: GuardedPod) -> None:
    """Not even a connection is made for it."""
    pod.configure(APPLICATION, policy("{" + source("namespaces: [a]") + "}"))
    cluster = re.escape(f"cluster.inbound|{GREETS}||.")
    assert pod.call(by=ALICE, port=GREETS, line=True).text == "hello\n"
    read = pod.envoy.stat(f"{cluster}upstream_cx_rx_bytes_total")
    assert read > 0
    failed = pod.envoy.stat(f"{cluster}upstream_cx_connect_fail")
    assert pod.call(by=BOB, port=GREETS, line=True).text == ""
    assert pod.envoy.stat(f"{cluster}upstream_cx_connect_fail") == failed + 1
    assert pod.envoy.stat(f"{cluster}upstream_cx_rx_bytes_total") == read


def test_plain_callers_are_nobody(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, DISABLED, policy("{" + source('principals: ["*"]') + "}"))
    assert pod.call(port=GREETS, line=True).text == ""
    pod.configure(APPLICATION, DISABLED, policy("{action: DENY, " + source('principals: ["*"]') + "}"))
    got = pod.call(port=GREETS, line=True)
    assert got.text == "hello\n"
    assert got.seconds < SOON_S
    pod.configure(APPLICATION, DISABLED, policy("{action: DENY, " + source("ipBlocks: [10.88.0.0/16]") + "}"))
    assert pod.call(port=GREETS, line=True).text == ""
    assert pod.call(port=GREETS, line=True, source="127.0.0.1").text == "hello\n"


def test_fields_of_requests_never_allow_and_are_left_out_where_they_deny(pod: GuardedPod) -> None:
    of_requests = "rules: [{to: [{operation: {paths: [/x]}}], from: [{source: {namespaces: [a]}}]}]"
    pod.configure(APPLICATION, policy(f"{{{of_requests}}}"))
    assert [each.text for each in pod.calls([greeted(ALICE), answered(ALICE)])] == ["", ""]
    pod.configure(APPLICATION, policy(f"{{action: DENY, {of_requests}}}"))
    calls = [greeted(ALICE), answered(ALICE), greeted(BOB), answered(BOB)]
    assert [each.text for each in pod.calls(calls)] == ["", "", "hello\n", "got x\n"]
    conditions = 'rules: [{when: [{key: "request.headers[x]", values: [y]}]}]'
    pod.configure(APPLICATION, policy(f"{{action: DENY, {conditions}}}"))
    assert [each.text for each in pod.calls(calls)] == ["", "", "", ""]


def test_rules_that_the_gate_cannot_say_still_leak_nothing(pod: GuardedPod) -> None:
    """Networks of IPv6: the client's first byte is waited for, so only clients that speak first are served."""
    pod.configure(APPLICATION, policy("{" + source('ipBlocks: ["fd00::/8", 10.88.0.0/16]') + "}"))
    assert [each.text for each in pod.calls([answered(ALICE)])] == ["got x\n"]
    assert pod.call(by=ALICE, port=GREETS, line=True, send="hi\n").text.startswith("hello\n")
    pod.configure(APPLICATION, policy("{action: DENY, " + source('ipBlocks: ["fd00::/8", 10.88.0.0/16]') + "}"))
    assert [each.text for each in pod.calls([greeted(ALICE, timeout_s=2), answered(ALICE)])] == ["", ""]


def test_sidecars_are_held_to_the_policies_too(pod: GuardedPod) -> None:
    """The Pod calls itself through its own proxy; its account is default/default."""
    pod.configure(APPLICATION, policy("{" + source("serviceAccounts: [default]") + "}"))
    assert pod.line("10.96.0.1", GREETS)["line"] == "hello\n"
    pod.configure(APPLICATION, policy("{action: DENY, " + source("serviceAccounts: [default]") + "}"))
    assert pod.line("10.96.0.1", GREETS)["line"] == ""
    assert pod.line(ADDRESS, ECHOES, "x", mark=MARK)["line"] == "got x\n"


def test_the_log_names_the_rule_that_refused_a_connection(pod: GuardedPod) -> None:
    mesh, file = logging(pod, "connections")
    pod.configure(
        APPLICATION,
        mesh,
        policy("{action: DENY, " + source("principals: [cluster.local/ns/b/sa/bob]") + "}", "shut", "istio-system"),
        policy("{" + source("namespaces: [a, b]") + "}", "open"),
        policy("{action: AUDIT, " + source("namespaces: [a]") + "}", "watch"),
        policy("{" + source("namespaces: [z]") + "}", "try", annotations='{istio.io/dry-run: "true"}'),
    )
    heard = [each.text for each in pod.calls([greeted(ALICE), greeted(BOB), greeted("ns/c/sa/c")])]
    assert heard == ["hello\n", "", ""]
    said = [json.loads(each) for each in lines(file, 7) if each.startswith("{")]
    assert sorted((each["security"], each["rule"], each["source"]) for each in said) == [
        ("audit", "ns[default]-policy[watch]-rule[0]", f"spiffe://cluster.local/{ALICE}"),
        ("dry-run ALLOW", None, f"spiffe://cluster.local/{ALICE}"),
        ("refused", "none", "spiffe://cluster.local/ns/c/sa/c"),
        ("refused", "ns[istio-system]-policy[shut]-rule[0]", f"spiffe://cluster.local/{BOB}"),
    ]
