"""Encoded route tables: what is in them, how they are joined, and what a change runs again."""

from __future__ import annotations

import pytest
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from lateen.api.core.service import Service
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import ref_of, transaction
from lateen.engine import Graph
from lateen.envoy.route import inbound_configuration, route_configuration, route_names
from lateen.envoy.virtual_host import field
from lateen.intent.scope import ProxyKind, Scope
from tests.configuration import graph_of, objects, service, virtual_service

SIDECAR = Scope(ProxyKind.SIDECAR, "default", (("app", "web"), ("version", "v1")))
ROUTER = Scope(ProxyKind.ROUTER, "gateways", (("istio", "ingressgateway"),))
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---"""
SHARED = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: %s}}]}]}"


def config(graph: Graph, name: str = "9080", scope: Scope = SIDECAR) -> RouteConfiguration:
    made = graph.pull(route_configuration, scope, name)
    assert made is not None
    return RouteConfiguration.FromString(made.body)


def hosts(graph: Graph, name: str = "9080", scope: Scope = SIDECAR) -> dict[str, VirtualHost]:
    return {each.name: each for each in config(graph, name, scope).virtual_hosts}


def targets(host: VirtualHost) -> list[str]:
    return [target(each) for each in host.routes]


def target(route: Route) -> str:
    weighted = route.route.weighted_clusters.clusters
    return " ".join(f"{each.name}:{each.weight.value}" for each in weighted) or route.route.cluster


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_a_field_is_written_as_protobuf_writes_it(length: int) -> None:
    config = RouteConfiguration()
    config.virtual_hosts.add().name = "x" * length
    body = config.virtual_hosts[0].SerializeToString()
    assert field(2, body) == config.SerializeToString()


def test_joined_bytes_are_what_protobuf_writes() -> None:
    graph = graph_of(
        *(service(f"s{index}", address=f"10.96.0.{index}") for index in range(40)),
        virtual_service(
            "s1",
            "{hosts: [s1], http: [{fault: {abort: {httpStatus: 500}}, route: "
            "[{destination: {host: s1}, headers: {request: {set: {a: b}}}}, "
            "{destination: {host: s2}, weight: 1}]}]}",
        ),
    )
    made = graph.pull(route_configuration, SIDECAR, "9080")
    assert made is not None
    assert RouteConfiguration.FromString(made.body).SerializeToString(deterministic=True) == made.body


def test_a_service_without_a_virtual_service_goes_to_itself() -> None:
    host = hosts(graph_of(service("reviews")))["reviews.default.svc.cluster.local:9080"]
    assert targets(host) == ["outbound|9080||reviews.default.svc.cluster.local"]
    route = host.routes[0]
    assert route.name == "default"
    assert route.decorator.operation == "reviews.default.svc.cluster.local:9080/*"
    assert route.route.timeout.ToNanoseconds() == 0
    assert route.route.HasField("timeout")
    assert route.route.retry_policy.num_retries.value == 2
    assert host.include_request_attempt_count


def test_a_rule_names_its_object_and_itself() -> None:
    spec = "{hosts: [reviews], http: [{name: r, match: [{name: m, uri: {prefix: /a}, statPrefix: st}], "
    spec += "route: [{destination: {host: reviews}}]}]}"
    made = graph_of(service("reviews"), virtual_service("vs", spec))
    route = hosts(made)["reviews.default.svc.cluster.local:9080"].routes[0]
    assert route.name == "r.m"
    assert route.stat_prefix == "st"
    path = route.metadata.filter_metadata["istio"].fields["config"].string_value
    assert path == "/apis/networking.istio.io/v1/namespaces/default/virtual-service/vs"


def test_a_port_is_the_services_only_one_or_the_listeners() -> None:
    two = """
