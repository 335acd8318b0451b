"""Which VirtualService counts, and which of its rules."""

from __future__ import annotations

import pytest

from lateen.api.istio.http_route import HTTPRoute
from lateen.api.istio.sidecar import Sidecar
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import ref_of
from lateen.engine import Graph
from lateen.model.virtual_services import (
    MESH,
    LeftOut,
    Reader,
    gateway_virtual_services,
    http_rules,
    left_out,
    mesh_virtual_service,
    rules_of,
    source_labels,
)
from lateen.model.visibility import Client
from tests.configuration import graph_of, service, virtual_service

REVIEWS = "reviews.default.svc.cluster.local"
TO_V1 = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}"


def chosen(graph: Graph, host: str = REVIEWS, namespace: str = "default") -> str | None:
    ref = graph.pull(mesh_virtual_service, Client(namespace), host)
    return f"{ref.namespace}/{ref.name}" if ref else None


def rules(
    graph: Graph,
    gateway: str = MESH,
    namespace: str = "default",
    labels: tuple[tuple[str, str], ...] = (),
    port: int = 9080,
) -> list[str | None]:
    ref = ref_of(VirtualService, "default", "vs")
    return [each.http.name for each in graph.pull(http_rules, ref, Reader(gateway, namespace, labels), port)]


def test_the_oldest_counts() -> None:
    graph = graph_of(
        virtual_service("young", TO_V1, created="2026-01-02T00:00:00Z"),
        virtual_service("old", TO_V1, created="2026-01-01T00:00:00Z"),
    )
    assert chosen(graph) == "default/old"


def test_the_name_decides_between_equally_old_ones() -> None:
    assert chosen(graph_of(virtual_service("b", TO_V1), virtual_service("a", TO_V1))) == "default/a"


def test_private_counts_before_exported_before_public() -> None:
    hosts = f"hosts: [{REVIEWS}]"
    public = virtual_service("public", f"{{{hosts}}}", "a", "2026-01-01T00:00:00Z")
    exported = virtual_service("exported", f"{{{hosts}, exportTo: [default, b]}}", "b", "2026-01-02T00:00:00Z")
    private = virtual_service("private", f'{{{hosts}, exportTo: ["."]}}', "default", "2026-01-03T00:00:00Z")
    assert chosen(graph_of(public, exported, private)) == "default/private"
    assert chosen(graph_of(public, exported)) == "b/exported"
    assert chosen(graph_of(public, exported), namespace="c") == "a/public"
    assert chosen(graph_of(private), namespace="c") is None


def test_an_exact_host_counts_before_a_wildcard_and_a_long_one_before_a_short_one() -> None:
    every = virtual_service("every", '{hosts: ["*"]}', created="2026-01-01T00:00:00Z")
    services = virtual_service("services", '{hosts: ["*.svc.cluster.local"]}', created="2026-01-02T00:00:00Z")
    exact = virtual_service("exact", TO_V1, created="2026-01-03T00:00:00Z")
    assert chosen(graph_of(every, services, exact)) == "default/exact"
    assert chosen(graph_of(every, services)) == "default/services"
    assert chosen(graph_of(every)) == "default/every"


def test_a_short_host_means_a_service_of_the_objects_own_namespace() -> None:
    graph = graph_of(virtual_service("vs", TO_V1, namespace="other"))
    assert chosen(graph) is None
    assert chosen(graph, "reviews.other.svc.cluster.local") == "other/vs"


def test_one_for_gateways_only_does_not_count_for_sidecars() -> None:
    gateway = virtual_service("vs", "{hosts: [reviews], gateways: [front]}")
    both = virtual_service("vs", "{hosts: [reviews], gateways: [front, mesh]}")
    assert chosen(graph_of(gateway)) is None
    assert chosen(graph_of(both)) == "default/vs"


def test_a_sidecar_that_does_not_import_it_does_not_see_it() -> None:
    sidecar = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {egress: [{hosts: ["%s"]}]}
---"""
    vs = virtual_service("vs", f"{{hosts: [{REVIEWS}]}}", namespace="other")
    client = Client("default", ref_of(Sidecar, "default", "default"))
    for hosts, seen in (("default/*", False), (f"other/{REVIEWS}", True), ("*/*", True)):
        graph = graph_of(sidecar % hosts, vs, service("reviews"))
        assert (graph.pull(mesh_virtual_service, client, REVIEWS) is not None) is seen


def test_matches_select_clients_and_ports() -> None:
    graph = graph_of(
        virtual_service(
            "vs",
            """
  hosts: [reviews]
  gateways: [mesh, front]
  http:
  - {name: labels, match: [{sourceLabels: {app: web}}, {sourceLabels: {app: api, version: v2}}]}
  - {name: namespace, match: [{sourceNamespace: default}]}
  - {name: port, match: [{port: 80}]}
  - {name: front, match: [{gateways: [front]}]}
  - {name: mesh, match: [{gateways: [mesh], sourceLabels: {app: web}}]}
  - {name: all}
