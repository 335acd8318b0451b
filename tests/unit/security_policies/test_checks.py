"""What is said about security policies that do not do what they seem to."""

from __future__ import annotations

import pytest

from lateen.analysis.check import Said
from lateen.analysis.checks.security_policies import CHECKS
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
ASKS = "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}"


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
