"""What a proxy shares is what it would get by itself, whatever is configured."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.resource import ResourceType
from lateen.envoy.types import CDS, TYPES
from lateen.intent.scope import ProxyKind, Scope
from lateen.model.workloads import Locality
from tests.configuration import objects, service
from tests.engine.test_sharing import NAMES, NAMESPACES, names, namespaces, others, services

LABELS = ((), (("app", "a"),), (("app", "b"), ("version", "v1")))
SCOPES = [
    Scope(
        kind,
        namespace,
        labels,
        ports=(("http", 8080),),
        locality=Locality("east", zone),
        node=zone,
        on_demand=on_demand,
    )
    for kind, namespace, labels, zone, on_demand in (
        (ProxyKind.SIDECAR, "default", LABELS[0], "1", False),
        (ProxyKind.SIDECAR, "default", LABELS[1], "2", True),
        (ProxyKind.SIDECAR, "b", LABELS[2], "1", True),
        (ProxyKind.SIDECAR, "b", LABELS[1], "2", False),
        (ProxyKind.SIDECAR, "istio-system", LABELS[2], "2", False),
        (ProxyKind.ROUTER, "b", LABELS[1], "1", False),
    )
]
HOSTS = ("a", "a.b", "a.default.svc.cluster.local", "b.default", "10.96.0.1", "x.example", "nobody.test", "240.240.0.1")
ASKED = [f"{table}/{host}" for table in (80, 81) for host in HOSTS]

SPECS = {
    "Sidecar": (
        "{egress: [{hosts: ['./*']}]}",
        "{workloadSelector: {labels: {app: a}}, egress: [{hosts: ['default/*', '~/*']}]}",
    ),
    "EnvoyFilter": tuple(
        f"{{{selector}configPatches: [{{applyTo: {patch}}}]}}"
        for selector in ("", "workloadSelector: {labels: {app: a}}, ")
        for patch in (
            "CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 9s}}",
            "CLUSTER, patch: {operation: ADD, value: {name: added, connect_timeout: 9s}}",
            "CLUSTER, match: {cluster: {portNumber: 80}}, patch: {operation: REMOVE}",
            "LISTENER, match: {context: SIDECAR_OUTBOUND}, patch: {operation: MERGE, value: {stat_prefix: x}}",
            "HTTP_ROUTE, patch: {operation: MERGE, value: {name: x}}",
        )
    ),
    "DestinationRule": (
        "{host: a, trafficPolicy: {outlierDetection: {}}}",
        "{host: '*.default.svc.cluster.local', subsets: [{name: v1, trafficPolicy: {outlierDetection: {}}}]}",
        "{host: b, trafficPolicy: {outlierDetection: {}, "
        "loadBalancer: {localityLbSetting: {failoverPriority: [app]}}}}",
    ),
    "VirtualService": (
        "{hosts: [a], http: [{match: [{sourceLabels: {app: b}}], route: [{destination: {host: b}}]}]}",
        "{hosts: [a], tcp: [{match: [{sourceLabels: {version: v1}}], route: [{destination: {host: b}}]}]}",
    ),
}


@st.composite
def more(draw: st.DrawFn) -> Object:
    kind = draw(st.sampled_from(sorted(SPECS)))
    version = "v1alpha3" if kind == "EnvoyFilter" else "v1"
    return objects(
        f"apiVersion: networking.istio.io/{version}\nkind: {kind}\nmetadata: {{name: {draw(names)}, "
        f"namespace: {draw(namespaces)}}}\nspec: {draw(st.sampled_from(SPECS[kind]))}\n"
    )[0]


@st.composite
def services_near(draw: st.DrawFn) -> Object:
    says = draw(
        st.sampled_from(["trafficDistribution: PreferSameNode", "internalTrafficPolicy: Local", "type: ClusterIP"])
    )
    port = draw(st.sampled_from(["http", "tcp", "auto"]))
    text = service(draw(names), 80, draw(st.sampled_from(["10.96.0.1", "10.96.0.2"])), draw(namespaces))
    return objects(text.replace("spec: {", f"spec: {{{says}, ").replace("name: http", f"name: {port}"))[0]


SLICES = [
    each
    for number, name in enumerate(NAMES)
    for namespace in NAMESPACES
    for each in objects(
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}-1, "
        f"namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\nports: [{{name: http, port: 80}}]\n"
        f"endpoints: [{{addresses: [10.1.0.{number}], zone: '1', nodeName: '1', conditions: {{ready: true}}}}, "
        f"{{addresses: [10.2.0.{number}], zone: '2', nodeName: '2', conditions: {{ready: true}}}}]\n"
    )
]


NODES = [
    each
    for zone in ("1", "2")
    for each in objects(
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: '{zone}', namespace: '', labels: "
        f"{{topology.kubernetes.io/region: east, topology.kubernetes.io/zone: '{zone}'}}}}\n"
    )
]


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(services(), services_near(), others(), more()), max_size=6))
def test_levels_make_what_each_proxy_would_get(configured: list[Object]) -> None:
    graph = Graph()
    graph.commit(transaction([*NODES, *SLICES, *configured]))
    for scope in SCOPES:
        for kind in TYPES:
            shares = graph.pull(kind.shares, scope)
            listed = set(graph.pull(kind.names, scope))
            asked = {*listed, *graph.pull(CDS.names, scope)} if kind.short == "EDS" else set(listed)
            if kind.resolve is not None and scope.on_demand:
                for name in ASKED:
                    found = graph.pull(kind.resolve, scope, name)
                    by = shares.levels[kind.level(shares, name)]
                    assert graph.pull(kind.resolve, by, name) == found, (scope, name, by)
                    asked.add(found)
            if kind.short == "CDS" and scope.on_demand:
                asked |= {"10.96.0.1:80", *(f"outbound|80||{host}.default.svc.cluster.local" for host in NAMES)}
            for name in asked:
                by = shares.levels[kind.level(shares, name)]
                assert graph.pull(kind.resource, by, name) == graph.pull(kind.resource, scope, name), (name, scope, by)
            if kind.names_at is not None:
                assert _listed(graph, kind, scope) == listed, (kind.short, scope)


def _listed(graph: Graph, kind: ResourceType, scope: Scope) -> set[str]:
    """What is listed at all levels, each name where it belongs."""
    assert kind.names_at is not None
    shares = graph.pull(kind.shares, scope)
    found: set[str] = set()
    for level, by in enumerate(shares.levels):
        if by not in shares.levels[1:level]:
            names_there = graph.pull(kind.names_at, by, level)
            found.update(each for each in names_there if shares.levels[kind.level(shares, each)] == by)
    return found
