"""AuthorizationPolicy for HTTP with requests through the real Envoy: each field, allowed and denied."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.single_pod import ADDRESS, READY_S

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
  ports: [{{name: http, port: 80, targetPort: 9080}}, {{name: http-other, port: 81, targetPort: 9081}}]
---
"""
EXPLAINS = '{lateen.io/explain-denials: "true"}'
ALICE = "ns/a/sa/alice"
BOB = "ns/b/sa/bob"


def policy(spec: str, name: str = "p", namespace: str = "default", annotations: str = "{}") -> str:
    """A policy with a spec in YAML flow style."""
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}
spec: {spec}
---
"""


def source(said: str) -> str:
    return f"rules: [{{from: [{{source: {{{said}}}}}]}}]"


def operation(said: str) -> str:
    return f"rules: [{{to: [{{operation: {{{said}}}}}]}}]"


def when(key: str, said: str) -> str:
    return f'rules: [{{when: [{{key: "{key}", {said}}}]}}]'


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        made.application(APPLICATION_OF_ALL_METHODS, 9081)
        yield made


A = Call(ALICE)
CASES: list[tuple[str, list[Call], list[Call]]] = [
    # what one rule says, calls it matches, calls it does not
    (source('principals: ["cluster.local/ns/a/sa/alice"]'), [A], [Call(BOB), Call("ns/a/sa/alice2"), Call()]),
    (source('principals: ["*"]'), [A, Call(BOB)], [Call()]),
    (source('principals: ["*/sa/alice"]'), [A, Call("ns/z/sa/alice")], [Call(BOB), Call()]),
    (source('principals: ["cluster.local/ns/a/*"]'), [A, Call("ns/a/sa/z")], [Call("ns/aa/sa/alice"), Call()]),
    (source('notPrincipals: ["cluster.local/ns/a/sa/alice"]'), [Call(BOB), Call()], [A]),
    (source('namespaces: ["a"]'), [A], [Call(BOB), Call("ns/aa/sa/alice"), Call("ns/b/sa/ns-a-sa"), Call()]),
    (source('namespaces: ["a*"]'), [A, Call("ns/aa/sa/x")], [Call(BOB), Call()]),
    (source('namespaces: ["*a"]'), [A, Call("ns/ba/sa/x")], [Call(BOB), Call()]),
    (source('notNamespaces: ["a"]'), [Call(BOB), Call()], [A]),
    (source('serviceAccounts: ["a/alice"]'), [A], [Call("ns/b/sa/alice"), Call()]),
    (source('serviceAccounts: ["alice"]'), [Call("ns/default/sa/alice")], [A, Call()]),
    (source('notServiceAccounts: ["a/alice"]'), [Call(BOB), Call()], [A]),
    (source('trustDomains: ["cluster.local"]'), [A], [Call()]),
    (source('notTrustDomains: ["cluster.local"]'), [Call()], [A]),
    (source('trustDomains: ["other"]'), [], [A, Call()]),
    (source(f'ipBlocks: ["{ADDRESS}"]'), [A, Call()], [Call(source="127.0.0.1", address=ADDRESS)]),
    (source('ipBlocks: ["10.88.0.0/16"]'), [A], []),
    (source('ipBlocks: ["10.99.0.0/16"]'), [], [A, Call(headers=(("x-forwarded-for", "10.99.0.1"),))]),
    (source('notIpBlocks: ["10.88.0.0/16"]'), [], [A, Call()]),
    (
        source('remoteIpBlocks: ["10.99.0.0/16"]'),
        [Call(ALICE, headers=(("x-forwarded-for", "10.99.0.1"),))],
        [A, Call(ALICE, headers=(("x-forwarded-for", "10.99.0.1, 10.98.0.1"),))],
    ),
    (source('notRemoteIpBlocks: ["10.88.0.0/16"]'), [Call(ALICE, headers=(("x-forwarded-for", "10.99.0.1"),))], [A]),
    (source('namespaces: ["a"], notPrincipals: ["*/sa/alice"]'), [Call("ns/a/sa/x")], [A, Call(BOB)]),
    (operation('hosts: ["App.Example.com"]'), [Call(host="app.example.COM")], [Call(host="app.example.com:80"), A]),
    (operation('hosts: ["app.example.com:*"]'), [Call(host="app.example.com:80")], [Call(host="app.example.com")]),
    (operation('hosts: ["*.Example.com"]'), [Call(host="x.example.com")], [Call(host="x.example.org")]),
    (operation('notHosts: ["app"]'), [Call(host="x")], [Call(host="APP")]),
    (operation('ports: ["9080"]'), [A], [Call(ALICE, port=9081)]),
    (operation('notPorts: ["9080"]'), [Call(ALICE, port=9081)], [A]),
    (operation('methods: ["GET"]'), [A], [Call(method="POST"), Call(method="OPTIONS")]),
    (operation('methods: ["P*"]'), [Call(method="POST"), Call(method="PUT")], [A]),
    (operation('notMethods: ["GET"]'), [Call(method="DELETE")], [A]),
    (operation('paths: ["/admin"]'), [Call(path="/admin"), Call(path="/admin?x=1")], [Call(path="/admin/"), A]),
    (operation('paths: ["/admin*"]'), [Call(path="/admin"), Call(path="/administrator")], [Call(path="/x/admin"), A]),
    (operation('paths: ["*/info"]'), [Call(path="/a/b/info"), Call(path="/info?x")], [Call(path="/info/"), A]),
    (operation('paths: ["*"]'), [A, Call(path="/x")], []),
    (operation('notPaths: ["/admin*"]'), [A], [Call(path="/admin/x")]),
    (
        operation('paths: ["/u/{*}/info"]'),
        [Call(path="/u/1/info"), Call(path="/u/1/info?q=/"), Call(path='/u/a|"<b/info'), Call(path="/u/%7C/info")],
        [Call(path="/u/info"), Call(path="/u/1/2/info"), Call(path="/u/1/info/x")],
    ),
    (
        operation('paths: ["/u/{*}/d/{**}"]'),
        [Call(path="/u/1/d/x"), Call(path="/u/1/d/x/y/z")],
        [Call(path="/u/1/e/x"), Call(path="/v/1/d/x")],
    ),
    (operation('notPaths: ["/u/{*}/info"]'), [A], [Call(path="/u/1/info")]),
    (
        when("request.headers[X-Role]", 'values: ["admin"]'),
        [Call(headers=(("x-role", "admin"),)), Call(headers=(("X-ROLE", "admin"),))],
        [A, Call(headers=(("x-role", "Admin"),)), Call(headers=(("x-rolex", "admin"),))],
    ),
    (when("request.headers[x-role]", 'values: ["ad*"]'), [Call(headers=(("x-role", "adx"),))], [A]),
    (when("request.headers[x-role]", 'values: ["*min"]'), [Call(headers=(("x-role", "min"),))], [A]),
    (when("request.headers[x-role]", 'values: ["*"]'), [Call(headers=(("x-role", "x"),))], [A]),
    (when("request.headers[x-role]", 'notValues: ["admin"]'), [A], [Call(headers=(("x-role", "admin"),))]),
    (when("request.headers[x-role]", 'notValues: ["*"]'), [A], [Call(headers=(("x-role", "x"),))]),
    (when("source.ip", f'values: ["{ADDRESS}/32"]'), [A], []),
    (when("remote.ip", 'values: ["10.99.0.0/16"]'), [Call(headers=(("x-forwarded-for", "10.99.0.1"),))], [A]),
    (when("source.namespace", 'values: ["a"]'), [A], [Call(BOB), Call()]),
    (when("source.principal", 'values: ["cluster.local/ns/a/sa/alice"]'), [A], [Call(BOB), Call()]),
    (when("source.serviceAccount", 'values: ["a/alice"]'), [A], [Call(BOB), Call()]),
    (when("source.trustDomain", 'values: ["cluster.local"]'), [A], [Call()]),
    (when("destination.ip", f'values: ["{ADDRESS}"]'), [A], []),
    (when("destination.ip", 'values: ["10.99.0.0/16"]'), [], [A]),
    (when("destination.port", 'values: ["9081"]'), [Call(port=9081)], [A]),
    (when("connection.sni", 'values: ["*.app"]'), [Call(ALICE, sni="x.app")], [A, Call()]),
    (when("source.namespace", 'values: ["a"], notValues: ["a"]'), [], [A, Call(BOB)]),
    ("rules: [{}]", [A, Call()], []),
    (
        'rules: [{from: [{source: {namespaces: ["a"]}}], to: [{operation: {methods: ["POST"]}}]},'
        ' {from: [{source: {namespaces: ["b"]}}, {source: {principals: ["cluster.local/ns/c/sa/c"]}}],'
        ' to: [{operation: {paths: ["/x"]}}, {operation: {paths: ["/y"]}}],'
        ' when: [{key: "request.headers[k]", values: ["v"]}]}]',
        [
            Call(ALICE, method="POST"),
            Call(BOB, path="/y", headers=(("k", "v"),)),
            Call("ns/c/sa/c", path="/x", headers=(("k", "v"),)),
        ],
        [A, Call(BOB, path="/y"), Call(BOB, method="POST"), Call(BOB, path="/z", headers=(("k", "v"),))],
    ),
]


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(("rule", "matching", "others"), CASES, ids=[each[0] for each in CASES])
def test_a_rule_matches_what_it_says(
    pod: GuardedPod, action: str, rule: str, matching: list[Call], others: list[Call]
) -> None:
    pod.configure(APPLICATION, policy(f"{{action: {action}, {rule}}}"))
    passing, refused = (200, 403) if action == "ALLOW" else (403, 200)
    got = pod.statuses([*matching, *others])
    assert got == [passing] * len(matching) + [refused] * len(others)


# -- how policies go together ------------------------------------------------------------------------------------


def test_without_policies_everything_passes_and_an_empty_one_shuts_everything(pod: GuardedPod) -> None:
    pod.configure(APPLICATION)
    assert pod.statuses([A, Call()]) == [200, 200]
    pod.configure(APPLICATION, policy("{}"))
    assert pod.statuses([A, Call()]) == [403, 403]
    pod.configure(APPLICATION, policy("{action: DENY}"))
    assert pod.statuses([A, Call()]) == [200, 200]


def test_deny_comes_before_allow_and_one_allow_is_enough(pod: GuardedPod) -> None:
    pod.configure(
        APPLICATION,
        policy(f"{{{source('namespaces: [a]')}}}", "one"),
        policy(f"{{{source('namespaces: [b]')}}}", "two"),
        policy(f"{{action: DENY, {operation('paths: [/no]')}}}", "three"),
    )
    calls = [A, Call(BOB), Call("ns/c/sa/c"), Call(), Call(ALICE, path="/no")]
    assert pod.statuses(calls) == [200, 200, 403, 403, 403]


def test_selectors_and_the_root_namespace(pod: GuardedPod) -> None:
    denies = "action: DENY, rules: [{}]"
    pod.configure(APPLICATION, policy(f"{{selector: {{matchLabels: {{app: other}}}}, {denies}}}"))
    assert pod.statuses([A]) == [200]
    pod.configure(APPLICATION, policy(f"{{selector: {{matchLabels: {{app: app}}}}, {denies}}}"))
    assert pod.statuses([A]) == [403]
    pod.configure(APPLICATION, policy(f"{{{denies}}}", namespace="elsewhere"))
    assert pod.statuses([A]) == [200]
    pod.configure(APPLICATION, policy(f"{{{denies}}}", namespace="istio-system"))
    assert pod.statuses([A]) == [403]
    pod.configure(
        APPLICATION, policy(f"{{selector: {{matchLabels: {{app: other}}}}, {denies}}}", namespace="istio-system")
    )
    assert pod.statuses([A]) == [200]
    targets = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: app}]"
    pod.configure(APPLICATION, policy(f"{{{targets}, {denies}}}"))
    assert pod.statuses([A]) == [200]


def test_trust_domains_and_their_aliases_are_one(pod: GuardedPod) -> None:
    mesh = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "{trustDomain: new.example, trustDomainAliases: [old.example]}"}
---
"""
    callers = [Call(f"spiffe://{domain}/ns/a/sa/alice") for domain in ("new.example", "old.example", "cluster.local")]
    for said in ("new.example", "old.example", "cluster.local", "*.example"):
        pod.configure(APPLICATION, mesh, policy("{" + source(f"principals: ['{said}/ns/a/sa/alice']") + "}"))
        assert pod.statuses(callers) == [200, 200, 0], said
    pod.configure(APPLICATION, mesh, policy(f"{{{source('principals: [third.example/ns/a/sa/alice]')}}}"))
    assert pod.statuses(callers) == [403, 403, 0]


