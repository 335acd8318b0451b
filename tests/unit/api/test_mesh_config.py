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
        ("meshMTLS: {cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA265]}", "error data.mesh: meshMTLS.cipherSuites[0]: "),
        ("meshMTLS: {minProtocolVersion: TLSV1_1}", 'error data.mesh: meshMTLS.minProtocolVersion: "TLSV1_1" is not'),
        ("tlsDefaults: {ecdhCurves: [P-255]}", 'error data.mesh: tlsDefaults.ecdhCurves[0]: "P-255" is none that'),
        (
            "meshMTLS: {cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256], minProtocolVersion: TLSV1_3}",
            "warning data.mesh: meshMTLS.cipherSuites: cipher suites can be chosen up to TLS 1.2",
        ),
        (
            "meshMTLS: {cipherSuites: [AES128-SHA]}",
            "warning data.mesh: meshMTLS.cipherSuites: none of them goes with the certificates of the mesh",
        ),
        ("trustDomain: a/b", 'error data.mesh: trustDomain: "a/b" is no trust domain'),
        ("trustDomainAliases: [A]", 'error data.mesh: trustDomainAliases[0]: "A" is no trust domain'),
        ("caCertificates: [{pem: x}]", "error data.mesh: caCertificates[0].pem: "),
        ("caCertificates: [{trustDomains: [a]}]", "error data.mesh: caCertificates[0]: it needs one of pem and"),
        (
            "caCertificates: [{spiffeBundleUrl: 'file:/x'}]",
            "error data.mesh: caCertificates[0].spiffeBundleUrl: it is no address of HTTP",
        ),
        (
            "caCertificates: [{spiffeBundleUrl: 'http://x/'}]",
            "warning data.mesh: caCertificates[0].spiffeBundleUrl: whoever is on the way",
        ),
        (
            "caCertificates: [{spiffeBundleUrl: 'https://x/', certSigners: [a]}]",
            "warning data.mesh: caCertificates[0].certSigners: it is not implemented yet",
        ),
        (
            "outboundTrafficPolicy: {tls: {mode: SIMPLE}}",
            "error data.mesh: outboundTrafficPolicy.tls: mode ALLOW_ANY leaves traffic as it is",
        ),
        (
            "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, tls: {mode: ISTIO_MUTUAL}}",
            "error data.mesh: outboundTrafficPolicy.tls.mode: hosts outside of the mesh have no certificate of it",
        ),
        (
            "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, tls: {mode: SIMPLE, credentialName: x}}",
            "error data.mesh: outboundTrafficPolicy.tls.credentialName: sidecars get no Secrets",
        ),
        ("enableTracing: true", "warning data.mesh: enableTracing is not implemented yet"),
        ("defaultConfig: {statusPort: 2}", "warning data.mesh: defaultConfig.statusPort is not implemented yet"),
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
