"""Every structural error has its own sentence, place and remedy; all are collected; what passes decodes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from lateen.api import codec, kinds
from lateen.api.check import check, check_raw
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import Document, documents


def findings(text: str) -> list[Finding]:
    (document,) = documents(text, "f.yaml")
    return check(document)


def errors(text: str) -> list[str]:
    return [f"{each.path}: {each.message} | {each.remedy}" for each in findings(text) if each.level is Level.ERROR]


VS = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
"""


def vs(http: str) -> list[str]:
    return errors(VS + "".join(f"  {line}\n" for line in http.strip().splitlines()))


def test_good_document() -> None:
    assert vs("- route:\n  - destination: {host: reviews}") == []


def test_all_errors_are_collected_with_their_places() -> None:
    text = VS.replace("name: reviews", "name: Reviews_") + (
        "  - timout: 5s\n"
        "    timeout: 5\n"
        "    retries: {attempts: '3', perTryTimeout: 2x}\n"
        "    route:\n"
        "    - destination: {hots: reviews}\n"
        "      weight: heavy\n"
    )
    found = [(each.path, each.position.line, each.position.column) for each in findings(text) if each.position]
    assert found == [
        ("metadata.name", 3, 18),
        ("spec.http[0].timout", 7, 5),
        ("spec.http[0].timeout", 8, 14),
        ("spec.http[0].retries.attempts", 9, 25),
        ("spec.http[0].retries.perTryTimeout", 9, 45),
        ("spec.http[0].route[0].destination", 11, 7),
        ("spec.http[0].route[0].destination.hots", 11, 21),
        ("spec.http[0].route[0].weight", 12, 15),
    ]


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ("- timout: 5s", 'spec.http[0].timout: there is no field "timout" here | did you mean "timeout"?'),
        ("- Timeout: 5s", 'spec.http[0].Timeout: there is no field "Timeout" here | did you mean "timeout"?'),
        ("- timeout: 5", 'spec.http[0].timeout: expected a duration, found number 5 | add a unit: "5s"'),
        ("- timeout: 0s", 'spec.http[0].timeout: "0s" is shorter than 1ms | leave the field out, or set more'),
        (
            "- timeout: 5 s",
            "spec.http[0].timeout: '5 s' is not a duration like 1h30m, 5s or 250ms"
            " | write numbers with units: h, m, s, ms",
        ),
        ("- name: yes", "spec.http[0].name: expected text, found true | put it in quotes"),
        ("- name: 5", "spec.http[0].name: expected text, found number 5 | put it in quotes"),
        ("- route: {}", "spec.http[0].route: expected a list, found a mapping | start each item with '- '"),
        ("- match: [~]", "spec.http[0].match[0]: expected an item, found nothing | "),
        ("- fault: 5", "spec.http[0].fault: expected a mapping of fields, found number 5 | "),
        (
            "- corsPolicy: {unmatchedPreflights: FORWAD}",
            'spec.http[0].corsPolicy.unmatchedPreflights: "FORWAD" is not one of FORWARD, IGNORE, UNSPECIFIED'
            ' | did you mean "FORWARD"?',
        ),
        (
            "- match: [{uri: {exact: /, prefix: /}}]",
            'spec.http[0].match[0].uri.prefix: "exact" and "prefix" exclude each other | keep one of them',
        ),
        (
            "- match: [{port: 99999999999}]",
            "spec.http[0].match[0].port: expected 0 to 4294967295, found 99999999999 | ",
        ),
        ("- match: [{port: 80.5}]", "spec.http[0].match[0].port: expected a whole number, found number 80.5 | "),
        (
            "- match: [{port: '80'}]",
            'spec.http[0].match[0].port: expected a whole number, found text "80" | leave the quotes out',
        ),
        (
            "- match: [{ignoreUriCase: 'true'}]",
            'spec.http[0].match[0].ignoreUriCase: expected true or false, found text "true" | leave the quotes out',
        ),
        (
            "- headers: {request: {set: {x: }}}",
            'spec.http[0].headers.request.set.x: "x" has no value | write "" for an empty text',
        ),
        (
            "- directResponse: {status: 200, body: {bytes: '?'}}",
            "spec.http[0].directResponse.body.bytes: the value is not",
        ),
    ],
)
def test_structural_errors(http: str, expected: str) -> None:
    assert [each for each in vs(http) if each.startswith(expected)], vs(http)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "a document must be an object"),
        ("{}", '"kind" is missing'),
        ("kind: VirtualService", '"apiVersion" is missing | write apiVersion: networking.istio.io/v1'),
        ("apiVersion: v1\nkind: Servce", 'no kind "Servce" in v1 | did you mean "Service"?'),
        ("apiVersion: v1\nkind: VirtualService", 'no kind "VirtualService" in v1 | VirtualService is in networking'),
        ("apiVersion: apps/v1beta1\nkind: Deployment", "Deployment has no version v1beta1 | use apps/v1"),
        ("apiVersion: policy/v1\nkind: PodDisruptionBudget", "PodDisruptionBudget (policy/v1) is not supported yet"),
        ("apiVersion: x/v1\nkind: Thing", 'no kind "Thing" in x/v1'),
        ("apiVersion: 1\nkind: Pod", '"apiVersion" is missing | write apiVersion: v1'),
        ("apiVersion: v1\nkind: ConfigMap", "metadata"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}", '"name" is missing | set metadata.name'),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a_b}", '"a_b" cannot be the name of a ConfigMap'),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: 1a}", '"1a" cannot be the name of a Service'),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}", '"a.b" cannot be the name of a Namespace'),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}", "a Namespace is in no namespace"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: B}", "cannot be the name of a namespace"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {a b: c}}", "cannot be the key of a label"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {a: b c}}", "cannot be the value of a label"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {a: 1}}", "expected text, found number 1"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {a b: c}}", "key of an annotation"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, lables: {}}", 'did you mean "labels"?'),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}", "not base64"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: 5}", "expected text"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "at least 1 items, found 0"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", '"spec" is missing | set "spec"'),
    ],
)
def test_errors_of_whole_documents(text: str, expected: str) -> None:
    assert any(expected in each for each in errors(text)), errors(text)


