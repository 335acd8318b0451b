"""No field is silently ignored: what has no effect is said, with its path, and the tables name real fields."""

from __future__ import annotations

import re

import pytest
from msgspec import inspect

from lateen.api import coverage, kinds
from lateen.api.check import check
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import documents


def said(text: str) -> list[Finding]:
    (document,) = documents(text, "f.yaml")
    found = check(document)
    assert not [each for each in found if each.level is Level.ERROR], found
    return found


def codes(text: str) -> list[tuple[str, str, str]]:
    return [(each.code, each.level.value, each.path) for each in said(text)]


def test_a_missing_field_inside_of_a_whole() -> None:
    text = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n"
        "  http:\n  - fault:\n      delay: {exponentialDelay: 1s, percentage: {value: 5}}\n"
        "    route: [{destination: {host: a}}]\n"
    )
    (finding,) = said(text)
    assert (finding.code, finding.level) == ("LTN0001", Level.WARNING)
    assert finding.path == "spec.http[0].fault.delay.exponentialDelay"
    assert finding.message == "exponentialDelay is not implemented yet and has no effect"
    assert finding.position is not None
    assert (finding.position.line, finding.position.column) == (8, 33)


def test_fields_of_containers() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  dnsPolicy: Default\n  shareProcessNamespace: true\n"
        "  containers:\n  - {name: a, command: [x], image: b, tty: true,"
        " env: [{name: x, valueFrom: {fieldRef: {fieldPath: a}}}]}\n"
    )
    assert codes(text) == [
        ("LTN0001", "warning", "spec.dnsPolicy"),
        ("LTN0001", "warning", "spec.shareProcessNamespace"),
        ("LTN0006", "info", "spec.containers[0].image"),
        ("LTN0001", "warning", "spec.containers[0].tty"),
    ]


def test_values_that_are_missing() -> None:
    text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: FQDN\n"
    (finding,) = said(text)
    assert finding.message == "addressType FQDN is not implemented yet and has no effect"
    assert codes(text.replace("FQDN", "IPv4")) == []


def test_policies_for_targets_that_are_not_there_yet_say_so() -> None:
    for kind in ("AuthorizationPolicy", "RequestAuthentication"):
        text = f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n"
        assert codes(text) == []
        target = "spec: {targetRefs: [{kind: Service, group: '', name: a}]}\n"
        assert codes(text + target) == [("LTN0001", "warning", "spec.targetRefs[0].kind")]


def test_a_kind_without_effect() -> None:
    (finding,) = said("apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\n")
    assert finding.message == "Telemetry is not implemented yet: it is stored and has no effect"


def test_what_is_implemented_says_nothing() -> None:
    assert codes("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n") == []


TABLES = [
    (kind, path)
    for area in coverage.AREAS
    for table in (area.IMPLEMENTED, area.MISSING, area.NO_EFFECT)
    for kind, paths in table.items()
    for path in paths
]


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in TABLES}))
def test_the_tables_name_real_fields(kind: str) -> None:
    (found,) = (each for each in kinds.KINDS if each.kind == kind and each.group != "gateway.networking.k8s.io")
    for path in (path for name, path in TABLES if name == kind):
        node: inspect.Type = inspect.type_info(found.type)
        plain, _, values = path.partition("=")
        for step in re.findall(r"\[\]|\{\}|[^.\[\]{}]+", plain.removesuffix(".**")):
            node = bare(node)
            if step == "[]":
                assert isinstance(node, inspect.VarTupleType), path
                node = node.item_type
            elif step == "{}":
                assert isinstance(node, inspect.DictType), path
                node = node.value_type
            else:
                assert isinstance(node, inspect.StructType), path
                fields = {each.encode_name: each.type for each in node.fields}
                assert step in fields, path
                node = fields[step]
        if values:
            literal = bare(node)
            assert isinstance(literal, (inspect.LiteralType, inspect.StrType)), path
            if isinstance(literal, inspect.LiteralType):
                assert set(values.split("|")) <= set(map(str, literal.values)), path


def bare(node: inspect.Type) -> inspect.Type:
    while isinstance(node, (inspect.Metadata, inspect.UnionType)):
        if isinstance(node, inspect.Metadata):
            node = node.type
        else:
            (node,) = (each for each in node.types if not isinstance(each, inspect.NoneType))
    return node
