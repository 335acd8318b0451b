"""The mesh configuration is checked where it is written: as text in a ConfigMap."""

from __future__ import annotations

import pytest

from lateen.api.check import check
from lateen.api.mesh.check import IMPLEMENTED
from lateen.api.mesh.config import MeshConfig
from lateen.api.shape import Faults, check_struct
from lateen.lib.yaml import documents


def said(mesh: str, name: str = "istio", namespace: str = "istio-system") -> list[str]:
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  mesh: |\n"
    text += "".join(f"    {line}\n" for line in mesh.splitlines())
    (document,) = documents(text, "f.yaml")
    return [f"{each.level.value} {each.path}: {each.message}" for each in check(document)]


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        ("accessLogFile: 5", "error data.mesh: accessLogFile: expected text, found number 5"),
        ("connectTimeout: 5", "error data.mesh: connectTimeout: expected a duration, found number 5"),
        ("outboundTrafficPolicy: {mode: ALL}", 'error data.mesh: outboundTrafficPolicy.mode: "ALL" is not one of'),
        ("a: [", "error data.mesh: line 2: "),
        ("- a", "error data.mesh: the configuration must be a mapping of fields"),
        ("nothing: 5", 'warning data.mesh: nothing: there is no field "nothing" here'),
        ("enableTracing: true", "warning data.mesh: enableTracing is not implemented yet"),
        ("defaultConfig: {concurrency: 2}", "warning data.mesh: defaultConfig.concurrency is not implemented yet"),
    ],
)
def test_what_is_said(mesh: str, expected: str) -> None:
    (found,) = said(mesh)
    assert found.startswith(expected)


@pytest.mark.parametrize("mesh", ["", "trustDomain: a.b\nenableAutoMtls: false\nconnectTimeout: 1s"])
def test_good(mesh: str) -> None:
    assert said(mesh) == []


def test_other_config_maps_are_not_looked_into() -> None:
    assert said("- a", name="other") == []
    assert said("- a", namespace="default") == []


def test_the_list_of_implemented_fields_names_real_ones() -> None:
    for dotted in IMPLEMENTED:
        raw: object = None
        for part in reversed(dotted.split(".")):
            raw = {part: raw}
        faults: Faults = []
        check_struct(MeshConfig, raw, (), faults)
        assert faults == [], dotted
