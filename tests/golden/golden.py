"""Golden cases: a folder with `in.yaml` (objects), `proxy.yaml` (who asks, what is shown) and `xds.yaml` (the answer).

`proxy.yaml` has `kind` (sidecar, router), `namespace`, `labels`, `hostSockets` (port: path) and `show`: patterns of
resource names per type (`CDS: ["outbound|*"]`); without it everything is shown. `pytest --update-golden` writes the
answers anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import yaml
from google.protobuf import symbol_database
from google.protobuf.json_format import MessageToJson

from lateen.engine import Graph
from lateen.envoy.resource import Resource, ResourceType
from lateen.envoy.types import TYPES
from lateen.intent.scope import Capabilities, HostSocket, ProxyKind, Scope
from tests.configuration import graph_of

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/*/proxy.yaml"))


def name_of(case: Path) -> str:
    """`area/case`, for reports."""
    return f"{case.parent.name}/{case.name}"


def resources(case: Path) -> list[tuple[ResourceType, Resource]]:
    """All resources of the proxy of a case, in push order."""
    graph, scope = _graph(case), _scope(_proxy(case))
    return list(resources_of(graph, scope))


def resources_of(graph: Graph, scope: Scope) -> list[tuple[ResourceType, Resource]]:
    """All resources that a wildcard subscriber of a Scope gets, in push order."""
    found: list[tuple[ResourceType, Resource]] = []
    for kind in TYPES:
        for name in graph.pull(kind.names, scope):
            made = graph.pull(kind.resource, scope, name)
            assert made is not None, f"{kind.short} {name} is listed and isn't there"
            found.append((kind, made))
    return found


def answer(case: Path) -> str:
    """What `xds.yaml` must be."""
    show = cast("dict[str, list[str]] | None", _proxy(case).get("show"))
    shown: dict[str, dict[str, Any]] = {}
    for kind, each in resources(case):
        if show is None or any(_matches(each.name, pattern) for pattern in show.get(kind.short, ())):
            shown.setdefault(kind.short, {})[each.name] = decoded(kind, each)
    return yaml.safe_dump(shown, sort_keys=True, width=120)


def decoded(kind: ResourceType, each: Resource) -> dict[str, Any]:
    """A resource as JSON, what is packed inside included."""
    name = kind.type_url.partition("/")[2]
    message = symbol_database.Default().GetSymbol(name)()
    message.ParseFromString(each.body)
    return json.loads(MessageToJson(message, preserving_proto_field_name=True))


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern)


def _graph(case: Path) -> Graph:
    return graph_of((case / "in.yaml").read_text())


def _proxy(case: Path) -> dict[str, Any]:
    return yaml.safe_load((case / "proxy.yaml").read_text())


def _scope(proxy: dict[str, Any]) -> Scope:
    sockets = tuple(HostSocket(port, path) for port, path in proxy.get("hostSockets", {}).items())
    return Scope(
        ProxyKind(proxy.get("kind", "sidecar")),
        proxy.get("namespace", "default"),
        tuple(sorted(proxy.get("labels", {}).items())),
        capabilities=Capabilities(sockets),
    )
