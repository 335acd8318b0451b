"""Route tables carrying traffic on the real Envoy: what the feature pages don't show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.configuration import virtual_service
from tests.envoy.harness import short_directory
from tests.envoy.playground import ENDPOINTS_OF_ALL, Playground

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers: [%s]
---"""
SERVER = "{port: {number: 8080, name: %s, protocol: HTTP}, hosts: [%s]%s}"
FRONT = GATEWAY % (SERVER % ("http", '"*"', ""))
REGISTRY_ONLY = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---"""


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    directory = short_directory()
    made = Playground(directory)
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


def test_every_name_of_a_service_leads_to_it(playground: Playground) -> None:
    assert playground.apply("") == []
    for host in (
        "reviews",
        "reviews:9080",
        "REVIEWS.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default.svc.cluster.local.",
        "reviews.default.svc.cluster.local:9080",
        "10.96.1.4",
        "10.96.1.4:9080",
    ):
        answer = playground.request(host)
        assert (answer.status, answer.headers.get("x-server", "").partition("/")[0]) == (200, "reviews"), host


def test_unknown_names_pass_or_end(playground: Playground) -> None:
    assert playground.apply("") == []
    answer = playground.request("nobody.example")
    assert answer.status == 503  # sent on to the PassthroughCluster, which this Envoy does not have
    assert playground.apply(REGISTRY_ONLY) == []
    assert playground.request("nobody.example").status == 502
    assert playground.request("reviews").status == 200


def test_a_retry_goes_to_another_endpoint(playground: Playground) -> None:
    rule = "{retries: {attempts: 1, retryOn: 5xx, backoff: 5ms}, route: [{destination: {host: reviews}}]}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == []
    for _ in range(5):
        playground.log.clear()
        playground.script("reviews/all", [503])
        assert playground.request("reviews").status == 200
        first, second = playground.wait_seen(2)
        assert first.server != second.server


def test_retries_without_hope_end(playground: Playground) -> None:
    assert playground.apply("") == []
    playground.script("reviews/all", ["reset"] * ENDPOINTS_OF_ALL)
    answer = playground.request("reviews")
    assert answer.status == 503
    assert len(playground.log) == 1  # a request that reached the application is not repeated by default


def test_attempts_are_counted_for_the_application(playground: Playground) -> None:
    rule = "{retries: {attempts: 2, retryOn: 5xx, backoff: 5ms}, route: [{destination: {host: reviews, subset: v1}}]}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == []
    playground.script("reviews/v1", [500, 500])
    assert playground.request("reviews").status == 200
    assert [each.headers["x-envoy-attempt-count"] for each in playground.wait_seen(3)] == ["1", "2", "3"]


def test_a_cookie_is_made_and_kept(playground: Playground) -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings, namespace: default}
spec:
  host: ratings
  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: seat, ttl: 60s, path: /x}}}}
"""
    assert playground.apply(rule) == []
    cookie, *attributes = playground.request("ratings").headers["set-cookie"].split("; ")
    assert set(attributes) >= {"Max-Age=60", "Path=/x"}
    assert len(playground.requests("ratings", 40, headers={"cookie": cookie})) == 1


def test_a_share_of_the_requests_is_mirrored(playground: Playground) -> None:
    rule = "{route: [{destination: {host: reviews, subset: v1}}], mirror: {host: details}, "
    rule += "mirrorPercentage: {value: 50}}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == []
    assert playground.requests("reviews", 400) == {"reviews/v1": 400}
    playground.wait_seen(400 + 150)  # 5 sigma below one half
    copies = sum(each.server.startswith("details") for each in playground.log)
    assert 150 <= copies <= 250


def test_delays_of_a_share(playground: Playground) -> None:
    rule = "{fault: {delay: {fixedDelay: 60ms, percentage: {value: 50}}}, route: [{destination: {host: reviews}}]}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == []
    late = sum(playground.request("reviews").seconds >= 0.055 for _ in range(100))
    assert 25 <= late <= 75  # 5 sigma around one half


def test_a_long_expression_is_accepted(playground: Playground) -> None:
    expression = "/(" + "|".join(f"[a-z]{{1,9}}-{index}" for index in range(60)) + ")/.*"
    rule = f"{{match: [{{uri: {{regex: '{expression}'}}}}], route: [{{destination: {{host: reviews, subset: v2}}}}]}}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == []
    assert playground.request("reviews", "/abc-59/x").headers["x-server"] == "reviews/v2"
    assert playground.request("reviews", "/abc-60/x").status == 404


# -- gateways ----------------------------------------------------------------------------------------------


def test_a_gateway_joins_virtual_services_by_age(playground: Playground) -> None:
    rule = "{hosts: [%s], gateways: [front], http: [%s]}"
    to = "route: [{destination: {host: %s, subset: v1}}]"
    config = (
        FRONT
        + virtual_service("old", rule % ("a.example", f"{{{to % 'reviews'}}}"), created="2026-01-01T00:00:00Z")
        + virtual_service(
            "young",
            rule % ('a.example, "*.b.example"', f"{{match: [{{uri: {{prefix: /d}}}}], {to % 'details'}}}"),
            created="2026-01-02T00:00:00Z",
        )
    )
    assert playground.apply(config) == []

    def server(host: str, path: str) -> str | int:
        answer = playground.request(host, path, table="http.8080")
        return answer.headers["x-server"] if answer.status == 200 else answer.status

    assert server("a.example", "/x") == "reviews/v1"
    assert server("a.example", "/d") == "details/v1"
    assert server("x.b.example:8080", "/d") == "details/v1"
    assert server("x.b.example", "/x") == 404
    assert server("c.example", "/x") == 404


def test_a_gateway_without_rules_finds_nothing(playground: Playground) -> None:
    assert playground.apply(FRONT) == []
    assert playground.request("a.example", table="http.8080").status == 404


def test_a_gateway_sends_clear_requests_to_https(playground: Playground) -> None:
    servers = SERVER % ("one", "secure.example", ", tls: {httpsRedirect: true}")
    servers += ", " + SERVER % ("two", "open.example", "")
    bound = "{hosts: ['*'], gateways: [front], http: [{route: [{destination: {host: details}}]}]}"
    assert playground.apply(GATEWAY % servers + virtual_service("vs", bound)) == []
    answer = playground.request("secure.example", "/x?y", table="http.8080")
    assert (answer.status, answer.headers["location"]) == (301, "https://secure.example/x?y")
    assert playground.request("open.example", table="http.8080").status == 200
    assert playground.request("third.example", table="http.8080").status == 404


def test_sidecars_and_gateways_read_their_own_rules(playground: Playground) -> None:
    spec = """
  hosts: [reviews]
  gateways: [front, mesh]
  http:
  - match: [{gateways: [mesh]}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{gateways: [front]}]
    route: [{destination: {host: reviews, subset: v2}}]
"""
    assert playground.apply(FRONT + virtual_service("vs", spec)) == []
    assert playground.request("reviews").headers["x-server"] == "reviews/v1"
    host = "reviews.default.svc.cluster.local"
    assert playground.request(host, table="http.8080").headers["x-server"] == "reviews/v2"


# -- refusals ----------------------------------------------------------------------------------------------


def test_what_envoy_refuses_is_seen(playground: Playground) -> None:
    assert playground.apply("") == []
    rule = "{match: [{uri: {regex: '('}}], route: [{destination: {host: reviews}}]}"
    assert playground.apply(virtual_service("vs", f"{{hosts: [reviews], http: [{rule}]}}")) == ["9080"]
    assert playground.request("reviews").status == 200  # the table before stays
    assert playground.apply("") == []
