"""Where connections go by the `tls` and `tcp` rules of VirtualServices."""

from __future__ import annotations

from lateen.engine import Graph
from lateen.intent.stream import StreamRoute, gateway_tcp_routes, gateway_tls_routes, tcp_routes, tls_routes
from lateen.model.gateways import GatewayServer, gateway_servers
from lateen.model.visibility import Client
from lateen.model.workloads import Labels
from tests.configuration import graph_of, service, virtual_service

CLIENT = Client("default")
DB = "db.default.svc.cluster.local"
LABELS = (("istio", "ingressgateway"),)


Shown = tuple[list[str], list[str], list[str]]


def shown(routes: tuple[StreamRoute, ...]) -> list[Shown]:
    """Destinations as `host:port/subset=weight`, server names and subnets of each route."""
    return [
        (
            [f"{to.host.partition('.')[0]}:{to.port}/{to.subset}={to.weight}" for to in each.destinations],
            list(each.server_names),
            list(each.subnets),
        )
        for each in routes
    ]


def tcp(graph: Graph, labels: Labels = (), port: int = 5432) -> list[Shown]:
    return shown(graph.pull(tcp_routes, CLIENT, labels, DB, port))


def server(protocol: str, hosts: str, mode: str = "") -> str:
    tls = f", tls: {{mode: {mode}}}" if mode else ""
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: front, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 443, name: x, protocol: {protocol}}}, hosts: {hosts}{tls}}}]
---"""


def only_server(graph: Graph) -> GatewayServer:
    (found,) = graph.pull(gateway_servers, "gateways", LABELS)
    return found


def test_weights_and_subnets_of_tcp_rules() -> None:
    spec = """
  hosts: [db]
  tcp:
  - match: [{destinationSubnets: [10.1.0.0/16], port: 5432}, {port: 9}]
    route: [{destination: {host: db, subset: v2}}]
  - match: [{sourceLabels: {app: batch}}]
    route: [{destination: {host: slow}}]
  - route: [{destination: {host: db, subset: v1}, weight: 80}, {destination: {host: db, subset: v2}, weight: 20},
            {destination: {host: db, subset: v3}, weight: 0}]
"""
    graph = graph_of(service("db", 5432), virtual_service("vs", spec))
    last: Shown = (["db:5432/v1=80", "db:5432/v2=20"], [], [])
    assert tcp(graph) == [(["db:5432/v2=1"], [], ["10.1.0.0/16"]), last]
    assert tcp(graph, (("app", "batch"), ("x", "y")))[1] == (["slow:5432/=1"], [], [])
    assert tcp(graph, port=9) == [(["db:5432/v2=1"], [], []), last]


def test_no_word_about_a_service_leaves_it_alone() -> None:
    assert tcp(graph_of(service("db", 5432))) == []
    assert tcp(graph_of(virtual_service("vs", "{hosts: [db], http: [{route: [{destination: {host: db}}]}]}"))) == []


def test_server_names_of_tls_rules() -> None:
    spec = """
  hosts: [db, other.example]
  tls:
  - match: [{sniHosts: [A.example, "*.b.example"], port: 5432}]
    route: [{destination: {host: db, subset: v1}}]
  - match: [{sniHosts: [c.example], sourceNamespace: other}]
    route: [{destination: {host: db, subset: v2}}]
"""
    graph = graph_of(service("db", 5432), virtual_service("vs", spec))
    assert shown(graph.pull(tls_routes, CLIENT, (), DB, 5432)) == [(["db:5432/v1=1"], ["a.example", "*.b.example"], [])]
    assert graph.pull(tls_routes, CLIENT, (), DB, 1) == ()


def test_a_gateway_passes_through_only_names_that_its_server_covers() -> None:
    spec = """
  hosts: ["*.example"]
  gateways: [front]
  tls:
  - match: [{sniHosts: [a.example, b.other]}]
    route: [{destination: {host: db}}]
  - match: [{sniHosts: [b.other]}]
    route: [{destination: {host: db}}]
"""
    graph = graph_of(server("TLS", '["a.example"]', "PASSTHROUGH"), service("db", 5432), virtual_service("vs", spec))
    assert shown(graph.pull(gateway_tls_routes, CLIENT, only_server(graph))) == [(["db:5432/=1"], ["a.example"], [])]


def test_tcp_rules_of_a_gateway() -> None:
    rule = "{match: [{port: %d}], route: [{destination: {host: db}}]}"
    spec = "{hosts: ['*'], gateways: [front], tcp: [%s]}"
    to_db: Shown = (["db:5432/=1"], [], [])
    for number, found in ((443, [to_db]), (444, list[Shown]())):
        graph = graph_of(server("TCP", '["*"]'), service("db", 5432), virtual_service("vs", spec % (rule % number)))
        assert shown(graph.pull(gateway_tcp_routes, CLIENT, only_server(graph))) == found
