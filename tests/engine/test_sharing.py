"""What one client is told of a host, all are told that see it alike, whatever is configured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.types import CDS, RDS
from lateen.intent.cluster import outbound_cluster, outbound_names
from lateen.intent.route_table import alone_ports, http_ports
from lateen.intent.scope import ProxyKind, Scope
from lateen.model.destination_rules import destination_rule
from lateen.model.listing import visible_services
from lateen.model.sharing import alike, apart, common
from lateen.model.virtual_services import mesh_virtual_service
from lateen.model.visibility import Client, visible
from tests.configuration import graph_of, objects, service

NAMESPACES = ("default", "b", "istio-system")
CLIENTS = (*map(Client, NAMESPACES), Client("b", rules=("a",)), Client("default", router=True))
NAMES = ("a", "b")
HOSTS = ("a", "b.default.svc.cluster.local", "x.example", "*.example", "*.default.svc.cluster.local", "*")
ASKED = (*(f"{name}.{namespace}.svc.cluster.local" for name in NAMES for namespace in NAMESPACES), *HOSTS[2:])
EXPORTS = ("['*']", "['.']", "[b]", "[]", "['~']")

names, namespaces, exports = map(st.sampled_from, (NAMES, NAMESPACES, EXPORTS))


@st.composite
def services(draw: st.DrawFn) -> Object:
    found = service(draw(names), 80, "10.96.0.1", draw(namespaces))
    export = draw(st.sampled_from(["*", ".", "b", ""]))
    if export:
        found = found.replace("metadata: {", f"metadata: {{annotations: {{networking.istio.io/exportTo: '{export}'}}, ")
    if draw(st.booleans()):
        return objects(found)[0]
    alias = draw(st.sampled_from(ASKED[:6]))
    return objects(found.replace("spec: {", f"spec: {{type: ExternalName, externalName: {alias}, "))[0]


@st.composite
def others(draw: st.DrawFn) -> Object:
    host, export = draw(st.sampled_from(HOSTS)), draw(exports)
    spec = {
        "DestinationRule": f"host: '{host}', trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}"
        + draw(st.sampled_from(["", ", workloadSelector: {matchLabels: {app: a}}"])),
        "VirtualService": f"hosts: ['{host}'], http: [{{route: [{{destination: {{host: {draw(names)}}}}}]"
        + draw(st.sampled_from(["", ", match: [{sourceNamespace: b}]"]))
        + "}]",
        "ServiceEntry": f"hosts: ['{'x.example' if host == '*' or '.' not in host else host}'], resolution: DNS, "
        f"ports: [{{number: {draw(st.sampled_from([80, 81]))}, name: http, protocol: HTTP}}]",
    }
    kind = draw(st.sampled_from(sorted(spec)))
    return objects(
        f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {draw(names)}, "
        f"namespace: {draw(namespaces)}}}\nspec: {{{spec[kind]}, exportTo: {export}}}\n"
    )[0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(services(), others()), max_size=6))
def test_what_is_made_for_anybody_is_right_for_everybody(configured: list[Object]) -> None:
    graph = Graph()
    graph.commit(transaction(configured))
    for client in CLIENTS:
        for host in ASKED:
            by = graph.pull(alike, client, host)
            assert graph.pull(visible, client, host) == graph.pull(visible, by, host), (client, host)
            assert graph.pull(destination_rule, client, host) == graph.pull(destination_rule, by, host), (client, host)
            if not client.router:
                here, there = (graph.pull(mesh_virtual_service, each, host) for each in (client, by))
                assert here == there, (client, host)
            for port in (80, 81):
                name = f"outbound|{port}||{host}"
                assert graph.pull(outbound_cluster, client, name) == graph.pull(outbound_cluster, by, name)
        by = graph.pull(common, client)
        assert graph.pull(visible_services, client) == graph.pull(visible_services, by)
        assert graph.pull(outbound_names, client) == graph.pull(outbound_names, by)
        if not client.router:
            assert graph.pull(http_ports, client) == graph.pull(http_ports, by)
            for host in ASKED:
                assert graph.pull(alone_ports, client, host) == graph.pull(alone_ports, by, host)


def test_only_what_is_its_own_sets_a_client_apart() -> None:
    graph = graph_of(
        service("a", 80, "10.96.0.1", "default"),
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mine, namespace: b}
spec: {host: a.default.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: private, namespace: b}
spec: {hosts: ["*.example"], exportTo: ["."], http: [{directResponse: {status: 200}}]}
""",
    )
    assert graph.pull(apart, Client("default")).empty
    assert graph.pull(apart, Client("c")).empty
    own = graph.pull(apart, Client("b"))
    assert (own.exact, own.patterns) == ({"a.default.svc.cluster.local"}, ("*.example",))
    assert "x.example" in own
    assert "b.default.svc.cluster.local" not in own


@pytest.mark.parametrize("services_count", [10, 100])
def test_another_namespace_costs_nothing_but_names(services_count: int) -> None:
    """Clusters are made once, and of the table only the virtual hosts of the own namespace."""
    hosts = [service(f"s{number}", 80, f"10.96.0.{number}", "default") for number in range(services_count)]
    graph = graph_of(*hosts, service("own", 80, "10.96.1.1", "b"))
    ran: dict[str, list[str]] = {}
    for namespace in ("a", "c", "b"):
        scope = Scope(ProxyKind.SIDECAR, namespace)
        with graph.tracing() as ran[namespace]:
            for name in graph.pull(CDS.names, scope):
                graph.pull(CDS.resource, scope, name)
            graph.pull(RDS.resource, scope, "80")
    made = {
        namespace: [each for each in found if each.startswith(("outbound(", "sidecar_fragment(", "visible("))]
        for namespace, found in ran.items()
    }
    assert len(made["a"]) > 2 * services_count
    assert made["c"] == []
    assert len(made["b"]) == 1, "the virtual host that answers to a short name too"
