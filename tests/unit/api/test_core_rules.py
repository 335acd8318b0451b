"""Rules of Kubernetes' core kinds, each with the smallest input that breaks it."""

# ruff: noqa: E501 -- one case a line

from __future__ import annotations

from typing import Any

import pytest

from lateen.api.check import check_raw
from lateen.lib.findings import Finding
from lateen.lib.yaml import value
from tests.unit.api.rule_cases import expect, findings


def container(text: str) -> str:
    return f"{{containers: [{{name: a, command: [x], {text}}}]}}"


def deployment(spec: str, labels: str = "{a: b}") -> str:
    return f"{{template: {{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c}}]}}}}, {spec}}}"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", ": has no ports"),
        ("{type: ExternalName}", ": needs a name"),
        ("{ports: [{port: 0}]}", "ports[0].port: expected 1 to 65535"),
        ("{ports: [{port: 80, targetPort: 0}]}", "ports[0].targetPort: not a port"),
        ("{ports: [{port: 80, targetPort: a_b}]}", "ports[0].targetPort: is no port"),
        ("{ports: [{port: 80, name: A}]}", "ports[0].name: name of a port"),
        ("{ports: [{port: 80, name: a}, {port: 81}]}", "ports[1]: need names"),
        ("{ports: [{port: 80, name: a}, {port: 81, name: a}]}", "ports[1]: a is there twice"),
        ("{ports: [{port: 80, name: a}, {port: 80, name: b}]}", "ports[1]: 80/TCP is there twice"),
        ("{clusterIP: x, ports: [{port: 80}]}", "clusterIP: no address"),
        ("{selector: {a: '*'}, ports: [{port: 80}]}", "selector.a: no wildcards"),
    ],
)
def test_service(spec: str, expected: str) -> None:
    expect(findings("v1", "Service", spec), expected)


@pytest.mark.parametrize(
    "spec",
    [
        "{ports: [{port: 80, targetPort: http}]}",
        "{clusterIP: None, selector: {a: b}}",
        "{type: ExternalName, externalName: a.b}",
        "{ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]}",
    ],
)
def test_good_service(spec: str) -> None:
    assert findings("v1", "Service", spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{containers: [{name: A}]}", "containers[0].name: name of a container"),
        ("{containers: [{name: a}, {name: a}]}", "containers: a is there twice"),
        ("{containers: [{name: a}], initContainers: [{name: a}]}", "containers: a is there twice"),
        (container("ports: [{containerPort: 80, name: UPPER}]"), "containers[0].ports[0].name: name of a port"),
        (
            container("ports: [{containerPort: 80, name: a}, {containerPort: 81, name: a}]"),
            "containers[0].ports[1]: a is there twice",
        ),
        (container("readinessProbe: {}"), "containers[0].readinessProbe: what is asked is missing"),
        (container("readinessProbe: {httpGet: {port: 0}}"), "containers[0].readinessProbe.httpGet.port: not a port"),
        (
            container("livenessProbe: {tcpSocket: {port: 99999}}"),
            "containers[0].livenessProbe.tcpSocket.port: not a port",
        ),
        (
            container("livenessProbe: {httpGet: {port: http}}"),
            "containers[0].livenessProbe.httpGet.port: no port named http",
        ),
        (
            container("livenessProbe: {exec: {}, tcpSocket: {port: 1}}"),
            "containers[0].livenessProbe.tcpSocket: exclude each other",
        ),
        (container("env: [{name: 'a=b'}]"), "containers[0].env[0].name: name of a variable"),
        (
            container("env: [{name: a, value: b, valueFrom: {fieldRef: {fieldPath: c}}}]"),
            "containers[0].env[0].valueFrom: exclude",
        ),
        (
            container("volumeMounts: [{name: v, mountPath: /a}]"),
            "containers[0].volumeMounts[0].name: no volume named v",
        ),
        (container("resources: {limits: {memory: 1 GB}}"), "containers[0].resources.limits.memory: not a quantity"),
        ("{containers: [{name: a}], volumes: [{name: v}, {name: v}]}", "volumes[1].name: v is there twice"),
        (
            "{containers: [{name: a}], volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}]}",
            "volumes[0].hostPath: exclude",
        ),
        (
            "{containers: [{name: a, volumeMounts: [{name: v, mountPath: a}]}], volumes: [{name: v}]}",
            "containers[0].volumeMounts[0].mountPath: not a whole path",
        ),
        (
            "{containers: [{name: a, volumeMounts: [{name: v, mountPath: /a, subPath: ../b}]}], volumes: [{name: v}]}",
            "containers[0].volumeMounts[0].subPath: leads out",
        ),
        (
            "{containers: [{name: a, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a}]}], volumes: [{name: v}]}",
            "containers[0].volumeMounts[1]: /a is there twice",
        ),
    ],
)
def test_pod(spec: str, expected: str) -> None:
    expect(findings("v1", "Pod", spec), expected)