""",
        )
    )
    assert rules(graph) == ["namespace", "all"]
    assert rules(graph, namespace="x") == ["all"]
    assert rules(graph, labels=(("app", "web"),)) == ["labels", "namespace", "mesh", "all"]
    assert rules(graph, labels=(("app", "other"), ("version", "v2"))) == ["namespace", "all"]
    assert rules(graph, labels=(("app", "api"),)) == ["namespace", "all"]
    assert rules(graph, namespace="x", port=80) == ["port", "all"]
    assert rules(graph, gateway="default/front", namespace="x") == ["front", "all"]
    labels = graph.pull(source_labels, ref_of(VirtualService, "default", "vs"))
    assert labels == {("app", "web"), ("app", "api"), ("version", "v2")}


def test_gateways_see_all_in_order() -> None:
    bound = "{hosts: [a.com], gateways: [default/front]%s}"
    graph = graph_of(
        virtual_service("young", bound % "", created="2026-01-03T00:00:00Z"),
        virtual_service("old", bound % "", "other", created="2026-01-01T00:00:00Z"),
        virtual_service("hidden", bound % ', exportTo: ["."]', "other"),
        virtual_service("own", bound % ', exportTo: ["."]', "gateways", created="2026-01-05T00:00:00Z"),
    )
    found = graph.pull(gateway_virtual_services, "gateways", "default/front")
    assert [each.ref.name for each in found] == ["old", "young", "own"]


DELEGATING = """
  hosts: [shop.com]
  http:
  - name: root
    match: [{uri: {prefix: /a}, headers: {x: {exact: "1"}}}]
    timeout: 5s
    headers: {request: {set: {from: root, root: "yes"}}}
    delegate: {name: child, namespace: other}
  - {name: last, route: [{destination: {host: web}}]}
"""


def delegated(child: str, root: str = DELEGATING) -> tuple[HTTPRoute, ...]:
    graph = graph_of(virtual_service("root", root), virtual_service("child", child, "other"))
    return graph.pull(rules_of, ref_of(VirtualService, "default", "root"))


def test_a_delegate_narrows_its_root() -> None:
    child = """
  http:
  - name: child
    match: [{uri: {prefix: /a/b}}, {headers: {Y: {exact: "2"}}}]
    timeout: 1s
    headers: {request: {set: {from: child}}}
    route: [{destination: {host: api}}]
  - {name: unreachable, match: [{uri: {prefix: /z}}], route: [{destination: {host: api}}]}
  - {name: partly, match: [{uri: {prefix: /a/b}}, {uri: {exact: /c}}], route: [{destination: {host: api}}]}
  - {name: open, route: [{destination: {host: api}}]}
