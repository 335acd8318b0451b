"""Who counts the requests it sends: sidecars and gateways that can, unless the mesh wants none of it."""

from __future__ import annotations

import pytest

from lateen.engine import Graph
from lateen.envoy.listener import listener_resource, listener_resource_names
from lateen.envoy.request_counts import LOGGER
from lateen.intent.scope import Capabilities, Proxy, ProxyKind, scope_of
from tests.configuration import graph_of

MESH = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec: {selector: {app: front}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""
OFF = """---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "countRequests: false"}
"""
LABELS = {ProxyKind.SIDECAR: (("app", "web"),), ProxyKind.ROUTER: (("app", "front"),)}


def counting(graph: Graph, kind: ProxyKind, *, can: bool) -> set[str]:
    """The listeners whose connection managers count."""
    proxy = Proxy(kind, "default", "x", labels=LABELS[kind], capabilities=Capabilities(counts=can))
    scope = graph.pull(scope_of, proxy)
    made = [graph.pull(listener_resource, scope, name) for name in graph.pull(listener_resource_names, scope)]
    return {each.name for each in made if each is not None and LOGGER.encode() in each.body}


@pytest.mark.parametrize(("kind", "listener"), [(ProxyKind.SIDECAR, "0.0.0.0_80"), (ProxyKind.ROUTER, "0.0.0.0_8080")])
def test_who_counts(kind: ProxyKind, listener: str) -> None:
    assert counting(graph_of(MESH), kind, can=True) == {listener}
    assert counting(graph_of(MESH), kind, can=False) == set()
    assert counting(graph_of(MESH + OFF), kind, can=True) == set()