# -- the ways around ---------------------------------------------------------------------------------------------

AROUND = [
    "/admin", "/admin?x", "/%61dmin", "/x/../admin", "/./admin", "/x/%2e%2e/admin", "/%2e/admin", "/x/.%2E/admin",
    "/admin%3fx", "http://app/admin",
]  # fmt: skip
SLASHES = ["//admin", "///admin", "/x/..//admin"]
ESCAPED_SLASHES = ["/%2fadmin", "/x%2f..%2fadmin", "/x%5c..%5cadmin"]


def normalising(how: str) -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "pathNormalization: {{normalization: {how}}}"}}
---
"""


@pytest.mark.parametrize(
    ("how", "spellings"),
    [
        ("BASE", AROUND),
        ("MERGE_SLASHES", [*AROUND, *SLASHES]),
        ("DECODE_AND_MERGE_SLASHES", [*AROUND, *SLASHES, *ESCAPED_SLASHES]),
    ],
)
def test_no_spelling_of_a_path_gets_around_a_denial(pod: GuardedPod, how: str, spellings: list[str]) -> None:
    """What comes through must be a path that the application takes for another one too."""
    denies = policy(f"{{action: DENY, {operation('paths: [/admin, /admin/*]')}}}")
    pod.configure(APPLICATION, normalising(how), denies)
    for spelling, outcome in zip(spellings, pod.calls([Call(ALICE, path=each) for each in spellings]), strict=True):
        if outcome.status == 200:
            assert outcome.seen["path"] in ("/admin%3fx",), spelling
        else:
            assert outcome.status in (400, 403), (spelling, outcome)


def test_normalisation_can_be_off(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, normalising("NONE"), policy(f"{{action: DENY, {operation('paths: [/admin]')}}}"))
    got = pod.calls([Call(ALICE, path="/admin"), Call(ALICE, path="/x/../admin")])
    assert [each.status for each in got] == [403, 200]
    assert got[1].seen["path"] == "/x/../admin"


def test_headers_twice_do_not_get_around_a_denial(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, policy(f"{{action: DENY, {when('request.headers[x-role]', 'values: [bad]')}}}"))
    calls = [
        Call(ALICE, headers=(("x-role", "bad"), ("x-role", "good"))),
        Call(ALICE, headers=(("x-role", "good"), ("X-Role", "bad"))),
        Call(ALICE, headers=(("X-ROLE", "bad"),)),
        Call(ALICE, headers=(("x-role", " bad "),)),
    ]
    assert pod.statuses(calls) == [403, 403, 403, 403]


def test_hosts_said_by_the_request_line_or_twice(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, policy(f"{{action: DENY, {operation('hosts: [bad.example]')}}}"))
    calls = [
        Call(ALICE, host="BAD.example"),
        Call(ALICE, host="good.example", path="http://bad.example/"),
        Call(ALICE, host="good.example", headers=(("host", "bad.example"),)),
        Call(ALICE, host="good.example"),
    ]
    got = pod.calls(calls)
    assert [each.status for each in got] == [403, 403, 200, 200]
    assert got[2].seen_headers["host"] == "good.example,bad.example"  # the application gets no valid name either


def test_nobody_says_who_they_are_by_headers(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, policy(f"{{{source('principals: [cluster.local/ns/a/sa/alice]')}}}"))
    lies = (("x-forwarded-client-cert", "By=x;URI=spiffe://cluster.local/ns/a/sa/alice"), ("x-envoy-peer", "alice"))
    assert pod.statuses([Call(BOB, headers=lies), Call(headers=lies), Call(ALICE, foreign=True)]) == [403, 403, 0]


# -- on trial, and told why ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT", "CUSTOM"])
def test_policies_on_trial_are_counted_and_not_enforced(pod: GuardedPod, action: str) -> None:
    provider = ", provider: {name: nobody}" if action == "CUSTOM" else ""
    said = f"{{action: {action}{provider}, {source('namespaces: [a]')}}}"
    pod.configure(APPLICATION, policy(said, annotations='{istio.io/dry-run: "true"}'))
    prefix = f"http.inbound_0.0.0.0_9080.rbac.istio_dry_run_{action.lower()}_.shadow"
    before = (pod.envoy.stat(f"{prefix}_allowed"), pod.envoy.stat(f"{prefix}_denied"))
    assert pod.statuses([A, A, Call(BOB)]) == [200, 200, 200]
    counted = pod.envoy.stat(f"{prefix}_allowed") - before[0], pod.envoy.stat(f"{prefix}_denied") - before[1]
    assert counted == ((2, 1) if action in ("ALLOW", "AUDIT") else (1, 2))


def logging(pod: GuardedPod, name: str) -> tuple[str, Path]:
    """Mesh configuration with an access log in a file, and the file."""
    file = pod.directory / f"{name}.log"
    mesh = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "accessLogFile: {file}"}}
---
"""
    return mesh, file


