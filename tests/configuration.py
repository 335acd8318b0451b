"""Configuration as text in tests: YAML documents to objects, and a graph that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import yaml

from lateen.api.codec import decode
from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph


def objects(text: str, namespace: str = "default") -> list[Object]:
    """The objects of YAML documents; those without a namespace get that one."""
    found: list[Object] = []
    for raw in cast("Iterable[dict[str, Any] | None]", yaml.safe_load_all(text)):
        if raw is not None:
            raw["metadata"].setdefault("namespace", namespace)
            found.append(decode(raw))
    return found


def graph_of(*texts: str) -> Graph:
    """A graph with the objects of some YAML texts, committed at once."""
    graph = Graph()
    graph.commit(transaction([each for text in texts for each in objects(text)]))
    return graph


def service(name: str, port: int = 9080, address: str = "10.96.0.1", namespace: str = "default") -> str:
    """A Service with one HTTP port, as a YAML document that ends with a separator."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{{name: http, port: {port}}}]}}
---"""


def virtual_service(name: str, spec: str, namespace: str = "default", created: str = "") -> str:
    """A VirtualService with a spec in YAML flow or block style, indented by two blanks, as a document."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
---"""