def test_good_pod() -> None:
    spec = container(
        "ports: [{containerPort: 80, name: http}], readinessProbe: {httpGet: {port: http}}, resources: {limits: {cpu: 0.5}}"
    )
    assert findings("v1", "Pod", spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (deployment("selector: {}"), "selector: is empty"),
        (deployment("selector: {matchLabels: {a: c}}"), "selector.matchLabels.a: no label a: c"),
        (deployment("selector: {matchLabels: {a: b}}, replicas: -1"), "replicas: expected 0 to"),
        (
            deployment("selector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In}]}"),
            "selector.matchExpressions[0]: needs values",
        ),
        (
            deployment("selector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists, values: [b]}]}"),
            "selector.matchExpressions[0].values: has no values",
        ),
        (
            deployment("selector: {matchLabels: {a: b}}, strategy: {rollingUpdate: {maxSurge: lots}}"),
            "strategy.rollingUpdate.maxSurge: no number",
        ),
        (
            deployment("selector: {matchLabels: {a: b}}, strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}"),
            "strategy.rollingUpdate: nothing may be",
        ),
        (
            "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: a}]}}}",
            "template.spec.restartPolicy: always restarts",
        ),
    ],
)
def test_deployment(spec: str, expected: str) -> None:
    expect(findings("apps/v1", "Deployment", spec), expected)


def test_good_deployment() -> None:
    spec = deployment("selector: {matchLabels: {a: b}}, strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 0}}")
    assert findings("apps/v1", "Deployment", spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{template: {spec: {containers: [{name: a}]}}}", "template.spec: a Job ends"),
        ("{completionMode: Indexed, template: {spec: {restartPolicy: Never, containers: [{name: a}]}}}", ": how many"),
    ],
)
def test_job(spec: str, expected: str) -> None:
    expect(findings("batch/v1", "Job", spec), expected)


def whole(text: str) -> list[Finding]:
    raw: dict[str, Any] = value(text).raw
    return [each for each in check_raw({"metadata": {"name": "x"}, **raw}) if not each.code.startswith("LTN000")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{apiVersion: v1, kind: ConfigMap, data: {'a/b': c}}", 'data["a/b"]: cannot be a key'),
        ("{apiVersion: v1, kind: ConfigMap, data: {a: b}, binaryData: {a: YQ==}}", "binaryData.a: in data too"),
        ("{apiVersion: v1, kind: Secret, stringData: {'a b': c}}", 'stringData["a b"]: cannot be a key'),
        ("{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, stringData: {tls.crt: a}}", "data: needs tls.key"),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: ['::1']}]}",
            "endpoints[0].addresses[0]: not of type IPv4",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: FQDN, endpoints: [{addresses: ['a b']}]}",
            "endpoints[0].addresses[0]: not of type FQDN",
        ),
        ("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice}", ': "addressType" is missing'),
        ("{apiVersion: v1, kind: Node, spec: {taints: [{key: a, effect: x}]}}", "taints[0].effect: is not one of"),
        ("{apiVersion: v1, kind: ServiceAccount, secrets: [5]}", "secrets[0]: expected a mapping"),
    ],
)
def test_other_kinds(text: str, expected: str) -> None:
    expect(whole(text), expected)
