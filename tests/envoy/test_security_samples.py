"""The published samples of security policies: each applies without a finding that keeps it out, and is accepted by the
real Envoy, in a sidecar and in a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from lateen.api.check import check
from lateen.api.codec import decode
from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.envoy.types import TYPES
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.findings import Level
from lateen.lib.yaml import documents
from tests.envoy.harness import Validator
from tests.paths import SHARED, shared


def files() -> list[Path]:
    """The sample files with objects of security.istio.io."""
    return sorted(each for each in (SHARED / "samples").rglob("*.y*ml") if "security.istio.io" in each.read_text())


def test_the_samples_are_there() -> None:
    shared("samples/istio-tutorial")
    assert len(files()) >= 9


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_accepted(path: Path, validator: Validator) -> None:
    graph = Graph()
    count = 0
    for document in documents(path.read_text(), path.name):
        if "security.istio.io" not in str(document.raw.get("apiVersion")):
            continue
        refused = [each for each in check(document) if each.level is Level.ERROR]
        assert refused == []
        metadata = document.raw["metadata"] | {"namespace": document.raw["metadata"].get("namespace", "default")}
        graph.commit(transaction([decode(document.raw | {"metadata": metadata})]))
        count += 1
    namespaces = ("default", "tutorial", "istio-system")
    labels = [(("app", name),) for name in ("customer", "preference", "recommendation")] + [
        (("istio", "ingressgateway"),)
    ]
    for namespace in namespaces:
        for each in labels:
            kind = ProxyKind.ROUTER if each[0][0] == "istio" else ProxyKind.SIDECAR
            scope = Scope(kind, namespace, each)
            resources = [
                (made.type_url, resource)
                for made in TYPES
                for name in graph.pull(made.names, scope)
                if (resource := graph.pull(made.resource, scope, name)) is not None
            ]
            assert validator.accepts(resources) == []
    assert count
