"""Connections of gateways through the real Envoy: one HTTP/2 connection for several hosts, mutual TLS passed on."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from lateen.model.gateways import MOST_ELSEWHERE
from tests.lab.client import Caller2, exchange
from tests.lab.lab import Lab

SERVER = "{port: {number: 8443, name: %s, protocol: %s}, hosts: %s, tls: {mode: %s%s}}"
CREDENTIAL = ", credentialName: edge"


def server(name: str, hosts: str, protocol: str = "HTTPS", mode: str = "SIMPLE", more: str = CREDENTIAL) -> str:
    return SERVER % (name, protocol, hosts, mode, more)


def gateway(name: str, *servers: str, created: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: istio-system, creationTimestamp: "{created}"}}
spec: {{selector: {{istio: ingressgateway}}, servers: [{", ".join(servers)}]}}
---
"""


def routes(name: str, hosts: str, to: str, gateways: str, more: str = "", created: str = "") -> str:
    """A VirtualService that sends everything to port 9080 of a service, or what `more` says."""
    route = more or f"http: [{{route: [{{destination: {{host: {to}, port: {{number: 9080}}}}}}]}}]"
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, creationTimestamp: "{created}"}}
spec: {{hosts: {hosts}, gateways: {gateways}, {route}}}
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def over(lab: Lab, sni: str, *hosts: str, client: str = "") -> list[str]:
    """Who answers requests for those hosts on one HTTP/2 connection, or their status; [] without a connection."""
    context = lab.certificates.client_context(client, ("h2",))
    try:
        with Caller2(lab, "gateway", 8443, tls=context, sni=sni) as caller:
            answers = [caller.ask(host)[0] for host in hosts]
    except OSError:
        return []
    return [each.server if each.status == 200 else str(each.status) for each in answers]


SHOPS = (
    routes("a", "[a.shop.test]", "ratings", "[istio-system/one]")
    + routes("b", "[b.shop.test]", "details", "[istio-system/two]")
    + routes("c", "['*.c.shop.test']", "app", "[istio-system/one]")
)


def test_a_host_of_another_server_is_misdirected(lab: Lab) -> None:
    """As with one wildcard certificate for two Gateways: a browser takes the connection it has."""
    one = gateway("one", server("one", "[a.shop.test, '*.c.shop.test']"))
    lab.configure(one, gateway("two", server("two", "[b.shop.test]")), SHOPS)
    assert over(lab, "a.shop.test", "a.shop.test", "b.shop.test", "B.shop.test:8443", "a.shop.test") == [
        "ratings-v1",
        "421",
        "421",
        "ratings-v1",
    ]
    assert over(lab, "b.shop.test", "b.shop.test", "a.shop.test", "x.c.shop.test") == ["details-v1", "421", "421"]
    assert over(lab, "x.c.shop.test", "x.c.shop.test", "y.c.shop.test", "a.shop.test") == ["app", "app", "ratings-v1"]
    assert over(lab, "a.shop.test", "unknown.test") == ["404"]
    assert over(lab, "unknown.test", "unknown.test") == []


def test_the_closest_host_of_all_servers_counts(lab: Lab) -> None:
    """Rows as in the conformance test of the Gateway API: server name, host, who answers."""
    lab.configure(
        gateway(
            "one",
            server("rest", "['*']"),
            server("second", "[second.test]"),
            server("wild", "['*.wild.test']"),
            server("fourth", "[fourth.wild.test]", mode="MUTUAL"),
            server("through", "[through.wild.test]", "TLS", "PASSTHROUGH", ""),
        ),
        routes("first", "[first.test]", "ratings", "[istio-system/one]"),
        routes("second", "[second.test]", "details", "[istio-system/one]"),
        routes("wild", "['*.wild.test']", "app", "[istio-system/one]"),
    )
    for sni, host, answer in (
        ("first.test", "first.test", "ratings-v1"),
        ("first.test", "second.test", "421"),
        ("first.test", "unknown.test", "404"),
        ("second.test", "second.test", "details-v1"),
        ("second.test", "first.test", "421"),
        ("second.test", "unknown.test", "421"),
        ("third.wild.test", "third.wild.test", "app"),
        ("third.wild.test", "fifth.wild.test", "app"),
        ("third.wild.test", "fourth.wild.test", "421"),
        ("third.wild.test", "through.wild.test", "421"),
        ("third.wild.test", "second.test", "421"),
        ("third.wild.test", "unknown.test", "421"),
        ("fourth.wild.test", "fourth.wild.test", "app"),
        ("fourth.wild.test", "fifth.wild.test", "421"),
        ("unknown.test", "first.test", "ratings-v1"),
        ("unknown.test", "unknown.test", "404"),
    ):
        client = "client" if sni == "fourth.wild.test" else ""
        assert over(lab, sni, host, client=client) == [answer], (sni, host)


