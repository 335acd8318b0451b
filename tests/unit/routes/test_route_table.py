"""Which virtual hosts a table has, and under which names."""

from __future__ import annotations

from lateen.engine import Graph
from lateen.intent.destination import PASSTHROUGH
from lateen.intent.route_table import (
    GatewayHost,
    ServiceHost,
    gateway_hosts,
    gateway_routes,
    gateway_table,
    http_ports,
    sidecar_hosts,
    unknown_cluster,
)
from lateen.intent.scope import Proxy, ProxyKind, Scope, scope_of
from lateen.model.visibility import Client, client_of
from tests.configuration import graph_of, service, virtual_service

CLIENT = Client("default")
LABELS = (("istio", "ingressgateway"),)


def table(graph: Graph, port: int = 9080, client: Client = CLIENT) -> dict[str, ServiceHost]:
    return {each.host: each for each in graph.pull(sidecar_hosts, client, port)}


def gateway(spec: str, name: str = "front", created: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default, creationTimestamp: "{created}"}}
spec: {{selector: {{istio: ingressgateway}}, servers: [{spec}]}}
---"""


def server(hosts: str, port: int = 80, more: str = "") -> str:
    return f"{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: {hosts}{more}}}"


def front(graph: Graph, route: str = "http.80") -> dict[str, GatewayHost]:
    servers = graph.pull(gateway_table, "gateways", LABELS, route)
    return {each.host: each for each in graph.pull(gateway_hosts, "gateways", servers)}


def test_a_service_answers_to_its_names_and_address() -> None:
    graph = graph_of(service("reviews"))
    names = table(graph)["reviews.default.svc.cluster.local"].domains
    full = ("reviews.default.svc.cluster.local", "reviews.default.svc.cluster.local.")
    assert names == (*full, "reviews.default.svc", "reviews.default", "reviews", "10.96.0.1")
    assert table(graph, client=Client("other"))["reviews.default.svc.cluster.local"].domains == (
        *full,
        "reviews.default.svc",
        "reviews.default",
        "10.96.0.1",
    )


def test_only_http_ports_have_tables() -> None:
    tcp = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: 10.96.0.3, ports: [{name: tcp, port: 7000}, {name: web, port: 7001}, {name: http2-x, port: 7002}]}
---"""
    assert graph_of(service("reviews"), tcp).pull(http_ports, CLIENT) == (7001, 7002, 9080)


def test_pods_of_a_headless_service_have_names_below_it() -> None:
    graph = graph_of(service("db", address="None"))
    names = table(graph)["db.default.svc.cluster.local"].domains
    assert "*.db.default.svc.cluster.local" in names
    assert "*.db" in names
    assert "None" not in names


def test_no_name_is_in_a_table_twice() -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: default}
spec:
  hosts: [reviews, reviews.default]
  addresses: [10.96.0.1]
  resolution: DNS
  ports: [{number: 9080, name: http, protocol: HTTP}]
---"""
    found = table(graph_of(service("reviews"), entry))
    names = [name for each in found.values() for name in each.domains]
    assert len(names) == len(set(names))
    assert found["reviews"].domains[0] == "reviews"
    assert found["reviews.default"].domains[0] == "reviews.default"


def test_a_name_that_only_a_virtual_service_knows() -> None:
    alone = virtual_service("alone", "{hosts: [shop.example, '*.shop.example', '*.cluster.local'], http: [{}]}")
    beside = virtual_service("beside", "{hosts: [api.example, reviews], http: [{}]}")
    graph = graph_of(service("reviews"), alone, beside)
    assert graph.pull(http_ports, CLIENT) == (80, 9080)
    assert table(graph, 80)["shop.example"].domains == ("shop.example",)
    assert set(table(graph, 80)) == {"shop.example", "*.shop.example"}
    assert set(table(graph)) == {"api.example", "reviews.default.svc.cluster.local"}


def test_a_sidecar_resource_decides_about_unknown_names_before_the_mesh() -> None:
    mesh = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---"""
    sidecar = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: open, namespace: default}
spec: {workloadSelector: {labels: {app: open}}, outboundTrafficPolicy: {mode: ALLOW_ANY}}
---"""

    def passes(graph: Graph, app: str) -> bool:
        client = graph.pull(client_of, "default", (("app", app),), False)
        return graph.pull(unknown_cluster, client) == PASSTHROUGH

    assert passes(graph_of(), "open")
    assert not passes(graph_of(mesh), "open")
    assert passes(graph_of(mesh, sidecar), "open")
    assert not passes(graph_of(mesh, sidecar), "closed")


def test_a_gateway_host_is_what_server_and_virtual_service_share() -> None:
    graph = graph_of(
        gateway(server('["*.shop.example", "default/only.example"]')),
        virtual_service("exact", "{hosts: [a.shop.example, a.example], gateways: [front]}"),
        virtual_service("wide", '{hosts: ["*.example"], gateways: [default/front]}'),
        virtual_service("foreign", "{hosts: [only.example], gateways: [default/front]}", "other"),
        virtual_service("unbound", "{hosts: [b.shop.example]}"),
    )
    found = front(graph)
    assert {host: [each.virtual_service.name for each in entry.bindings] for host, entry in found.items()} == {
        "a.shop.example": ["exact"],
        "*.shop.example": ["wide"],
        "only.example": ["wide"],
    }
    assert found["a.shop.example"].name == "a.shop.example:80"


def test_servers_of_several_gateways_share_a_table() -> None:
    graph = graph_of(
        gateway(server('["*"]'), "one", "2026-01-01T00:00:00Z"),
        gateway(server('["a.example"]'), "two", "2026-01-02T00:00:00Z"),
        gateway(server('["a.example"]', 8443), "other"),
        virtual_service("vs", "{hosts: [a.example], gateways: [one, two]}"),
    )
    assert graph.pull(gateway_routes, "gateways", LABELS) == ("http.80", "http.8443")
    assert [each.gateway for each in front(graph)["a.example"].bindings] == ["default/one", "default/two"]


def test_https_only_needs_no_virtual_service() -> None:
    graph = graph_of(
        gateway(server('["a.example"]', more=", tls: {httpsRedirect: true}") + ", " + server('["b.example"]')),
        virtual_service("vs", "{hosts: [b.example], gateways: [front]}"),
    )
    assert {host: each.https_only for host, each in front(graph).items()} == {"a.example": True, "b.example": False}


def test_a_scope_without_a_gateway_has_no_table() -> None:
    scope = graph_of().pull(scope_of, Proxy(ProxyKind.ROUTER, "gateways", "gw", labels=LABELS))
    assert scope == Scope(ProxyKind.ROUTER, "gateways", LABELS)
    assert graph_of().pull(gateway_routes, scope.namespace, scope.labels) == ()
