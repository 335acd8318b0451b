"""Credentials go to gateways of the Secret's own namespace and to nobody else."""

from __future__ import annotations

import base64

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret

from lateen.envoy.secret import secret_resource
from lateen.intent.scope import ProxyKind, Scope
from tests.configuration import graph_of


def _secret(name: str, **values: str) -> str:
    written = {key.replace("_", "."): base64.b64encode(each.encode()).decode() for key, each in values.items()}
    data = ", ".join(f"{key}: {each}" for key, each in written.items())
    return f"{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: edge}}, data: {{{data}}}}}\n---\n"


GATEWAY = Scope(ProxyKind.ROUTER, "edge")
GRAPH = graph_of(
    _secret("pair", tls_crt="CERT", tls_key="KEY", ca_crt="OWN"),
    _secret("old", cert="CERT", key="KEY"),
    _secret("old-cacert", cacert="OTHER"),
    _secret("half", tls_crt="CERT"),
)


def _asked(name: str, scope: Scope = GATEWAY) -> Secret | None:
    made = GRAPH.pull(secret_resource, scope, name)
    return Secret.FromString(made.body) if made is not None else None


def test_a_pair_and_its_authority() -> None:
    pair = _asked("kubernetes://pair")
    assert pair is not None
    assert pair.name == "kubernetes://pair"
    assert pair.tls_certificate.certificate_chain.inline_bytes == b"CERT"
    assert pair.tls_certificate.private_key.inline_bytes == b"KEY"
    authority = _asked("kubernetes://pair-cacert")
    assert authority is not None
    assert authority.validation_context.trusted_ca.inline_bytes == b"OWN"


def test_the_generic_keys_and_a_secret_for_the_authority() -> None:
    assert _asked("kubernetes://old") is not None
    authority = _asked("kubernetes://old-cacert")
    assert authority is not None
    assert authority.validation_context.trusted_ca.inline_bytes == b"OTHER"


def test_other_namespaces_and_sidecars_get_nothing() -> None:
    assert _asked("kubernetes://pair", Scope(ProxyKind.ROUTER, "elsewhere")) is None
    assert _asked("kubernetes://pair", Scope(ProxyKind.SIDECAR, "edge")) is None
    assert _asked("kubernetes://edge/pair") is None


def test_half_a_pair_is_nothing() -> None:
    assert _asked("kubernetes://half") is None
    assert _asked("kubernetes://none") is None
    assert _asked("pair") is None