apiVersion: v1
kind: Service
metadata: {name: two, namespace: default}
spec: {clusterIP: 10.96.0.9, ports: [{name: http-a, port: 1}, {name: http-b, port: 2}]}
---"""
    spec = "{hosts: [reviews], http: [{route: [{destination: {host: %s}}]}]}"
    for host, cluster in (
        ("one", "outbound|7||one.default.svc.cluster.local"),
        ("two", "outbound|9080||two.default.svc.cluster.local"),
        ("missing.example", "outbound|9080||missing.example"),
    ):
        graph = graph_of(service("reviews"), service("one", 7), two, virtual_service("vs", spec % host))
        assert targets(hosts(graph)["reviews.default.svc.cluster.local:9080"]) == [cluster]


def test_weights() -> None:
    spec = """
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /one}}]
    route: [{destination: {host: reviews, subset: v1}, weight: 0}]
  - match: [{uri: {prefix: /none}}]
    route: [{destination: {host: reviews, subset: v1}, weight: 0}, {destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 1}
    - {destination: {host: reviews, subset: v2}, weight: 0}
    - {destination: {host: reviews, subset: v3}, weight: 2}
"""
    made = graph_of(service("reviews"), virtual_service("vs", spec))
    one, none, some = hosts(made)["reviews.default.svc.cluster.local:9080"].routes
    assert target(one) == "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert none.direct_response.status == 500
    assert target(some) == (
        "outbound|9080|v1|reviews.default.svc.cluster.local:1 outbound|9080|v3|reviews.default.svc.cluster.local:2"
    )


def test_nothing_stands_behind_a_route_that_every_request_matches() -> None:
    rule = "{match: [%s], route: [{destination: {host: reviews, subset: %s}}]}"
    rules = ", ".join(
        (
            rule % ("{uri: {exact: /a}}", "v1"),
            rule % ("{uri: {exact: /b}}, {uri: {prefix: /}}, {uri: {exact: /c}}", "v2"),
            rule % ("{uri: {exact: /d}}", "v3"),
        )
    )
    made = graph_of(service("reviews"), virtual_service("vs", f"{{hosts: [reviews], http: [{rules}]}}"))
    routes = hosts(made)["reviews.default.svc.cluster.local:9080"].routes
    assert [each.match.path or each.match.prefix for each in routes] == ["/a", "/b", "/"]


def test_a_virtual_service_without_a_rule_for_the_client_leaves_the_service_alone() -> None:
    spec = "{hosts: [reviews], http: [{match: [{sourceLabels: {app: other}}], route: [{destination: {host: x}}]}]}"
    made = graph_of(service("reviews"), virtual_service("vs", spec))
    assert targets(hosts(made)["reviews.default.svc.cluster.local:9080"]) == [
        "outbound|9080||reviews.default.svc.cluster.local"
    ]


def test_a_claim_of_a_token_that_nobody_verifies_never_matches() -> None:
    spec = """
  hosts: [reviews]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: admin}}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v2}}]
"""
    made = graph_of(service("reviews"), virtual_service("vs", spec))
    assert targets(hosts(made)["reviews.default.svc.cluster.local:9080"]) == [
        "outbound|9080|v2|reviews.default.svc.cluster.local"
    ]


def test_unknown_names_pass_or_end() -> None:
    assert targets(hosts(graph_of(service("reviews")))["allow_any"]) == ["PassthroughCluster"]
    mesh = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---"""
    found = hosts(graph_of(service("reviews"), mesh))
    assert found["block_all"].routes[0].direct_response.status == 502
    assert "allow_any" not in found
    everything = virtual_service("vs", '{hosts: ["*"], http: [{route: [{destination: {host: proxy.example}}]}]}')
    assert [each.domains[:] for each in config(graph_of(everything), "80").virtual_hosts] == [["*"]]


def test_a_name_without_routes_is_as_unknown_as_any_other() -> None:
    rule = "{match: [{sourceLabels: {app: other}}], route: [{destination: {host: x}}]}"
    for host in ("shop.example", "*"):
        graph = graph_of(virtual_service("vs", f"{{hosts: ['{host}'], http: [{rule}]}}"))
        assert set(hosts(graph, "80")) == {"allow_any"}


def test_the_table_of_one_service_answers_to_any_name() -> None:
    graph = graph_of(service("reviews"), virtual_service("vs", SHARED % "v1"))
    name = "reviews.default.svc.cluster.local:9080"
    made = config(graph, name)
    assert made.name == name
    assert [(each.name, list(each.domains), targets(each)) for each in made.virtual_hosts] == [
        (name, ["*"], ["outbound|9080|v1|reviews.default.svc.cluster.local"])
    ]


@pytest.mark.parametrize("name", ["1", "x", "reviews.default.svc.cluster.local:1", "nobody:9080", "http.80", ""])
def test_a_sidecar_has_no_other_tables(name: str) -> None:
    assert graph_of(service("reviews"), GATEWAY).pull(route_configuration, SIDECAR, name) is None


