"""YAML and JSON with positions: Kubernetes' meaning of scalars, all errors with their place, bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.lib.findings import Position
from lateen.lib.yaml import YamlError, documents, format_path, parse, parse_path, value


def raw(text: str) -> Any:
    return value(text).raw


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("08", 8.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("yes", True),
        ("y", True),
        ("Off", False),
        ("n", False),
        ("nO", "nO"),
        ("~", None),
        ("null", None),
        ("1:30", "1:30"),
        ("2001-12-14", "2001-12-14"),
        ("10.0.0.1", "10.0.0.1"),
        ("10s", "10s"),
        ("-", [None]),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("!!str 1", "1"),
        ("!!float 1", 1),
        ("=", "="),
        ("1e", "1e"),
        ("_1", "_1"),
    ],
)
def test_scalars(text: str, expected: object) -> None:
    found = raw(f"a: {text}" if text != "-" else "a:\n-")["a"]
    assert found == expected
    assert type(found) is type(expected)


def test_keys_are_their_text() -> None:
    assert raw("on: 1\n8080: 2\nnull: 3\n010: 4") == {"on": 1, "8080": 2, "null": 3, "010": 4}


def test_block_scalars_and_merge() -> None:
    text = "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\ntext: |\n  a\n  ---b\n"
    assert raw(text) == {"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}, "text": "a\n---b\n"}
    assert value(text, "f").position("use.x") == Position("f", 1, 14)


def test_positions() -> None:
    text = "# one\n---\nkind: A\nspec:\n  http:\n  - timeout: 5s\n    match:\n      - uri: {exact: /}\n"
    (document,) = documents(text, "f.yaml")
    assert document.position("spec.http[0].timeout") == Position("f.yaml", 6, 14)
    assert document.position("spec.http[0].timeout", key=True) == Position("f.yaml", 6, 5)
    assert document.position(("spec", "http", 0, "match")) == Position("f.yaml", 7, 5)
    assert document.position("spec.http[0].match[0].uri.exact") == Position("f.yaml", 8, 22)
    assert document.position("spec.http[3].nothing") == Position("f.yaml", 5, 3)
    assert document.position("") == Position("f.yaml", 3, 1)


def test_many_documents_and_lists() -> None:
    text = (
        "---\n# nothing\n---\na: 1\n...\n---\nkind: List\nitems:\n- a: 2\n- kind: ServiceList\n  items: [{a: 3}]\n---\n"
    )
    found = documents(text, "f")
    assert [each.raw for each in found] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [each.position("a").line for each in found] == [4, 9, 11]


def test_directive_belongs_to_the_document_after_it() -> None:
    assert [each.raw for each in documents("%YAML 1.1\n---\na: 1\n---\nb: 2\n")] == [{"a": 1}, {"b": 2}]


def test_json() -> None:
    text = '{\n  "a": "\\ud83d\\ude00",\n\t"b": [1, 2.5, null, true]\n}'
    assert raw(text) == {"a": "\U0001f600", "b": [1, 2.5, None, True]}
    assert value('{"a": {"b": 1}}', "f").position("a.b") == Position("f", 1, 13)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3", 3, 2, "expected ',' or ']'"),
        ("a:\n\tb: 1", 2, 1, "tabs"),
        ("a: b: c", 1, 5, "colon in quotes"),
        ("a: 1\na: 2", 2, 1, "the first is on line 3"),
        ("a: *x", 1, 4, "undefined alias"),
        ("a: .inf", 1, 4, "no JSON form"),
        ("a: 1e999", 1, 4, "too large"),
        ("a: !mine 1", 1, 4, "tag"),
        ("a: !mine {}", 1, 4, "tag"),
        ("a: !!int x", 1, 4, "tag"),
        ("? [a]\n: 1", 1, 3, "a key must be text"),
        ("a: &x\n  - *x", 1, 4, "nested more than 100"),
        ("<<: 1", 1, 5, "only mappings"),
        ("a: b\nc: \x01", 2, 4, "does not allow"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        documents(f"ok: 1\n---\n{text}", "f.yaml")
    (finding,) = caught.value.findings
    assert finding.position == Position("f.yaml", line + 2, column)
    assert words in str(finding)


def test_a_broken_document_does_not_hide_the_others() -> None:
    found, findings = parse("a: 1\n---\nb: [\n---\nc: 3\n---\nd: }\n", "f")
    assert [each.raw for each in found] == [{"a": 1}, {"c": 3}]
    assert [each.position.line for each in findings if each.position] == [4, 7]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "a: " + "[" * 101 + "]" * 101])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(YamlError, match="more than 100 deep"):
        documents(text)


def test_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(YamlError, match="aliases expand"):
        documents("\n".join(lines))


def test_size_is_bounded() -> None:
    with pytest.raises(YamlError, match="characters"):
        documents("#" * (32 * 1024 * 1024 + 1))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_json_is_read_as_json(body: dict[str, Any]) -> None:
    body.pop("kind", None)
    text = json.dumps(body)
    (found,) = documents(text) if body else documents('{"x": 1}')
    assert found.raw == (json.loads(text) if body else {"x": 1})


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,?\n\t 019.<~", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    found, findings = parse(text, "f")
    assert all(finding.position for finding in findings)
    json.dumps([each.raw for each in found], allow_nan=False)


@given(st.lists(st.text(min_size=1) | st.integers(0, 9)))
def test_paths_round_trip(steps: list[str | int]) -> None:
    assert parse_path(format_path(tuple(steps))) == tuple(steps)
