"""What is said about security policies that do not do what they seem to."""

from __future__ import annotations

import pytest

from lateen.analysis.check import Said
from lateen.analysis.checks import authorization_rules, security_policies
from lateen.engine import Q
from lateen.lib.ids import Ref
from tests.configuration import graph_of, objects

MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: quick, envoyExtAuthzHttp: {service: a.b, port: 80, timeout: 1s}}
    - {name: slow, envoyExtAuthzGrpc: {service: a.b, port: 80}}
    - {name: log, envoyFileAccessLog: {path: /dev/stdout}}
---
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app}}
spec: {containers: [{name: app}]}
status: {phase: Running, podIP: 10.88.0.5}
---
"""
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec: {jwtRules: [{issuer: x}]}
---
"""
CHECKS = (*security_policies.CHECKS, *authorization_rules.CHECKS)
TCP = """
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {clusterIP: 10.96.0.1, selector: {app: app}, ports: [{name: tcp-db, port: 9000}, {name: http, port: 9080}]}
---
"""
ASKS = "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}"


MERGING = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "pathNormalization: {normalization: MERGE_SLASHES}"}
---
"""


def rule(said: str) -> str:
    """A policy with one rule: an operation, a source or a condition, by what is said."""
    if said.startswith("key"):
        return f"{{rules: [{{when: [{{{said}}}]}}]}}"
    of_operation = any(each in said for each in ("hosts", "paths", "methods", "ports", "notPaths"))
    where, what = ("to", "operation") if of_operation else ("from", "source")
    return f"{{rules: [{{{where}: [{{{what}: {{{said}}}}}]}}]}}"


NEVER = (
    'paths: ["admin"]',
    'paths: ["/a?b=c"]',
    'paths: ["/a/../b"]',
    'notPaths: ["admin"]',
    'methods: ["get"]',
    'hosts: ["https://app.test"]',
    'principals: ["spiffe://cluster.local/ns/a/sa/b"]',
    'principals: ["cluster.local/b"]',
    'namespaces: ["a"], notNamespaces: ["a*"]',
    'namespaces: ["a", "ab"], notNamespaces: ["*"]',
    'paths: ["/a"], notPaths: ["*a"]',
    'ipBlocks: ["10.0.0.0/24"], notIpBlocks: ["10.0.0.0/8"]',
    "key: source.namespace, values: [a], notValues: [a]",
    "key: source.namespace, values: [a]}, {key: source.namespace, values: [b]",
    'ports: ["80"]}}], when: [{key: destination.port, values: ["81"]}], from: [{source: {namespaces: [a]',
)
POSSIBLE = (
    'namespaces: ["a*"], notNamespaces: ["ab"]',
    'namespaces: ["a", "b"], notNamespaces: ["a"]',
    'ipBlocks: ["10.0.0.0/8"], notIpBlocks: ["10.0.0.0/24", "fd00::/8"]',
    'paths: ["*a"], notPaths: ["/a*"]',
    'paths: ["/a//b", "*"]',
    'key: source.namespace, values: [a]}, {key: source.namespace, values: ["a*"]',
    'key: "request.headers[a]", values: [a]}, {key: "request.headers[a]", values: [b]',
    'principals: ["*", "cluster.local/ns/a/*"]',
)
CASES: list[tuple[str, str, str, list[str]]] = [
    ("AuthorizationPolicy", "{rules: [{}]}", "", []),
    ("AuthorizationPolicy", "{selector: {matchLabels: {app: app}}, rules: [{}]}", "", []),
    ("AuthorizationPolicy", "{selector: {matchLabels: {app: apq}}, rules: [{}]}", "", ["LTN0121"]),
    ("RequestAuthentication", "{selector: {matchLabels: {app: apq}}}", "", ["LTN0122"]),
    ("RequestAuthentication", "{selector: {matchLabels: {app: app}}}", "", []),
    ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: nobody}, rules: [{}]}", "", ["LTN0123"]),
    ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: log}, rules: [{}]}", "", ["LTN0123"]),
    ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: quick}, rules: [{}]}", "", []),
    ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: slow}, rules: [{}]}", "", ["LTN0124"]),
    ("AuthorizationPolicy", "{}", "", ["LTN0125"]),
    ("AuthorizationPolicy", "{action: DENY}", "", []),
    ("AuthorizationPolicy", ASKS, "", ["LTN0126"]),
    ("AuthorizationPolicy", ASKS, TOKENS, []),
    ("AuthorizationPolicy", "{rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]}", "", ["LTN0126"]),
    ("RequestAuthentication", "{jwtRules: [{issuer: x}, {issuer: y}]}", "", []),
    ("RequestAuthentication", "{jwtRules: [{issuer: x}, {issuer: x}]}", "", ["LTN0127", "LTN0127"]),
    ("RequestAuthentication", "{jwtRules: [{issuer: x}]}", TOKENS, ["LTN0127"]),
    ("RequestAuthentication", "{selector: {matchLabels: {app: app}}, jwtRules: [{issuer: x}]}", TOKENS, []),
    *(("AuthorizationPolicy", rule(said), "", ["LTN0310"]) for said in NEVER),
    *(("AuthorizationPolicy", rule(said), "", []) for said in POSSIBLE),
    ("AuthorizationPolicy", rule('paths: ["/a//b"]'), MERGING, ["LTN0310"]),
    ("AuthorizationPolicy", rule('principals: ["third.test/ns/a/sa/b"]'), "", ["LTN0311"]),
    ("AuthorizationPolicy", rule('trustDomains: ["third.test"]'), "", ["LTN0311"]),
    ("AuthorizationPolicy", rule('key: source.principal, values: ["third.test/ns/a/sa/b"]'), "", ["LTN0311"]),
    ("AuthorizationPolicy", rule('principals: ["*.test/ns/a/sa/b"]'), "", []),
    ("AuthorizationPolicy", rule('paths: ["/a"]'), TCP, ["LTN0312"]),
    ("AuthorizationPolicy", f"{{action: DENY, {rule('paths: [/a*]')[1:]}", TCP, ["LTN0312"]),
    ("AuthorizationPolicy", rule('paths: ["/a"], ports: ["9080"]'), TCP, []),
    ("AuthorizationPolicy", rule('key: "request.headers[a]", values: [b]'), TCP, ["LTN0312"]),
    ("AuthorizationPolicy", "{targetRefs: [{kind: Gateway, name: gw}], rules: [{}]}", "", ["LTN0313"]),
    ("AuthorizationPolicy", f"{{action: DENY, {rule('paths: [/a]')[1:]}", "", ["LTN0314"]),
    ("AuthorizationPolicy", rule('notPaths: ["/a"]'), "", ["LTN0314"]),
    ("AuthorizationPolicy", f"{{action: DENY, {rule('paths: [/a, /a/*, /a;*]')[1:]}", "", []),
    ("AuthorizationPolicy", f"{{action: DENY, {rule('paths: [/a*]')[1:]}", "", []),
]


@pytest.mark.parametrize(("kind", "spec", "more", "codes"), CASES)
def test_said(kind: str, spec: str, more: str, codes: list[str]) -> None:
    text = f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n---\n"
    graph = graph_of(MESH, more, text)
    (subject,) = objects(text)
    said: list[str] = []
    for each in CHECKS:
        if isinstance(subject, each.kind):
            said += [each.code for _ in graph.pull(_all, CHECKS.index(each), subject.ref)]
    assert said == codes


def _all(q: Q, number: int, ref: Ref) -> tuple[Said, ...]:
    return tuple(CHECKS[number].run(q, q.read(ref)))


def test_every_check_says_something_in_some_case() -> None:
    assert {each.code for each in CHECKS} == {code for *_, codes in CASES for code in codes}
