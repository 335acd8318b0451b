"""ServiceEntry, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.coverage.cases.destination_rule import _route
from tests.lab.client import ask, line, shares
from tests.lab.lab import Lab

KIND = "ServiceEntry"
HTTP: Json = {"number": 9080, "name": "http", "protocol": "HTTP"}


def entry(namespace: str = "default", **spec: Any) -> Json:
    base: Json = {
        "hosts": ["outside.test"],
        "addresses": ["10.97.0.1"],
        "ports": [HTTP],
        "resolution": "STATIC",
        "location": "MESH_EXTERNAL",
        "endpoints": [{"address": "10.88.3.1"}],
    }
    return new(
        KIND, "outside", {each: value for each, value in {**base, **spec}.items() if value is not None}, namespace
    )


def rule(**policy: Any) -> str:
    return yaml.safe_dump(new("DestinationRule", "outside", {"host": "outside.test", **policy})) + "---\n"


def who(host: str = "outside", authority: str = "outside.test", **how: Any) -> Probe:
    def probe(lab: Lab) -> str | int:
        answer = ask(lab, host, authority=authority, **how)
        return answer.server if answer.status == 200 else answer.status

    return probe


def everybody(host: str = "outside", authority: str = "outside.test") -> Probe:
    return lambda lab: tuple(sorted(shares(lab, 24, host, authority=authority)))


def part(name: str) -> Probe:
    return lambda lab: ask(lab, "outside", authority="outside.test").seen.get(name)


def case(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any, beside: str = "") -> Case:
    return Case(KIND, f"spec.{place}", document, value, probe, before, after, beside)


def refusals() -> Iterator[Refusal]:
    yield Refusal(KIND, "spec.endpoints[0].network", entry(), "other", "LTN0001")


def cases() -> Iterator[Case]:
    one, two = "outside-1", "outside-2"
    yield case("hosts[0]", entry(), "other.test", who(), one, 503)
    tcp: Json = {"number": 9000, "name": "tcp", "protocol": "TCP"}
    yield case("addresses[0]", entry(ports=[tcp]), "10.97.0.9", _lines, one, None)
    yield case("exportTo[0]", entry("other"), ".", who(), one, 503)
    yield from _endpoints()
    yield from _ports()
    mutual: Json = {
        "address": "10.88.3.2",
        "labels": {"security.istio.io/tlsMode": "istio"},
        "serviceAccount": "default",
    }
    secured = entry(endpoints=[mutual], ports=[{**HTTP, "targetPort": 443}])
    yield case("location", secured, "MESH_INTERNAL", part("tls"), False, True)
    names = rule(trafficPolicy={"tls": {"mode": "SIMPLE", "caCertificates": "@files/root.pem"}})
    secured = entry(ports=[{**HTTP, "targetPort": 443}])
    yield case("subjectAltNames[0]", secured, "nobody.test", part("tls"), True, None, names)
    selecting = entry(workloadSelector={"labels": {"app": "ratings"}}, endpoints=None)
    yield case("workloadSelector.labels{app}", selecting, "details", who(), "ratings-v1", "details-v1")
    dialled = who("10.88.3.2")
    passing = entry(workloadSelector={"labels": {"app": "ratings"}}, endpoints=None, resolution="NONE")
    yield case("resolution", passing, "STATIC", dialled, two, "ratings-v1")
    known = entry(hosts=["one.test"], endpoints=None, resolution="NONE")
    yield case("resolution", known, "DNS", who("10.88.3.2", "one.test"), two, one)
    wild = entry(hosts=["*.test"], addresses=None, endpoints=None, resolution="NONE")
    yield case("resolution", wild, "DYNAMIC_DNS", who("10.88.3.2", "one.test"), two, one)
    both = entry(hosts=["two.test"], endpoints=None, resolution="DNS")
    yield case("resolution", both, "DNS_ROUND_ROBIN", _spread, True, False)


def _lines(lab: Lab) -> str | None:
    return line(lab, "outside").get("server")


def _spread(lab: Lab) -> bool:
    return len(everybody("outside", "two.test")(lab)) > 1


def _endpoints() -> Iterator[Case]:
    one, two = "outside-1", "outside-2"
    at = "endpoints[0]"
    yield case(f"{at}.address", entry(), "10.88.3.2", who(), one, two)
    subset = rule(subsets=[{"name": "one", "labels": {"version": "v1"}}]) + _route("outside.test", 9080, "one", {})
    labelled = entry(endpoints=[{"address": "10.88.3.1", "labels": {"version": "v2"}}])
    yield case(f"{at}.labels{{version}}", labelled, "v1", who(), 503, one, subset)
    near = rule(trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 100}})
    placed = entry(
        endpoints=[{"address": "10.88.3.1", "locality": "east/a"}, {"address": "10.88.3.2", "locality": "east/b"}]
    )
    yield case(f"{at}.locality", placed, "north/n", everybody(), (one,), (two,), near)
    yield case(f"{at}.ports{{http}}", entry(), 9082, part("port"), 9080, 9082)
    both = entry(endpoints=[{"address": "10.88.3.1", "weight": 1}, {"address": "10.88.3.2", "weight": 1}])
    yield case(f"{at}.weight", both, 100_000, everybody(), (one, two), (one,))
    mutual = rule(trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}})
    named = entry(
        endpoints=[{"address": "10.88.3.2", "serviceAccount": "default"}],
        ports=[{**HTTP, "targetPort": 443}],
        location="MESH_INTERNAL",
    )
    yield case(f"{at}.serviceAccount", named, "other", part("tls"), True, None, mutual)


def _ports() -> Iterator[Case]:
    yield case("ports[0].number", entry(), 9081, who(), "outside-1", 503)
    yield case("ports[0].targetPort", entry(), 9082, part("port"), 9080, 9082)
    teapot = {"hosts": ["outside.test"], "http": [{"directResponse": {"status": 418}}]}
    brewed = yaml.safe_dump(new("VirtualService", "outside", teapot)) + "---\n"
    yield case("ports[0].protocol", entry(), "TCP", who(), 418, "outside-1", brewed)
    yield case("ports[0].protocol", entry(), "HTTP2", part("protocol"), "http/1.1", "h2")
    selecting = entry(workloadSelector={"labels": {"app": "vm"}}, endpoints=None)
    machine = new("WorkloadEntry", "vm", {"address": "10.88.3.1", "ports": {"http": 9082}, "labels": {"app": "vm"}})
    yield case("ports[0].name", selecting, "web", part("port"), 9082, 9080, yaml.safe_dump(machine) + "---\n")
