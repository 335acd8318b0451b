"""Route tables under random changes: incremental equals from scratch, and only what is concerned runs again."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.resource import Resource
from lateen.envoy.route import route_configuration, route_names
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.ids import Ref
from lateen.model.hosts import covers, resolve
from tests.configuration import objects, service, virtual_service

SCOPES = (
    Scope(ProxyKind.SIDECAR, "default", (("app", "web"),)),
    Scope(ProxyKind.SIDECAR, "default", (("app", "api"),)),
    Scope(ProxyKind.SIDECAR, "other"),
    Scope(ProxyKind.ROUTER, "gateways", (("istio", "ingressgateway"),)),
)
NAMES = ("a", "b", "c", "d")
WILDCARD = "*.default.svc.cluster.local"
NAMESPACES = ("default", "other")
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---"""

names = st.sampled_from(NAMES)
namespaces = st.sampled_from(NAMESPACES)


@st.composite
def virtual_services(draw: st.DrawFn) -> Object:
    hosts = draw(
        st.lists(
            st.one_of(names, st.sampled_from([WILDCARD, "x.example"])),
            min_size=1,
            max_size=2,
            unique=True,
        )
    )
    gateways = draw(st.sampled_from(["", "gateways: [default/front], ", "gateways: [default/front, mesh], "]))
    export = draw(st.sampled_from(["", 'exportTo: ["."], ', "exportTo: [other], "]))
    rules: list[str] = []
    for _ in range(draw(st.integers(0, 2))):
        match = draw(
            st.sampled_from(
                ["", "match: [{uri: {prefix: /x}}], ", "match: [{sourceLabels: {app: web}}], ", "match: [{port: 80}], "]
            )
        )
        rules.append(
            f"{{{match}route: [{{destination: {{host: {draw(names)}, subset: v{draw(st.integers(1, 2))}}}}}]}}"
        )
    created = draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]))
    spec = f"{{{gateways}{export}hosts: {hosts}, http: [{', '.join(rules)}]}}"
    return objects(virtual_service(draw(names), spec, draw(namespaces), created))[0]


@st.composite
def services(draw: st.DrawFn) -> Object:
    return objects(service(draw(names), draw(st.sampled_from([80, 9080])), "10.96.0.1", draw(namespaces)))[0]


@st.composite
def destination_rules(draw: st.DrawFn) -> Object:
    return objects(
        f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {draw(names)}, namespace: {draw(namespaces)}}}
spec:
  host: {draw(names)}
  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: {draw(names)}}}}}}}
"""
    )[0]


changes = st.lists(
    st.tuples(st.booleans(), st.one_of(virtual_services(), virtual_services(), services(), destination_rules())),
    min_size=1,
    max_size=3,
)


def tables(graph: Graph) -> dict[tuple[Scope, str], Resource | None]:
    return {
        (scope, name): graph.pull(route_configuration, scope, name)
        for scope in SCOPES
        for name in graph.pull(route_names, scope)
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, min_size=1, max_size=8))
def test_incremental_equals_from_scratch(history: list[list[tuple[bool, Object]]]) -> None:
    held: dict[Ref, Object] = {each.ref: each for each in objects(GATEWAY)}
    graph = Graph()
    graph.commit(transaction(held.values()))
    tables(graph)
    for step in history:
        put = {each.ref: each for delete, each in step if not delete}
        gone = [each.ref for delete, each in step if delete and each.ref not in put]
        before = dict(held)
        held.update(put)
        for ref in gone:
            held.pop(ref, None)
        graph.commit(transaction(put.values(), gone))
        with graph.tracing() as ran:
            found = tables(graph)
        assert found == tables(scratch(held))
        if not any(each.KIND == "Service" for _, each in step):
            concerned = concerned_hosts(before, held)
            for each in ran:
                if each.startswith(("sidecar_routes(", "service_routes(")):
                    assert any(f"'{host}'" in each or f", {host}," in each for host in concerned), each


def scratch(held: Mapping[Ref, Object]) -> Graph:
    graph = Graph()
    graph.commit(transaction(held.values()))
    return graph


def concerned_hosts(before: Mapping[Ref, Object], after: Mapping[Ref, Object]) -> set[str]:
    """The services that a change of VirtualServices and DestinationRules can be about: hosts that a changed
    VirtualService names, hosts that a changed DestinationRule is for, and those whose rules lead to one of the latter
    or to a host with rules that only some namespaces see: these namespaces have routes of their own then."""
    everything = [f"{name}.{namespace}.svc.cluster.local" for name in NAMES for namespace in NAMESPACES]
    everything += ["x.example", WILDCARD]
    concerned: set[str] = set()
    ruled: set[str] = set()
    for ref in before.keys() | after.keys():
        if before.get(ref) == after.get(ref):
            continue
        for each in (before.get(ref), after.get(ref)):
            if isinstance(each, VirtualService):
                concerned |= named(each, everything)
                ruled |= named(each, everything) if each.spec.export_to not in ((), ("*",)) else set()
            elif isinstance(each, DestinationRule):
                ruled.add(resolve(each.spec.host, each.namespace))
    for each in [*before.values(), *after.values()]:
        if isinstance(each, VirtualService):
            targets = {resolve(to.destination.host, each.namespace) for rule in each.spec.http for to in rule.route}
            if targets & ruled:
                concerned |= named(each, everything)
    return concerned | ruled


def named(each: VirtualService, everything: list[str]) -> set[str]:
    patterns = [resolve(host, each.namespace) for host in each.spec.hosts]
    return {host for host in everything for pattern in patterns if covers(pattern, host)}
