"""Which DestinationRule, Sidecar, PeerAuthentication and Gateway count for whom."""

from __future__ import annotations

import pytest

from lateen.model.destination_rules import Rule, destination_rule
from lateen.model.gateways import ServerKind, gateway_servers
from lateen.model.listing import visible_services
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.visibility import Client, client_of, visible
from tests.configuration import graph_of, service

REVIEWS = "reviews.default.svc.cluster.local"
RANDOM = "trafficPolicy: {loadBalancer: {simple: RANDOM}}"


def _rule(name: str, namespace: str, spec: str, created: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
---"""


def _names(rule: Rule | None) -> list[str]:
    return [each.name for each in rule.refs] if rule is not None else []


def test_the_clients_namespace_then_the_services_then_the_root() -> None:
    texts = [
        service("reviews"),
        _rule("client", "shop", f"{{host: {REVIEWS}}}"),
        _rule("owner", "default", "{host: reviews}"),
        _rule("root", "istio-system", "{host: '*.svc.cluster.local'}"),
    ]
    graph = graph_of(*texts)
    assert _names(graph.pull(destination_rule, Client("shop"), REVIEWS)) == ["client"]
    assert _names(graph.pull(destination_rule, Client("other"), REVIEWS)) == ["owner"]
    assert _names(graph_of(texts[0], texts[3]).pull(destination_rule, Client("other"), REVIEWS)) == ["root"]


def test_private_rules_count_for_their_own_namespace_only() -> None:
    graph = graph_of(service("reviews"), _rule("owner", "default", "{host: reviews, exportTo: ['.']}"))
    assert _names(graph.pull(destination_rule, Client("default"), REVIEWS)) == ["owner"]
    assert graph.pull(destination_rule, Client("other"), REVIEWS) is None


def test_the_most_specific_host_wins_within_a_namespace() -> None:
    graph = graph_of(
        service("reviews"),
        _rule("all", "default", "{host: '*'}"),
        _rule("some", "default", "{host: '*.default.svc.cluster.local'}"),
    )
    assert _names(graph.pull(destination_rule, Client("default"), REVIEWS)) == ["some"]


def test_rules_of_one_host_are_one_rule() -> None:
    graph = graph_of(
        service("reviews"),
        _rule("young", "default", f"{{host: reviews, {RANDOM}, subsets: [{{name: v1}}, {{name: v2}}]}}", "2"),
        _rule("old", "default", "{host: reviews, subsets: [{name: v1, labels: {version: old}}]}", "1"),
    )
    rule = graph.pull(destination_rule, Client("default"), REVIEWS)
    assert rule is not None
    assert _names(rule) == ["old", "young"]
    assert [each.name for each in rule.subsets] == ["v1", "v2"]
    assert dict(rule.subsets[0].labels) == {"version": "old"}
    assert rule.policy is not None
    assert rule.policy.load_balancer is not None
    assert rule.policy.load_balancer.simple == "RANDOM"


def test_a_selector_limits_a_rule_to_some_clients() -> None:
    graph = graph_of(
        service("reviews"),
        _rule("some", "default", "{host: reviews, workloadSelector: {matchLabels: {app: web}}}"),
        _rule("rest", "default", "{host: reviews, subsets: [{name: v1}]}"),
    )
    web = graph.pull(client_of, "default", (("app", "web"),), False)
    other = graph.pull(client_of, "default", (("app", "other"),), False)
    assert _names(graph.pull(destination_rule, web, REVIEWS)) == ["some", "rest"]
    assert _names(graph.pull(destination_rule, other, REVIEWS)) == ["rest"]


def _sidecar(name: str, namespace: str, spec: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
---"""


def test_the_sidecar_of_a_client() -> None:
    graph = graph_of(
        service("reviews"),
        service("secret", namespace="vault"),
        service("shop", namespace="shop"),
        _sidecar("root", "istio-system", "{egress: [{hosts: ['./*']}]}"),
        _sidecar("web", "shop", "{workloadSelector: {labels: {app: web}}, egress: [{hosts: ['*/*', '~vault/*']}]}"),
    )
    web = graph.pull(client_of, "shop", (("app", "web"),), False)
    other = graph.pull(client_of, "shop", (("app", "other"),), False)
    router = graph.pull(client_of, "shop", (("app", "web"),), True)
    assert graph.pull(visible_services, web) == (REVIEWS, "shop.shop.svc.cluster.local")
    assert graph.pull(visible_services, other) == ("shop.shop.svc.cluster.local",)
    assert len(graph.pull(visible_services, router)) == 3


def test_an_egress_listener_with_a_port_is_for_that_port_alone() -> None:
    graph = graph_of(
        service("reviews", port=80),
        service("ratings", port=9080),
        _sidecar(
            "default",
            "default",
            "{egress: [{port: {number: 9080, protocol: HTTP, name: a}, hosts: ['./none.example']}, {hosts: ['./*']}]}",
        ),
    )
    client = graph.pull(client_of, "default", (), False)
    assert graph.pull(visible, client, REVIEWS) is not None
    assert graph.pull(visible, client, "ratings.default.svc.cluster.local") is None


def _peer(name: str, namespace: str, spec: str, created: str = "") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
---"""


def test_peer_authentication_from_mesh_to_port() -> None:
    graph = graph_of(
        _peer("mesh", "istio-system", "{mtls: {mode: STRICT}}"),
        _peer("space", "shop", "{mtls: {mode: UNSET}}"),
        _peer("space", "open", "{mtls: {mode: DISABLE}}"),
        _peer(
            "web",
            "open",
            "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE},"
            " portLevelMtls: {'80': {mode: STRICT}, '81': {mode: UNSET}}}",
        ),
    )
    web = (("app", "web"),)
    assert graph.pull(peer_policy, "shop", web).at(80) is MtlsMode.STRICT
    assert graph.pull(peer_policy, "open", ()).at(80) is MtlsMode.DISABLE
    policy = graph.pull(peer_policy, "open", web)
    assert [policy.at(port) for port in (80, 81, 82)] == [
        MtlsMode.STRICT,
        MtlsMode.PERMISSIVE,
        MtlsMode.PERMISSIVE,
    ]


def test_nothing_said_is_permissive_and_the_oldest_of_a_level_counts() -> None:
    assert graph_of().pull(peer_policy, "default", ()).mode is MtlsMode.PERMISSIVE
    graph = graph_of(
        _peer("a", "default", "{mtls: {mode: DISABLE}}", "2024-01-01T00:00:00Z"),
        _peer("b", "default", "{mtls: {mode: STRICT}}", "2023-01-01T00:00:00Z"),
    )
    assert graph.pull(peer_policy, "default", ()).mode is MtlsMode.STRICT


FRONT = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: edge}
spec: {selector: {istio: gw}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
"""


def _gateway(name: str, servers: str, created: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, creationTimestamp: "{created}"}}
spec: {{selector: {{istio: gw}}, servers: [{servers}]}}
---"""


@pytest.mark.parametrize("number", [80, 8080])
def test_a_gateways_port_is_the_services_or_the_routers(number: int) -> None:
    server = f"{{port: {{number: {number}, name: http, protocol: HTTP}}, hosts: ['*']}}"
    graph = graph_of(FRONT, _gateway("a", server))
    (found,) = graph.pull(gateway_servers, "edge", (("istio", "gw"),))
    assert (found.port, found.route, found.kind) == (8080, "http.8080", ServerKind.HTTP)
    assert graph.pull(gateway_servers, "edge", (("istio", "other"),)) == ()


def test_of_conflicting_servers_the_oldest_gateways_stay() -> None:
    http = "{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}"
    tcp = "{port: {number: 8080, name: tcp, protocol: TCP}, hosts: ['*']}"
    graph = graph_of(
        _gateway("young", tcp, "2024-01-01T00:00:00Z"),
        _gateway("old", http, "2023-01-01T00:00:00Z"),
        _gateway("other", http, "2024-02-01T00:00:00Z"),
    )
    found = graph.pull(gateway_servers, "edge", (("istio", "gw"),))
    assert [each.gateway.name for each in found] == ["old", "other"]
