"""Who has what of a gateway's port: `gateway_plan` without a proxy."""

from __future__ import annotations

from lateen.engine import Graph
from lateen.intent.route_table import gateway_hosts, gateway_table, misdirected
from lateen.model import gateways
from lateen.model.gateways import MOST_ELSEWHERE, GatewayServer, Plan, gateway_plan, gateway_servers
from tests.configuration import graph_of

LABELS = (("istio", "gw"),)
OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def gateway(name: str, *servers: str, created: str = OLD) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, creationTimestamp: "{created}"}}
spec: {{selector: {{istio: gw}}, servers: [{", ".join(servers)}]}}
---"""


def https(name: str, hosts: str, mode: str = "SIMPLE", number: int = 443) -> str:
    port = f"{{number: {number}, name: {name}, protocol: HTTPS}}"
    return f"{{port: {port}, hosts: {hosts}, tls: {{mode: {mode}, credentialName: c}}}}"


def plan(*texts: str) -> Plan:
    return graph_of(*texts).pull(gateway_plan, "edge", LABELS)


def shown(servers: tuple[GatewayServer, ...]) -> list[tuple[str, int, tuple[str, ...], tuple[str, ...], bool]]:
    """Gateway, index, own hosts, hosts elsewhere, guest."""
    return [(each.gateway.name, each.index, each.sni, each.elsewhere, each.guest) for each in servers]


def test_hosts_of_tls_servers_have_one_owner() -> None:
    made = plan(
        gateway("new", https("n", "[a.test, b.test]", "MUTUAL"), https("m", "[c.test]"), created=NEW),
        gateway("old", https("o", "[a.test, c.test]")),
    )
    assert shown(made.servers) == [
        ("old", 0, ("a.test", "c.test"), ("b.test",), False),
        ("new", 0, ("b.test",), ("a.test", "c.test"), False),
        ("new", 1, ("c.test",), ("b.test",), True),
    ]
    assert made.servers[2].route == made.servers[0].route
    lost = [(each.gateway.name, each.index, each.host, each.winner.name, each.winner_index) for each in made.conflicts]
    assert lost == [("new", 0, "a.test", "old", 0)]


def test_ports_and_addresses_are_apart() -> None:
    made = plan(gateway("one", https("a", "[a.test]"), https("b", "[a.test]", "MUTUAL", 444)))
    assert [each.elsewhere for each in made.servers] == [(), ()]
    bound = https("b", "[a.test]", "MUTUAL").replace("hosts", "bind: 10.0.0.1, hosts")
    made = plan(gateway("one", https("a", "[a.test]"), bound))
    assert [each.listener for each in made.servers] == ["0.0.0.0_443", "10.0.0.1_443"]
    assert made.conflicts == ()
    same = https("b", "[a.test]", "MUTUAL").replace("hosts", "bind: 0.0.0.0, hosts")
    assert len(plan(gateway("one", https("a", "[a.test]"), same)).conflicts) == 1


def table(graph: Graph) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """Hosts of the first server's table with how many VirtualServices each has, and the misdirected names."""
    first = graph.pull(gateway_servers, "edge", LABELS)[0]
    servers = graph.pull(gateway_table, "edge", LABELS, first.route)
    hosts = graph.pull(gateway_hosts, "edge", servers)
    return [(each.host, len(each.bindings)) for each in hosts], misdirected(servers)


def test_names_that_nobody_else_has_more_closely_stay_404() -> None:
    """A wider name of another server must not take what the first server has without a VirtualService."""
    graph = graph_of(gateway("one", https("a", "['*.a.test']"), https("rest", "['*.test', b.a.test]", "MUTUAL")))
    assert table(graph) == ([("*.a.test", 0)], ("*.test", "b.a.test"))


def test_what_a_wider_name_says_is_not_said_again() -> None:
    graph = graph_of(
        gateway("one", https("a", "[x.test]"), https("b", "['*.b.test', c.b.test]"), https("d", "[d.test]"))
    )
    assert table(graph) == ([], ("*.b.test", "d.test"))


def test_a_table_does_not_grow_with_the_square_of_the_servers() -> None:
    many = [https(f"n{index}", f"[h{index}.test]") for index in range(MOST_ELSEWHERE)]
    graph = graph_of(gateway("one", https("a", "['*.a.test', x.test]"), https("in", "[b.a.test]"), *many))
    assert table(graph) == ([("*.a.test", 0), ("x.test", 0)], ("*", "b.a.test"))
    assert sum(len(each.elsewhere) for each in graph.pull(gateway_servers, "edge", LABELS)) < 2 * MOST_ELSEWHERE + 8


def test_udp_ports_of_the_service_ask_for_http3() -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: edge}
spec:
  selector: {istio: gw}
  ports: [{name: a, port: 443, targetPort: 8443}, {name: b, port: 443, targetPort: 8444, protocol: UDP}]
---"""
    servers = plan(service, gateway("one", https("a", "[a.test]"), https("b", "[b.test]", "MUTUAL"))).servers
    assert [(each.port, each.quic_port) for each in servers] == [(8443, 8444), (8443, 0)]
    assert gateways.ANY_ADDRESS in servers[0].listener


def test_a_target_port_may_be_a_name_of_the_pods() -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: edge}
spec: {selector: {istio: gw}, ports: [{name: a, port: 443, targetPort: secure}]}
---"""
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: edge, labels: {istio: gw}}
spec: {containers: [{name: proxy, ports: [{name: secure, containerPort: 8443}]}]}
status: {phase: Running, podIP: 10.0.0.1}
---"""
    one = gateway("one", https("a", "[a.test]"))
    assert [each.port for each in plan(service, pod, one).servers] == [8443]
    assert [each.port for each in plan(service, one).servers] == [443]


def test_tls_without_a_mode_passes_through() -> None:
    """As in Istio, where PASSTHROUGH is the first of the modes."""
    bare = "{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.test], tls: {}}"
    assert [each.kind.value for each in plan(gateway("one", bare)).servers] == ["passthrough"]