"""
    first, second, last = delegated(child)
    assert [each.name for each in (first, second, last)] == ["root-child", "root-open", "last"]
    assert [(each.uri.prefix if each.uri else None, sorted(each.headers)) for each in first.match] == [
        ("/a/b", ["x"]),
        ("/a", ["x", "y"]),
    ]
    assert first.timeout is not None
    assert first.timeout.seconds == 1
    assert second.timeout is not None
    assert second.timeout.seconds == 5
    assert first.headers is not None
    assert first.headers.request is not None
    assert first.headers.request.set == {"from": "child", "root": "yes"}
    assert first.route[0].destination.host == "api.other.svc.cluster.local"
    assert second.match[0].uri is not None
    assert second.match[0].uri.prefix == "/a"


@pytest.mark.parametrize(
    "child",
    [
        "{hosts: [other.com], http: [{route: [{destination: {host: api}}]}]}",  # has hosts of its own
        "{exportTo: [.], http: [{route: [{destination: {host: api}}]}]}",  # not exported to the root
        "{http: [{match: [{uri: {regex: '/a.*'}}], route: [{destination: {host: api}}]}]}",  # can't be one match
        "{http: [{match: [{headers: {x: {exact: '2'}}}], route: [{destination: {host: api}}]}]}",  # contradicts
    ],
)
def test_a_delegate_that_cannot_be_merged_is_left_out(child: str) -> None:
    assert [each.name for each in delegated(child)] == ["last"]


def joined(root: str, child: str) -> tuple[tuple[HTTPRoute, ...], tuple[LeftOut, ...]]:
    graph = graph_of(
        virtual_service("root", f"{{hosts: [a.b], http: [{{{root}, delegate: {{name: child}}}}]}}"),
        virtual_service("child", f"{{http: [{{{child}, route: [{{destination: {{host: api}}}}]}}]}}"),
    )
    ref = ref_of(VirtualService, "default", "root")
    return graph.pull(rules_of, ref), graph.pull(left_out, ref)


@pytest.mark.parametrize(
    ("root", "child", "why"),
    [
        ("match: [{uri: {prefix: /a}}]", "match: [{uri: {prefix: /b}}]", "uri prefix /b is not within prefix /a"),
        ("match: [{uri: {exact: /a}}]", "match: [{uri: {prefix: /a}}]", "uri prefix /a is not within exact /a"),
        ("match: [{uri: {prefix: /a}}]", "match: [{uri: {regex: /a.}}]", "regex /a. beside prefix /a"),
        ("match: [{headers: {X: {exact: a}}}]", "match: [{headers: {x: {}}}]", "header x {} is not within exact a"),
        ("match: [{queryParams: {x: {exact: a}}}]", "match: [{queryParams: {x: {exact: b}}}]", "query parameter x"),
        ("match: [{port: 80}]", "match: [{port: 81}]", "port 81 is not 80"),
        ("match: [{sourceLabels: {a: b}}]", "match: [{sourceLabels: {a: c}}]", "label a c is not b"),
        ("match: [{sourceNamespace: b}]", "match: [{sourceNamespace: c}]", "sourceNamespace c is not b"),
        ("match: [{gateways: [g]}]", "match: [{gateways: [g, mesh]}]", "gateways default/g, mesh are not all among"),
        (
            "match: [{uri: {prefix: /a}, ignoreUriCase: true}]",
            "match: [{uri: {prefix: /a}}]",
            "only one of them has ignoreUriCase",
        ),
        (
            "match: [{withoutHeaders: {x: {prefix: a}}}]",
            "match: [{withoutHeaders: {x: {exact: ab}}}]",
            "without header x prefix a is not within exact ab",
        ),
        (
            "match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]",
            "match: [{uri: {prefix: /a}}, {uri: {prefix: /c}}]",
            "its match[1] is not within the root's match: match[0]: uri prefix /c is not within prefix /a; match[1]: ",
        ),
    ],
)
def test_a_delegates_rule_outside_of_the_root_says_why(root: str, child: str, why: str) -> None:
    rules, lost = joined(root, child)
    assert rules == ()
    assert [(each.rule, each.number, each.delegate.name) for each in lost] == [(0, 0, "child")]
    assert why in lost[0].why


def test_what_must_not_match_is_narrower_when_it_is_wider() -> None:
    (rule,), lost = joined(
        "match: [{withoutHeaders: {X: {exact: ab}}}]", "match: [{withoutHeaders: {x: {prefix: a}, y: {}}}]"
    )
    assert lost == ()
    assert {name: text.prefix for name, text in rule.match[0].without_headers.items()} == {"x": "a", "y": None}


def test_a_delegates_gateways_are_of_its_own_namespace() -> None:
    graph = graph_of(
        virtual_service(
            "root", "{hosts: [a.b], gateways: [other/g], http: [{delegate: {name: child, namespace: other}}]}"
        ),
        virtual_service("child", "{http: [{match: [{gateways: [g]}], route: [{destination: {host: api}}]}]}", "other"),
    )
    ref = ref_of(VirtualService, "default", "root")
    assert len(graph.pull(http_rules, ref, Reader("other/g", "x"), 80)) == 1
    assert graph.pull(http_rules, ref, Reader("default/g", "x"), 80) == ()


def test_the_delegates_mirror_takes_the_place_of_the_roots() -> None:
    (rule,), _ = joined("mirror: {host: one}", "mirrors: [{destination: {host: two}}]")
    assert rule.mirror is None
    assert [each.destination.host for each in rule.mirrors] == ["two.default.svc.cluster.local"]
    (rule,), _ = joined("mirrors: [{destination: {host: one}}]", "timeout: 1s")
    assert len(rule.mirrors) == 1


@pytest.mark.parametrize(
    "name", ["front", "./front", "default/front", "front.default", "front.default.svc.cluster.local"]
)
def test_spellings_of_a_gateway(name: str) -> None:
    graph = graph_of(
        virtual_service("vs", f"{{hosts: [a.com], gateways: [{name}], http: [{{match: [{{gateways: [{name}]}}]}}]}}")
    )
    assert [each.ref.name for each in graph.pull(gateway_virtual_services, "edge", "default/front")] == ["vs"]
    assert rules(graph, "default/front") == [None]
