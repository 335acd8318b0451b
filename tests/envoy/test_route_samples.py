"""Istio's published routing documents: every table made of them is accepted by the real Envoy, and each field that
lateen has no use for is listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from lateen.api import kinds
from lateen.api.codec import decode
from lateen.api.coverage import findings
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.route import route_configuration, route_names
from lateen.intent.scope import ProxyKind, Scope
from tests.envoy.harness import ROUTE, Validator
from tests.paths import SHARED, shared

FOLDERS = (
    "samples/istio/bookinfo",
    "samples/istio/httpbin",
    "samples/istio/helloworld",
    "samples/istio/tcp-echo",
    "samples/istio/multicluster",
    "samples/istio/websockets",
    "samples/istio-tutorial",
)


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file of kinds lateen knows, with a namespace."""
    found: list[dict[str, Any]] = []
    for raw in cast("list[dict[str, Any] | None]", list(yaml.safe_load_all(path.read_text()))):
        if raw and kinds.by_api(str(raw.get("apiVersion")), str(raw.get("kind"))):
            raw["metadata"].setdefault("namespace", "default")
            found.append(raw)
    return found


def files() -> list[Path]:
    """The sample files with a VirtualService."""
    return sorted(
        path
        for folder in FOLDERS
        for path in (SHARED / folder).rglob("*.y*ml")
        if "kind: VirtualService" in path.read_text()
    )


def services(folder: str) -> list[Object]:
    """The Services of all files in a folder."""
    return [
        decode(raw)
        for path in sorted((SHARED / folder).rglob("*.y*ml"))
        for raw in documents(path)
        if raw["kind"] == "Service"
    ]


def test_the_samples_are_there() -> None:
    for folder in FOLDERS:
        shared(folder)
    assert len(files()) >= 45


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_accepted(path: Path, validator: Validator, record_property: Callable[[str, object], None]) -> None:
    folder = next(each for each in FOLDERS if path.is_relative_to(SHARED / each))
    raws = documents(path)
    unused = [f"{raw['kind']} {finding.path}" for raw in raws for finding in unused_fields(raw)]
    record_property("fields without effect", ", ".join(unused) or "none")
    assert unused == []
    written = [decode(raw) for raw in raws]
    graph = Graph()
    graph.commit(transaction([*services(folder), *written]))
    scopes = {Scope(ProxyKind.SIDECAR, each.namespace) for each in written}
    scopes |= {
        Scope(ProxyKind.ROUTER, "istio-system", tuple(sorted(each.spec.selector.items())))
        for each in written
        if isinstance(each, Gateway)
    }
    sources = {each.ref for each in written if isinstance(each, VirtualService) and each.spec.http}
    for scope in sorted(scopes, key=str):
        made = [graph.pull(route_configuration, scope, name) for name in graph.pull(route_names, scope)]
        tables = [each for each in made if each is not None]
        assert validator.accepts([(ROUTE, each) for each in tables]) == []
        sources -= {ref for each in tables for ref in each.origins}
    assert sources == set(), "not in any table"


def unused_fields(raw: dict[str, Any]) -> list[Any]:
    """What lateen says of fields of a routing document that have no effect."""
    kind = kinds.by_api(raw["apiVersion"], raw["kind"])
    assert kind is not None
    if raw["kind"] not in ("VirtualService", "Gateway", "DestinationRule", "ServiceEntry"):
        return []
    return list(findings(kind, raw, decode(raw).ref))