def lines(file: Path, count: int) -> list[str]:
    """The lines of a log once there are so many; Envoy writes them a little later."""
    deadline = time.monotonic() + READY_S
    while not file.exists() or len(found := file.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, file.read_text() if file.exists() else "no log"
        time.sleep(0.05)
    return found


def test_the_log_names_the_rule_that_refused(pod: GuardedPod) -> None:
    mesh, file = logging(pod, "refused")
    pod.configure(APPLICATION, mesh, policy(f"{{action: DENY, {operation('paths: [/no]')}}}", "shut", "istio-system"))
    assert pod.statuses([Call(ALICE, path="/no")]) == [403]
    assert "rbac_access_denied_matched_policy[ns[istio-system]-policy[shut]-rule[0]]" in lines(file, 1)[0]


def test_audits_and_trials_are_logged_with_the_rule(pod: GuardedPod) -> None:
    mesh, file = logging(pod, "audited")
    trial = '{istio.io/dry-run: "true"}'
    pod.configure(
        APPLICATION,
        mesh,
        policy(f"{{action: AUDIT, {operation('paths: [/a]')}}}", "watch"),
        policy(f"{{action: DENY, {operation('paths: [/d]')}}}", "try-deny", annotations=trial),
        policy(f"{{{operation('paths: [/a, /d, /]')}}}", "try-allow", annotations=trial),
    )
    calls = [Call(ALICE, path=each) for each in ("/", "/a", "/d", "/z")]
    assert pod.statuses(calls) == [200] * 4
    said = [json.loads(each) for each in lines(file, 7) if each.startswith("{")]
    assert sorted((each["security"], each["path"], each["rule"]) for each in said) == [
        ("audit", "/a", "ns[default]-policy[watch]-rule[0]"),
        ("dry-run ALLOW", "/z", None),
        ("dry-run DENY", "/d", "ns[default]-policy[try-deny]-rule[0]"),
    ]
    assert all(each["source"] == "spiffe://cluster.local/ns/a/sa/alice" for each in said)


def test_who_may_know_is_told_why(pod: GuardedPod) -> None:
    explains = policy(f"{{action: AUDIT, {source('namespaces: [a]')}}}", "why", annotations=EXPLAINS)
    denies = policy(f"{{action: DENY, {operation('paths: [/no]')}}}", "shut")
    allows = policy(f"{{{operation('paths: [/no, /yes]')}}}", "open")
    pod.configure(APPLICATION, explains, denies, allows)
    paths = ["/no", "/else", "/yes"]
    told = pod.calls([Call(ALICE, path=each) for each in paths])
    assert [each.status for each in told] == [403, 403, 200]
    reason = "rbac_access_denied_matched_policy[{}]"
    assert told[0].headers["x-lateen-reason"] == reason.format("ns[default]-policy[shut]-rule[0]")
    assert told[1].headers["x-lateen-reason"] == reason.format("none")
    assert told[1].headers["x-lateen-allowing"] == "default/open"
    for each in (*pod.calls([Call(BOB, path=each) for each in paths]), told[2]):
        assert not any(name.startswith("x-lateen") for name in each.headers)
