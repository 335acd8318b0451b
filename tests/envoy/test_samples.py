"""Everything generated from Istio's own samples is accepted by the real Envoy.

Each file of `../shared/samples` is a mesh of its own; proxies are the Pods of its Deployments, the routers its
Gateways select, and a client of the default namespace. Documents of kinds that aren't translated, and documents of
API versions that no longer exist, are counted in the report.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from lateen.api.codec import decode
from lateen.api.core.deployment import Deployment
from lateen.api.istio.gateway import Gateway
from lateen.api.kinds import by_api
from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.intent.scope import ProxyKind, Scope
from tests.envoy.harness import Validator
from tests.golden.golden import resources_of
from tests.paths import shared

TRANSLATED = {
    "ConfigMap",
    "DestinationRule",
    "Gateway",
    "PeerAuthentication",
    "Secret",
    "Service",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
}
RUN = {"Deployment", "Job", "Namespace", "Pod", "ServiceAccount"}


def test_samples_are_accepted(validator: Validator, capsys: pytest.CaptureFixture[str]) -> None:
    root = shared("samples")
    left: Counter[str] = Counter()
    refused: list[str] = []
    translated: Counter[str] = Counter()
    count = 0
    for path in sorted(root.rglob("*.y*ml")):
        found = list(_objects(path, left))
        translated.update(each.KIND for each in found if each.KIND in TRANSLATED)
        if not any(each.KIND in TRANSLATED for each in found):
            continue
        graph = Graph()
        graph.commit(transaction(found))
        for scope in _scopes(found):
            resources = resources_of(graph, scope)
            count += len(resources)
            who = f"{path.relative_to(root)} for {scope.kind} {dict(scope.labels)}"
            refused += [
                f"{who}: {error}" for error in validator.accepts((kind.type_url, each) for kind, each in resources)
            ]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{count} resources from {sum(translated.values())} documents: {dict(translated.most_common())}\n"
            f"documents left aside: {dict(left.most_common())}\n"
        )
    assert refused == []
    assert translated["VirtualService"] >= 50
    assert translated["DestinationRule"] >= 20


def _objects(path: Path, left: Counter[str]) -> Iterable[Object]:
    try:
        documents = cast("list[dict[str, Any] | str | None]", list(yaml.safe_load_all(path.read_text())))
    except yaml.YAMLError:  # templates
        left["files that are no YAML"] += 1
        return
    for raw in documents:
        if not isinstance(raw, dict):
            continue
        kind = by_api(str(raw.get("apiVersion")), str(raw.get("kind")))
        if kind is None or raw["kind"] not in TRANSLATED | RUN:
            left[f"{raw.get('kind')} {raw.get('apiVersion')}"] += 1
            continue
        raw["metadata"].setdefault("namespace", "default")
        yield decode(raw)


def _scopes(objects: Iterable[Object]) -> Iterable[Scope]:
    found = {Scope(ProxyKind.SIDECAR, "default", (("app", "client"),)): None}
    for each in objects:
        if isinstance(each, Gateway):
            found[Scope(ProxyKind.ROUTER, each.namespace, tuple(sorted(each.spec.selector.items())))] = None
        elif isinstance(each, Deployment):
            labels = each.spec.template.metadata.labels
            found[Scope(ProxyKind.SIDECAR, each.namespace, tuple(sorted(labels.items())))] = None
    return found
