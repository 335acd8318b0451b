"""Several servers, Gateways and VirtualServices on one port, through the real Envoy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.test_gateway_connections import gateway, over, routes, server
from tests.lab.client import Caller2, ask, exchange, line
from tests.lab.lab import Lab
from tests.lab.world import GATEWAY

HTTP = "{port: {number: 8080, name: %s, protocol: HTTP}, hosts: %s%s}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def plain(name: str, hosts: str, more: str = "") -> str:
    return HTTP % (name, hosts, more)


def asked(lab: Lab, host: str, path: str = "/") -> str:
    """Who answers a request in the clear, or the status."""
    answer = ask(lab, "gateway", path, 8080, authority=host)
    return answer.server if answer.status == 200 else str(answer.status)


def test_gateways_share_a_port_of_plain_http(lab: Lab) -> None:
    lab.configure(
        gateway("one", plain("one", "[a.test, shared.test]"), created="2026-01-01T00:00:00Z"),
        gateway("two", plain("two", "[b.test, shared.test]"), created="2026-01-02T00:00:00Z"),
        routes("a", "[a.test]", "ratings", "[istio-system/one]"),
        routes("b", "[b.test]", "details", "[istio-system/two]"),
        routes("late", "[shared.test]", "ratings", "[istio-system/one]", created="2026-03-01T00:00:00Z"),
        routes("early", "[shared.test]", "details", "[istio-system/two]", created="2026-02-01T00:00:00Z"),
    )
    assert [asked(lab, each) for each in ("a.test", "b.test", "c.test")] == ["ratings-v1", "details-v1", "404"]
    assert asked(lab, "shared.test") == "details-v1"


def test_gateways_share_a_tls_host_with_the_same_settings(lab: Lab) -> None:
    """The VirtualServices of both count, on one connection."""
    one = gateway("one", server("one", "['*.a.test']"), created="2026-01-01T00:00:00Z")
    two = gateway("two", server("two", "['*.a.test', b.test]"), created="2026-01-02T00:00:00Z")
    shops = (
        routes("x", "[x.a.test]", "ratings", "[istio-system/one]"),
        routes("y", "[y.a.test]", "details", "[istio-system/two]"),
        routes("b", "[b.test]", "app", "[istio-system/two]"),
    )
    lab.configure(one, two, *shops)
    assert over(lab, "x.a.test", "x.a.test", "y.a.test", "b.test") == ["ratings-v1", "details-v1", "421"]
    assert over(lab, "b.test", "b.test", "y.a.test") == ["app", "421"]


def test_of_tls_servers_with_one_host_and_other_settings_the_older_has_it(lab: Lab) -> None:
    one = gateway("one", server("one", "[a.test]", mode="MUTUAL"), created="2026-01-02T00:00:00Z")
    two = gateway("two", server("two", "[a.test, b.test]"), created="2026-01-01T00:00:00Z")
    shops = (
        routes("one", "[a.test]", "ratings", "[istio-system/one]"),
        routes("two", "[a.test, b.test]", "details", "[istio-system/two]"),
    )
    lab.configure(one, two, *shops)
    assert over(lab, "a.test", "a.test", "b.test") == ["details-v1", "details-v1"]
    lab.configure(one.replace("-02T", "-00T").replace("2026-01-00", "2025-01-01"), two, *shops)
    assert over(lab, "a.test", "a.test") in ([], ["0"])
    assert over(lab, "a.test", "a.test", "b.test", client="client") == ["ratings-v1", "421"]
    assert over(lab, "b.test", "b.test", "a.test") == ["details-v1", "421"]


def test_what_the_first_server_carries_counts(lab: Lab) -> None:
    tcp = "{port: {number: 8080, name: tcp, protocol: TCP}, hosts: ['*']}"
    to = "tcp: [{route: [{destination: {host: details, port: {number: 9080}}}]}]"
    shops = routes("a", "['*']", "ratings", "[istio-system/one]") + routes("t", "['*']", "", "[istio-system/two]", to)
    for created, answer in (("2026-01-02T00:00:00Z", "ratings-v1"), ("2026-01-04T00:00:00Z", "details-v1")):
        one = gateway("one", plain("one", "['*']"), created=created)
        lab.configure(one, gateway("two", tcp, created="2026-01-03T00:00:00Z"), shops)
        assert asked(lab, "a.test") == answer


def test_virtual_services_of_a_host_count_from_the_oldest_on_what_takes_all_last(lab: Lab) -> None:
    def rules(prefix: str, to: str) -> str:
        match = f"match: [{{uri: {{prefix: {prefix}}}}}], " if prefix else ""
        return f"http: [{{{match}route: [{{destination: {{host: {to}, port: {{number: 9080}}}}}}]}}]"

    bound = "[istio-system/edge]"
    lab.configure(
        gateway("edge", plain("http", "['*']")),
        routes("all", "[a.test]", "", bound, rules("", "app"), "2026-01-01T00:00:00Z"),
        routes("zz", "[a.test]", "", bound, rules("/x", "ratings"), "2026-01-02T00:00:00Z"),
        routes("b", "[a.test]", "", bound, rules("/x", "details"), "2026-01-03T00:00:00Z"),
        routes("a", "[a.test]", "", bound, rules("/y", "details"), "2026-01-03T00:00:00Z"),
        routes("c", "[a.test]", "", bound, rules("/y", "ratings"), "2026-01-03T00:00:00Z"),
    )
    assert [asked(lab, "a.test", path) for path in ("/x", "/y", "/z")] == ["ratings-v1", "details-v1", "app"]


def test_the_server_that_names_a_host_most_closely_says_whether_it_is_for_https_only(lab: Lab) -> None:
    redirecting = ", tls: {httpsRedirect: true}"
    lab.configure(
        gateway("edge", plain("wide", "['*.a.test']", redirecting), plain("close", "[open.a.test]")),
        routes("a", "['*.a.test', open.a.test]", "ratings", "[istio-system/edge]"),
    )
    assert [asked(lab, each) for each in ("x.a.test", "open.a.test")] == ["301", "ratings-v1"]


def test_a_server_on_a_socket(lab: Lab) -> None:
    path = Path(lab.directory) / "edge.sock"
    on_socket = f"{{port: {{number: 0, name: http, protocol: HTTP}}, hosts: ['*'], bind: 'unix://{path}'}}"
    lab.configure(gateway("edge", on_socket), routes("a", "['*']", "ratings", "[istio-system/edge]"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"x-server: ratings-v1" in answer


def test_one_port_at_several_addresses(lab: Lab) -> None:
    def at(address: str, name: str, protocol: str) -> str:
        port = f"{{number: 8080, name: {name}, protocol: {protocol}}}"
        return f"{{port: {port}, hosts: ['*'], bind: {address}}}"

    to = "tcp: [{route: [{destination: {host: details, port: {number: 9000}}}]}]"
    lab.configure(
        gateway("one", at("10.88.0.8", "http", "HTTP")),
        gateway("two", at("10.88.0.9", "tcp", "TCP")),
        routes("a", "['*']", "ratings", "[istio-system/one]"),
        routes("t", "['*']", "", "[istio-system/two]", to),
    )
    assert asked(lab, "a.test") == "ratings-v1"
    assert line(lab, "10.88.0.9", 8080, mark=PROXY)["server"] == "details-v1"


def test_connections_are_told_apart_by_address(lab: Lab) -> None:
    """`destinationSubnets` of a TCP rule on a gateway that has two addresses."""
    rule = "{%sroute: [{destination: {host: %s, port: {number: 9000}}}]}"
    first = rule % ("match: [{destinationSubnets: [10.88.0.9/32]}], ", "details")
    tcp = "{port: {number: 8081, name: tcp, protocol: MONGO}, hosts: ['*']}"
    rules = f"tcp: [{first}, {rule % ('', 'ratings')}]"
    lab.configure(gateway("edge", tcp), routes("t", "['*']", "", "[istio-system/edge]", rules))
    assert line(lab, "10.88.0.9", 8081, mark=PROXY)["server"] == "details-v1"
    assert line(lab, GATEWAY, 8081)["server"] == "ratings-v1"


def test_grpc_web_is_turned_into_grpc(lab: Lab) -> None:
    shop = routes("a", "['*']", "", "[istio-system/edge]", GRPC)
    for protocol, seen in (("GRPC-WEB", "application/grpc"), ("GRPC", "application/grpc-web+proto")):
        lab.configure(gateway("edge", plain("web", "['*']").replace("HTTP}", f"{protocol}}}")), shop)
        with Caller2(lab, "gateway", 8080) as caller:
            headers: dict[str, Any] = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
            caller.ask("a.test", path="/x.Y/Z", **headers)
        assert [each["headers"]["content-type"] for each in lab.servers.log] == [seen]


GRPC = "http: [{route: [{destination: {host: ratings, port: {number: 9090}}}]}]"
PROXY = 0x539


def test_preflights_of_other_origins_on_a_gateway(lab: Lab) -> None:
    for unmatched, status, arrived in (("FORWARD", 200, 1), ("IGNORE", 200, 0)):
        policy = f"corsPolicy: {{allowOrigins: [{{exact: 'https://a.test'}}], unmatchedPreflights: {unmatched}}}"
        rule = f"http: [{{{policy}, route: [{{destination: {{host: ratings, port: {{number: 9080}}}}}}]}}]"
        lab.configure(gateway("edge", plain("http", "['*']")), routes("a", "['*']", "", "[istio-system/edge]", rule))
        headers = {"origin": "https://b.test", "access-control-request-method": "PUT"}
        answer = ask(lab, "gateway", port=8080, method="OPTIONS", authority="a.test", headers=headers)
        assert (answer.status, len(lab.servers.log)) == (status, arrived)
        assert "access-control-allow-origin" not in answer.headers


def test_delegates_on_a_gateway(lab: Lab) -> None:
    root = "http: [{match: [{uri: {prefix: /x}}], delegate: {name: child, namespace: other}}]"
    child = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: child, namespace: other}
spec:
  http:
  - match: [{uri: {prefix: /x/1}}]
    route: [{destination: {host: ratings.default.svc.cluster.local, port: {number: 9080}}}]
  - route: [{destination: {host: details.default.svc.cluster.local, port: {number: 9080}}}]
---
"""
    lab.configure(
        gateway("edge", plain("http", "['*']")), routes("r", "[a.test]", "", "[istio-system/edge]", root), child
    )
    assert [asked(lab, "a.test", path) for path in ("/x/1", "/x/2", "/y")] == ["ratings-v1", "details-v1", "404"]


def test_tls_that_ends_at_the_gateway_with_bytes_inside(lab: Lab) -> None:
    to = "tcp: [{route: [{destination: {host: details, port: {number: 9000}}}]}]"
    lab.configure(
        gateway("edge", server("tls", "[a.test]", "TLS")),
        routes("t", "[a.test]", "", "[istio-system/edge]", to),
    )
    with lab.connect("gateway", 8443, tls=lab.certificates.client_context(), sni="a.test") as one:
        assert exchange(one)["server"] == "details-v1"