def test_secret_values_are_not_shown() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}\nstringData: {k: {a: hunter2}}"
    assert len(errors(text)) == 2
    assert "hunter2" not in "".join(errors(text))


def test_managed_metadata_status_and_nulls_are_fine() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, resourceVersion: '5', managedFields: [], labels: ,"
        " creationTimestamp: }\nspec: {containers: [{name: a, command: [x], args: }]}\n"
        "status: {podIP: 10.0.0.1, qosClass: Burstable, anything: {}}\n"
    )
    assert errors(text) == []
    assert codec.decode(documents(text)[0].raw).metadata.labels == {}


def test_a_status_that_does_not_fit_is_an_error() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\nstatus: {podIP: 5}"
    assert errors(text) == [
        "status: the status does not fit: Expected `str | null`, got `int` - at `$.podIP` | leave it out"
    ]


def test_position_only_with_a_file() -> None:
    (finding,) = check_raw({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A"}})
    assert finding.position is None
    assert finding.ref is not None
    assert str(finding.ref) == "ConfigMap/default/A"


# -- what passes decodes -------------------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["5s", "ALLOW", "*", "1Mi"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def values(node: inspect.Type) -> st.SearchStrategy[Any]:
    """JSON that mostly fits a type, and sometimes does not."""
    return st.one_of(fitting(node), fitting(node), fitting(node), ANY)


def fitting(node: inspect.Type) -> st.SearchStrategy[Any]:
    match node:
        case inspect.Metadata():
            return fitting(node.type)
        case inspect.UnionType():
            return st.sampled_from([each for each in node.types if not isinstance(each, inspect.NoneType)]).flatmap(
                fitting
            )
        case inspect.StructType():
            fields = {each.encode_name: each.type for each in node.fields}
            names = st.sets(st.sampled_from(sorted(fields)) if fields else st.nothing(), max_size=3)
            required = {each.encode_name for each in node.fields if each.required}
            return names.flatmap(
                lambda chosen: st.fixed_dictionaries({n: values(fields[n]) for n in chosen | required})
            )
        case inspect.VarTupleType():
            return st.lists(values(node.item_type), max_size=2)
        case inspect.DictType():
            return st.dictionaries(st.sampled_from(["a", "8080", "x-y"]), values(node.value_type), max_size=2)
        case inspect.LiteralType():
            return st.sampled_from(list(node.values))
        case inspect.StrType():
            return st.sampled_from(["a", "a.b", "*", "*/*", "", "/", "10.0.0.1", "[", "mesh", ".", "80"]) | st.text(
                max_size=5
            )
        case inspect.IntType() | inspect.FloatType():
            return st.sampled_from([0, 1, 80, 100, 200, 503, 65535, -1])
        case inspect.BoolType():
            return st.booleans()
        case inspect.CustomType():
            return st.sampled_from(["1s", "10ms", "5", "YQ==", "1Gi", "0s", "1h"])
        case _:
            return ANY


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda each: each.kind)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_check_never_fails_and_what_passes_decodes(kind: kinds.Kind, data: st.DataObject) -> None:
    body = data.draw(fitting(inspect.type_info(kind.type)))
    raw = body | {"apiVersion": kind.api_version, "kind": kind.kind}
    if data.draw(st.booleans()):
        raw["metadata"] = {"name": "a"}
    if all(each.level is not Level.ERROR for each in check(Document(raw, ""))):
        decoded = codec.decode(raw)
        assert codec.decode(codec.encode(decoded)) == decoded


@given(ANY)
def test_check_takes_any_json(raw: Any) -> None:
    check(Document(raw, ""))