def test_gateways_join_virtual_services() -> None:
    rule = "{hosts: [a.example], gateways: [front], http: [%s{route: [{destination: {host: reviews, subset: %s}}]}]}"
    extra = "{match: [{uri: {prefix: /%s}}], route: [{destination: {host: reviews, subset: %s}}]}, "
    graph = graph_of(
        GATEWAY,
        service("reviews"),
        virtual_service("old", rule % (extra % ("old", "v1"), "v3"), created="2026-01-01T00:00:00Z"),
        virtual_service("young", rule % (extra % ("young", "v2"), "v4"), created="2026-01-02T00:00:00Z"),
    )
    assert graph.pull(route_names, ROUTER) == ("http.80",)
    made = hosts(graph, "http.80", ROUTER)["a.example:80"]
    assert [each.partition("reviews")[0] for each in targets(made)] == [
        "outbound|9080|v1|",
        "outbound|9080|v2|",
        "outbound|9080|v3|",
    ]
    assert [each.match.prefix for each in made.routes] == ["/old", "/young", "/"]


def test_a_gateway_without_virtual_services_finds_nothing() -> None:
    found = hosts(graph_of(GATEWAY), "http.80", ROUTER)
    assert {name: (list(each.domains), len(each.routes)) for name, each in found.items()} == {
        "blackhole:80": (["*"], 0)
    }


def test_https_only() -> None:
    redirecting = GATEWAY.replace('hosts: ["*"]', 'hosts: ["*"], tls: {httpsRedirect: true}')
    assert hosts(graph_of(redirecting), "http.80", ROUTER)["*:80"].require_tls == VirtualHost.ALL


def test_the_inbound_table() -> None:
    made = inbound_configuration("inbound|8080||", "reviews.default.svc.cluster.local:9080/*")
    assert made.name == "inbound|8080||"
    assert made.virtual_hosts[0].name == "inbound|http|8080"
    assert made.virtual_hosts[0].routes[0].route.cluster == "inbound|8080||"


def test_proxies_share_a_table_unless_a_match_tells_them_apart() -> None:
    other = Scope(ProxyKind.SIDECAR, "default", (("app", "api"),))
    graph = graph_of(service("reviews"), virtual_service("vs", SHARED % "v1"))
    assert graph.pull(route_configuration, SIDECAR, "9080") is graph.pull(route_configuration, other, "9080")
    spec = "{hosts: [reviews], http: [{match: [{sourceLabels: {app: api}}], "
    spec += "route: [{destination: {host: reviews, subset: v1}}]}]}"
    graph = graph_of(service("reviews"), virtual_service("vs", spec))
    assert config(graph) != config(graph, scope=other)


def test_a_changed_rule_encodes_one_virtual_host_again() -> None:
    graph = graph_of(
        *(service(f"s{index}", address=f"10.96.0.{index}") for index in range(20)),
        service("reviews"),
        virtual_service("vs", SHARED % "v1"),
        virtual_service("other", "{hosts: [s3], http: [{route: [{destination: {host: s4}}]}]}"),
    )
    before = graph.pull(route_configuration, SIDECAR, "9080")
    graph.commit(transaction(objects(virtual_service("vs", SHARED % "v2"))))
    with graph.tracing() as ran:
        after = graph.pull(route_configuration, SIDECAR, "9080")
    assert before is not None
    assert after is not None
    assert before.version != after.version
    encoded = [each for each in ran if each.startswith(("sidecar_routes", "sidecar_fragment", "service_routes"))]
    assert len(encoded) == 3
    assert all("reviews.default" in each for each in encoded)
    assert not [each for each in ran if each.startswith(("sidecar_hosts", "service_names", "visible"))]


def test_a_change_that_means_nothing_stops_at_once() -> None:
    graph = graph_of(service("reviews"), virtual_service("vs", SHARED % "v1"))
    before = graph.pull(route_configuration, SIDECAR, "9080")
    labelled = virtual_service("vs", SHARED % "v1").replace("name: vs,", "name: vs, labels: {a: b},")
    graph.commit(transaction(objects(labelled)))
    with graph.tracing() as ran:
        assert graph.pull(route_configuration, SIDECAR, "9080") is before
    assert not [each for each in ran if each.startswith("sidecar_routes")]


def test_origins_lead_back_to_the_objects() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dr, namespace: default}
spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: a}}}}
---"""
    graph = graph_of(service("reviews"), virtual_service("vs", SHARED % "v1"), rule, GATEWAY)
    made = graph.pull(route_configuration, SIDECAR, "9080")
    assert made is not None
    assert set(made.origins) == {
        ref_of(VirtualService, "default", "vs"),
        ref_of(Service, "default", "reviews"),
        ref_of(DestinationRule, "default", "dr"),
    }
    made = graph.pull(route_configuration, ROUTER, "http.80")
    assert made is not None
    assert made.origins == (ref_of(Gateway, "default", "front"),)
