"""Route tables as text: `routes/<case>/in.yaml` becomes exactly `out.yaml`.

`pytest --update-golden` writes what comes out now; the difference is then read in review.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.json_format import MessageToJson

from lateen.envoy.resource import Resource
from lateen.envoy.route import route_configuration, route_names
from lateen.intent.scope import ProxyKind, Scope
from tests.configuration import graph_of

CASES = sorted(path.parent for path in (Path(__file__).parent / "routes").glob("*/in.yaml"))
SCOPES = {
    "sidecar": Scope(ProxyKind.SIDECAR, "default", (("app", "productpage"),)),
    "router": Scope(ProxyKind.ROUTER, "istio-system", (("istio", "ingressgateway"),)),
}


def tables(case: Path) -> dict[str, Resource]:
    """All route tables of a case, by proxy and name."""
    graph = graph_of((case / "in.yaml").read_text())
    found = {
        f"{kind} {name}": graph.pull(route_configuration, scope, name)
        for kind, scope in SCOPES.items()
        for name in graph.pull(route_names, scope)
    }
    return {name: table for name, table in found.items() if table is not None}


def as_text(found: dict[str, Resource]) -> str:
    """Tables as YAML."""
    shown: dict[str, dict[str, Any]] = {
        name: {
            "origins": [each.short for each in table.origins],
            "table": json.loads(MessageToJson(RouteConfiguration.FromString(table.body))),
        }
        for name, table in found.items()
    }
    return yaml.safe_dump(shown, sort_keys=True, width=120, default_flow_style=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, update_golden: bool) -> None:
    text = as_text(tables(case))
    golden = case / "out.yaml"
    if update_golden:
        golden.write_text(text)
    assert text == golden.read_text()