def test_misdirected_is_said_before_any_policy(lab: Lab) -> None:
    """A browser that heard 403 instead would not ask again."""
    denied = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: names, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules:
  - to: [{operation: {hosts: [b.shop.test]}}]
    when: [{key: connection.sni, values: [a.shop.test]}]
  - to: [{operation: {paths: [/x]}}]
---
"""
    one, two = gateway("one", server("one", "[a.shop.test]")), gateway("two", server("two", "[b.shop.test]"))
    lab.configure(one, two, SHOPS, denied)
    assert over(lab, "a.shop.test", "a.shop.test", "b.shop.test") == ["ratings-v1", "421"]
    assert over(lab, "b.shop.test", "b.shop.test") == ["details-v1"]
    context = lab.certificates.client_context("", ("h2",))
    with Caller2(lab, "gateway", 8443, tls=context, sni="a.shop.test") as caller:
        assert caller.ask("a.shop.test", path="/x")[0].status == 403


def test_with_very_many_hosts_whatever_a_server_does_not_have_is_misdirected(lab: Lab) -> None:
    """A table lists so many names of others and no more: it would grow with the square of the servers."""
    many = [server(f"many-{index}", f"[h{index}.many.test]") for index in range(MOST_ELSEWHERE)]
    wide = [server("wide", "['*.shop.test']"), server("inside", "[b.shop.test]")]
    lab.configure(gateway("one", *many, *wide), gateway("two", server("x", "[nothing.test]")), SHOPS)
    assert over(lab, "a.shop.test", "a.shop.test", "b.shop.test", "h7.many.test", "unknown.test", "z.shop.test") == [
        "ratings-v1",
        "421",
        "421",
        "421",
        "404",
    ]


def dialled(lab: Lab, sni: str, *alpn: str) -> tuple[str, str]:
    """Who answers mutual TLS behind the gateway, and the server name that arrives; empty without a connection."""
    context = lab.certificates.client_context("client", alpn)
    try:
        with lab.connect("gateway", 8443, tls=context, sni=sni) as one:
            seen = exchange(one)
            assert isinstance(one, ssl.SSLSocket)
            return str(seen.get("server", "")), str(seen.get("sni", ""))
    except OSError:
        return "", ""


def test_mutual_tls_is_passed_on_by_its_server_name(lab: Lab) -> None:
    lab.configure(
        gateway("east-west", server("tls", "['*.local']", "TLS", "AUTO_PASSTHROUGH", "")),
        routes("other", "[a.shop.test]", "ratings", "[istio-system/one]"),
    )
    names = "reviews.default.svc.cluster.local"
    for subset, port in (("v2", 9000), ("v3", 9443)):
        sni = f"outbound_.{port}_.{subset}_.{names}"
        assert dialled(lab, sni, "istio") == (f"reviews-{subset}", sni)
    assert dialled(lab, f"outbound_.9080_._.{names}", "istio-h2", "istio")[0].startswith("reviews-v")
    for sni in (
        f"outbound_.9080_.v9_.{names}",
        f"outbound_.1_._.{names}",
        "outbound_.9080_._.nothing.default.svc.cluster.local",
        f"outbound|9080||{names}",
        f"automatic|outbound_.9080_._.{names}",
        names,
    ):
        assert dialled(lab, sni, "istio") == ("", ""), sni
    assert dialled(lab, f"outbound_.9080_._.{names}", "h2") == ("", "")
    assert dialled(lab, f"outbound_.9080_._.{names}") == ("", "")


def test_only_services_that_the_server_names_are_passed_on(lab: Lab) -> None:
    hosts = "[reviews.default.svc.cluster.local]"
    lab.configure(gateway("east-west", server("tls", hosts, "TLS", "AUTO_PASSTHROUGH", "")))
    assert dialled(lab, "outbound_.9000_.v1_.reviews.default.svc.cluster.local", "istio")[0] == "reviews-v1"
    assert dialled(lab, "outbound_.9000_._.ratings.default.svc.cluster.local", "istio") == ("", "")
