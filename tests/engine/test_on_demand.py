"""Looked up one by one, virtual hosts are those of the whole table, whatever is configured."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.intent.on_demand import below, find_host, spare_wildcard, table_host, without_port
from lateen.intent.route_table import ServiceHost, sidecar_hosts
from lateen.model.hosts import covers, most_specific
from lateen.model.visibility import Client
from tests.configuration import objects, service, virtual_service

NAMES = ("a", "b", "svc")
NAMESPACES = ("default", "b")
CLIENTS = (Client("default"), Client("b"))
PORTS = (80, 9080)
HOSTS = (
    "a",
    "x.example",
    "y.x.example",
    "*.example",
    "*.x.example",
    "*.svc.cluster.local",
    "*.b",
    "a.default",
    "x.a.default",
    "*",
    "10.96.0.1",
)
ASKED = (
    *(host for host in HOSTS if not host.startswith("*")),
    *(f"{name}{rest}" for name in NAMES for namespace in NAMESPACES for rest in ("", f".{namespace}")),
    *(f"{name}.{namespace}.svc" for name in NAMES for namespace in NAMESPACES),
    *(f"{name}.{namespace}.svc.cluster.local" for name in NAMES for namespace in NAMESPACES),
    "a.default.svc.cluster.local.",
    "pod-0.a.default.svc.cluster.local",
    "pod-0.a",
    "b.a",
    "a.b.b",
    "10.96.0.2",
    "240.240.0.1",
    "nobody",
    "nobody.test",
)

namespaces = st.sampled_from(NAMESPACES)


@st.composite
def services(draw: st.DrawFn) -> Object:
    address = draw(st.sampled_from(["10.96.0.1", "10.96.0.2", "None"]))
    return objects(service(draw(st.sampled_from(NAMES)), draw(st.sampled_from(PORTS)), address, draw(namespaces)))[0]


@st.composite
def entries(draw: st.DrawFn) -> Object:
    hosts = draw(st.lists(st.sampled_from(HOSTS[1:-2]), min_size=1, max_size=2, unique=True))
    addresses = draw(st.sampled_from(["", "addresses: [10.96.0.1], "]))
    port = draw(st.sampled_from(PORTS))
    return objects(
        f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {draw(st.sampled_from(NAMES))}, namespace: {draw(namespaces)}}}
spec: {{hosts: {hosts}, {addresses}ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: DNS,
  exportTo: [{draw(st.sampled_from(["'*'", "."]))}]}}
---"""
    )[0]


@st.composite
def virtual_services(draw: st.DrawFn) -> Object:
    hosts = draw(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True))
    export = draw(st.sampled_from(["", 'exportTo: ["."], ']))
    spec = f"{{{export}hosts: {hosts}, http: [{{directResponse: {{status: 200}}}}]}}"
    return objects(virtual_service(draw(st.sampled_from(NAMES)), spec, draw(namespaces)))[0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(services(), entries(), virtual_services()), max_size=7))
def test_a_look_up_finds_what_the_table_has(configured: list[Object]) -> None:
    graph = Graph()
    graph.commit(transaction(configured))
    for client in CLIENTS:
        for port in PORTS:
            table = graph.pull(sidecar_hosts, client, port)
            for each in table:
                assert graph.pull(table_host, client, each.host, port) == each
            domains = {domain: each for each in table for domain in each.domains}
            for asked in ASKED:
                best = asked if asked in domains else most_specific(asked, [each for each in domains if each != asked])
                expected = domains[best].host if best is not None else None
                assert graph.pull(find_host, client, port, asked) == expected, (asked, table)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(services(), entries(), virtual_services()), max_size=7))
def test_what_a_wildcard_hides_comes_along(configured: list[Object]) -> None:
    graph = Graph()
    graph.commit(transaction(configured))
    for client in CLIENTS:
        for port in PORTS:
            table = graph.pull(sidecar_hosts, client, port)
            for each in table:
                hidden = {other.host for other in table if other is not each and _hides(each, other)}
                assert set(graph.pull(below, client, each)) == hidden, (each, table)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(services(), entries(), virtual_services()), max_size=7))
def test_a_wildcard_for_unknown_names_covers_no_known_one(configured: list[Object]) -> None:
    graph = Graph()
    graph.commit(transaction(configured))
    for client in CLIENTS:
        for port in PORTS:
            domains = {domain for each in graph.pull(sidecar_hosts, client, port) for domain in each.domains}
            for asked in ASKED:
                if graph.pull(find_host, client, port, asked) is not None:
                    continue
                pattern = graph.pull(spare_wildcard, client, port, asked)
                if pattern is not None:
                    assert covers(pattern, asked)
                    assert not [each for each in domains if covers(pattern, each) or each == pattern], (pattern, asked)


def test_the_wildcard_for_an_unknown_name_is_the_broadest() -> None:
    graph = Graph()
    entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: default}\n"
    spec = "spec: {hosts: [in.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n---"
    graph.commit(transaction(objects(entry + spec)))
    found = {
        name: graph.pull(spare_wildcard, CLIENTS[0], 80, name)
        for name in ("a.b.test", "x.example.com", "y.other.com", "single", "10.1.2.3", "a.default.svc.cluster.local")
    }
    assert found == {
        "a.b.test": "*.test",
        "x.example.com": None,
        "y.other.com": "*.other.com",
        "single": None,
        "10.1.2.3": None,
        "a.default.svc.cluster.local": None,
    }


def _hides(first: ServiceHost, second: ServiceHost) -> bool:
    return any(one.startswith("*") and covers(one, other) for one in first.domains for other in second.domains)


def test_ports_are_no_part_of_a_host() -> None:
    asked = ("a.b:80", "A.B", "[::1]:80", "[::1]", "10.0.0.1:9080", "::1")
    assert [without_port(each) for each in asked] == ["a.b", "a.b", "[::1]", "[::1]", "10.0.0.1", "::1"]
