"""CUSTOM policies through the real Envoy: authorizers over HTTP and gRPC, several at once, open and closed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.envoy.authorizer import RECEIVED, RESULT, SLOW_S
from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod, Outcome
from tests.envoy.single_pod import ADDRESS, GREETING_APPLICATION
from tests.envoy.test_security_authorization import operation, policy
from tests.paths import REPOSITORY

AUTHORIZERS = {"http": 8000, "grpc": 9000, "slow": 8001, "failing": 8002}
HOST = "ext-authz.default.svc.cluster.local"
PORTS = ", ".join(
    f"{{name: {'grpc' if name == 'grpc' else 'http'}-{name}, port: {port}}}" for name, port in AUTHORIZERS.items()
)
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
  ports: [{{name: http, port: 80, targetPort: 9080}}, {{name: tcp, port: 7000}}]
---
apiVersion: v1
kind: Service
metadata: {{name: ext-authz}}
spec: {{clusterIP: 10.96.0.2, ports: [{PORTS}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: ext-authz-1, labels: {{kubernetes.io/service-name: ext-authz}}}}
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
ports: [{PORTS}]
---
"""
OK = ("x-ext-authz", "allow")
NO = ("x-ext-authz", "deny")


def mesh(*providers: str) -> str:
    text = json.dumps(f"extensionProviders: [{', '.join(providers)}]")
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: {text}}}
---
"""


def http(name: str = "http", more: str = "", to: str = "http") -> str:
    always = "includeRequestHeadersInCheck: [x-ext-authz, x-also]"
    where = f"service: {HOST}, port: {AUTHORIZERS[to]}"
    return f"{{name: {name}, envoyExtAuthzHttp: {{{where}, {always}{more}}}}}"


def over_grpc(name: str = "grpc", more: str = "", to: str = "grpc") -> str:
    return f"{{name: {name}, envoyExtAuthzGrpc: {{service: {HOST}, port: {AUTHORIZERS[to]}{more}}}}}"


def asks(provider: str, rule: str = "rules: [{}]", name: str = "custom") -> str:
    return policy(f"{{action: CUSTOM, provider: {{name: {provider}}}, {rule}}}", name)


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        made.application(GREETING_APPLICATION, 7000)
        programs = [
            subprocess.Popen(
                [*made.inside(), sys.executable, "-m", "tests.envoy.authorizer", name, "127.0.0.1", str(port)],
                cwd=REPOSITORY,
            )
            for name, port in AUTHORIZERS.items()
        ]
        try:
            made.listening(*AUTHORIZERS.values())
            yield made
        finally:
            for each in programs:
                each.kill()
                each.wait()


def asked(outcome: Outcome) -> dict[str, object]:
    return json.loads(outcome.headers[RECEIVED])


@pytest.mark.parametrize("provider", [http("p"), over_grpc("p")], ids=["http", "grpc"])
def test_the_authorizer_decides_about_what_the_rules_match(pod: GuardedPod, provider: str) -> None:
    pod.configure(APPLICATION, mesh(provider), asks("p", operation("paths: [/x, /x/*]")))
    calls = [Call(path="/"), Call(path="/x"), Call(path="/x", headers=(NO,)), Call(path="/x/y?q", headers=(OK,))]
    got = pod.calls(calls)
    assert [each.status for each in got] == [200, 403, 403, 200]
    assert got[1].body == "denied by ext_authz"


def test_all_fields_of_an_http_authorizer(pod: GuardedPod) -> None:
    more = (
        ", pathPrefix: /check, statusOnError: '503', includeAdditionalHeadersInCheck: {x-added: yes-added},"
        f" headersToUpstreamOnAllow: [{RESULT}], headersToDownstreamOnDeny: [x-ext-authz-*],"
        f" headersToDownstreamOnAllow: [{RECEIVED}], timeout: 2s,"
        " includeRequestBodyInCheck: {maxRequestBytes: 5, allowPartialMessage: true}"
    )
    pod.configure(APPLICATION, mesh(http("p", more)), asks("p"))
    body = (("content-length", "0"), ("x-secret", "s"), ("x-also", "a"))
    denied, allowed = pod.calls([Call(path="/a?b", headers=(NO, *body)), Call(path="/a", headers=(OK, *body))])
    assert denied.status == 403
    assert denied.headers[RESULT] == "denied"
    assert "x-other" not in denied.headers
    said = asked(denied)
    assert said["path"] == "/check/a?b"
    headers = said["headers"]
    assert isinstance(headers, dict)
    assert headers["x-added"] == "yes-added"
    assert headers["x-also"] == "a"
    assert "x-secret" not in headers
    assert allowed.seen_headers[RESULT] == "allowed"
    assert RESULT not in allowed.headers
    assert RECEIVED in allowed.headers
    assert RECEIVED not in allowed.seen_headers


@pytest.mark.parametrize(("make", "partial"), [(http, True), (over_grpc, True), (http, False), (over_grpc, False)])
def test_bodies_go_to_the_authorizer_up_to_a_size(pod: GuardedPod, make: object, partial: bool) -> None:
    assert callable(make)
    more = f", includeRequestBodyInCheck: {{maxRequestBytes: 5, allowPartialMessage: {str(partial).lower()}}}"
    if make is http:
        more += ", headersToDownstreamOnDeny: [x-ext-authz-*]"
    pod.configure(APPLICATION, mesh(str(make("p", more))), asks("p"))
    short = Call(method="POST", headers=(NO, ("content-length", "3")), body="abc")
    long = Call(method="POST", headers=(NO, ("content-length", "7")), body="abcdefg")
    got = pod.calls([short, long])
    assert asked(got[0])["body"] == "abc"
    if partial:
        assert asked(got[1])["body"] == "abcde"
    else:
        assert got[1].status == 413


def test_several_authorizers_on_one_workload(pod: GuardedPod) -> None:
    pod.configure(
        APPLICATION,
        mesh(http("one"), over_grpc("two"), http("unused", to="failing")),
        asks("one", operation("paths: [/one*, /both*]"), "a"),
        asks("two", operation("paths: [/two*, /both*]"), "b"),
    )
    paths = ["/", "/one", "/two", "/both"]
    assert pod.statuses([Call(path=each, headers=(NO,)) for each in paths]) == [200, 403, 403, 403]
    assert pod.statuses([Call(path=each, headers=(OK,)) for each in paths]) == [200, 200, 200, 200]


def test_authorizers_that_fail_hurt_only_what_they_decide(pod: GuardedPod) -> None:
    """One works, one answers with errors, one may be passed over, one is gone, and one nobody declared."""
    settings = f"service: {HOST}, timeout: 0.3s"
    pod.configure(
        APPLICATION,
        mesh(
            over_grpc("works"),
            f"{{name: errors, envoyExtAuthzHttp: {{{settings}, port: {AUTHORIZERS['failing']}}}}}",
            f"{{name: open, envoyExtAuthzHttp: {{{settings}, port: {AUTHORIZERS['failing']}, failOpen: true}}}}",
            f"{{name: gone, envoyExtAuthzGrpc: {{{settings}, port: 8009}}}}",
        ),
        *(asks(each, operation(f"paths: [/{each}, /all]"), each) for each in ("works", "open")),
        *(asks(each, operation(f"paths: [/{each}]"), each) for each in ("errors", "gone", "nobody")),
    )
    paths = ["/", "/works", "/open", "/all", "/errors", "/gone", "/nobody"]
    assert pod.statuses([Call(path=each, headers=(OK,)) for each in paths]) == [200, 200, 200, 200, 403, 403, 403]
    assert pod.statuses([Call(path=each, headers=(NO,)) for each in paths]) == [200, 403, 200, 403, 403, 403, 403]


@pytest.mark.parametrize(
    ("over", "to"),
    [("http", "failing"), ("http", "slow"), ("http", "unreachable"), ("grpc", "slow"), ("grpc", "unreachable")],
)
def test_an_authorizer_that_does_not_answer(pod: GuardedPod, to: str, over: str) -> None:
    where = AUTHORIZERS.get(to, 8009)
    kind = "envoyExtAuthzHttp" if over == "http" else "envoyExtAuthzGrpc"
    settings = f"service: {HOST}, port: {where}, timeout: 0.3s"
    closed = f"{{name: closed, {kind}: {{{settings}, statusOnError: '503'}}}}"
    opened = f"{{name: opened, {kind}: {{{settings}, failOpen: true}}}}"
    plain = f"{{name: plain, {kind}: {{{settings}}}}}"
    for name, status in (("closed", 503), ("opened", 200), ("plain", 403)):
        pod.configure(APPLICATION, mesh(closed, opened, plain), asks(name))
        got = pod.call(headers=(OK,))
        if to == "unreachable" and name == "closed":
            status = 403  # nobody to ask: refused by the rule itself
        assert got.status == status, (name, got)
        assert got.seconds < 1.5


def test_an_authorizer_has_a_sane_time_limit_of_its_own(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, mesh(http("p", to="slow")), asks("p"))
    got = pod.call(headers=(OK,))
    assert got.status == 200
    assert got.seconds > SLOW_S


def test_a_provider_that_nobody_declared_refuses_what_it_should_decide(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, asks("nobody", operation("paths: [/x]")))
    assert pod.statuses([Call(), Call(path="/x", headers=(OK,))]) == [200, 403]


def test_connections_by_grpc(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, mesh(over_grpc("p")), asks("p", operation('ports: ["7000"]')))
    calls = [Call(f"ns/a/sa/{name}", port=7000, line=True, send="x\n") for name in ("alice", "bob")]
    assert [each.text[:6] for each in pod.calls(calls)] == ["hello\n", ""]
    silent = Call("ns/a/sa/bob", port=7000, line=True, timeout_s=1)
    assert pod.calls([silent])[0].text == ""


def test_denial_comes_after_the_authorizer_and_allow_too(pod: GuardedPod) -> None:
    pod.configure(
        APPLICATION,
        mesh(http("p")),
        asks("p"),
        policy(f"{{action: DENY, {operation('paths: [/no]')}}}", "deny"),
        policy(f"{{{operation('paths: [/yes, /no]')}}}", "allow"),
    )
    paths = ["/yes", "/no", "/else"]
    assert pod.statuses([Call(path=each, headers=(OK,)) for each in paths]) == [200, 403, 403]
    assert pod.statuses([Call(path=each, headers=(NO,)) for each in paths]) == [403, 403, 403]
