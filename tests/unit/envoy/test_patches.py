"""Patches of EnvoyFilters on what lateen generates: each kind, operation and match; what is left alone is not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from msgspec.structs import replace

from lateen.api.istio.envoy_filter import EnvoyFilter
from lateen.api.objects import ref_of
from lateen.engine import Graph
from lateen.envoy import patch
from lateen.envoy.types import CDS, ECDS, LDS, RDS
from lateen.intent.scope import Capabilities, Proxy, ProxyKind, Scope, scope_of
from tests.configuration import graph_of, service

Json = dict[str, Any]

SIDECAR = Scope(ProxyKind.SIDECAR, "default", (("app", "web"),))
OTHER = Scope(ProxyKind.SIDECAR, "other", (("app", "web"),))
ROUTER = Scope(ProxyKind.ROUTER, "istio-system", (("istio", "ingressgateway"),))
REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"
WORLD = (
    service("reviews", 9080, "10.96.0.2")
    + service("ratings", 9080, "10.96.0.3")
    + """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.88.0.9}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.4, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http-front, protocol: HTTP}, hosts: ["*"]}]
---
"""
)


def envoy_filter(*patches: Json, name: str = "patch", namespace: str = "default", **spec: Any) -> str:
    document = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": namespace, **spec.pop("metadata", {})},
        "spec": {"configPatches": list(patches), **spec},
    }
    return f"\n---\n{json.dumps(document)}\n---\n"


def one(apply_to: str, operation: str, value: Any = None, match: str = "", **more: Any) -> Json:
    """A patch; `match` is YAML."""
    made: Json = {"operation": operation, **more}
    if value is not None:
        made["value"] = yaml.safe_load(value) if isinstance(value, str) else value
    return {"applyTo": apply_to, "match": yaml.safe_load(match or "{}"), "patch": made}


def cluster(graph: Graph, name: str = REVIEWS, scope: Scope = SIDECAR) -> Cluster | None:
    made = graph.pull(CDS.resource, scope, name)
    return Cluster.FromString(made.body) if made is not None else None


def listener(graph: Graph, name: str, scope: Scope = SIDECAR) -> Listener:
    made = graph.pull(LDS.resource, scope, name)
    assert made is not None
    return Listener.FromString(made.body)


def table(graph: Graph, name: str = "9080", scope: Scope = SIDECAR) -> RouteConfiguration:
    made = graph.pull(RDS.resource, scope, name)
    assert made is not None
    return RouteConfiguration.FromString(made.body)


def http_filters(found: Listener) -> list[list[str]]:
    """The names of HTTP filters, manager by manager."""
    return [[each.name for each in manager.http_filters] for manager in managers(found)]


def managers(found: Listener) -> list[HttpConnectionManager]:
    chains = [*found.filter_chains, found.default_filter_chain]
    return [
        HttpConnectionManager.FromString(each.typed_config.value)
        for chain in chains
        for each in chain.filters
        if each.name.endswith("http_connection_manager")
    ]


TIMEOUT = "connect_timeout: 7s"
LUA = """
name: envoy.filters.http.lua
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  default_source_code: {inline_string: "function envoy_on_request(h) end"}
"""


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ("", True),
        ("context: ANY", True),
        ("context: SIDECAR_OUTBOUND", True),
        ("context: SIDECAR_INBOUND", False),
        ("context: GATEWAY", False),
        (f"cluster: {{name: '{REVIEWS}'}}", True),
        ("cluster: {name: other}", False),
        ("cluster: {service: reviews.default.svc.cluster.local}", True),
        ("cluster: {service: ratings.default.svc.cluster.local}", False),
        ("cluster: {portNumber: 9080}", True),
        ("cluster: {portNumber: 80}", False),
        ("cluster: {subset: v1}", False),
        ("proxy: {proxyVersion: '^1\\.3.*'}", True),
        ("proxy: {proxyVersion: '^1\\.4.*'}", False),
    ],
)
def test_clusters_by_match(match: str, met: bool) -> None:
    graph = graph_of(WORLD, envoy_filter(one("CLUSTER", "MERGE", TIMEOUT, match)))
    found = cluster(graph)
    assert found is not None
    assert (found.connect_timeout.seconds == 7) is met
    made = graph.pull(CDS.resource, SIDECAR, REVIEWS)
    assert made is not None
    assert (ref_of(EnvoyFilter, "default", "patch") in made.origins) is met


def test_clusters_come_and_go() -> None:
    added = "{name: mine, type: STATIC, connect_timeout: 1s}"
    graph = graph_of(
        WORLD,
        envoy_filter(
            one("CLUSTER", "ADD", added, "context: SIDECAR_OUTBOUND"),
            one("CLUSTER", "REMOVE", match="cluster: {service: ratings.default.svc.cluster.local}"),
            one("CLUSTER", "MERGE", "connect_timeout: 3s", "cluster: {name: mine}"),
        ),
    )
    names = graph.pull(CDS.names, SIDECAR)
    assert "mine" in names
    assert not any("ratings" in each for each in names)
    mine = cluster(graph, "mine")
    assert mine is not None
    assert mine.connect_timeout.seconds == 3
    assert cluster(graph, REVIEWS.replace("reviews", "ratings")) is None
    assert "mine" not in graph.pull(CDS.names, ROUTER)
    assert "mine" not in graph.pull(CDS.names, OTHER)


def test_any_messages_are_merged_inside_and_lists_extended_or_replaced() -> None:
    merged = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {idle_timeout: 9s}
    """
    found = cluster(graph_of(WORLD, envoy_filter(one("CLUSTER", "MERGE", merged))))
    plain = cluster(graph_of(WORLD))
    assert found is not None
    assert plain is not None
    key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    before, after = plain.typed_extension_protocol_options[key], found.typed_extension_protocol_options[key]
    assert len(after.value) > len(before.value) > 0, "what was there stays"
    limits = "circuit_breakers: {thresholds: [{max_connections: 5}]}"
    for operation, count in (("MERGE", 2), ("MERGE_AND_REPLACE_LIST", 1)):
        made = cluster(graph_of(WORLD, envoy_filter(one("CLUSTER", operation, limits))))
        assert made is not None
        assert len(made.circuit_breakers.thresholds) == count
        assert made.circuit_breakers.thresholds[-1].max_connections.value == 5
    upgrade = f"""
    name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/{HttpConnectionManager.DESCRIPTOR.full_name}
      upgrade_configs: [{{upgrade_type: mine}}]
    """
    where = "{context: SIDECAR_OUTBOUND, listener: {portNumber: 9080}}"
    for operation in ("MERGE", "MERGE_AND_REPLACE_LIST"):
        graph = graph_of(WORLD, envoy_filter(one("NETWORK_FILTER", operation, upgrade, where)))
        (manager, *_) = managers(listener(graph, "0.0.0.0_9080"))
        assert [each.upgrade_type for each in manager.upgrade_configs] == ["websocket", "mine"], "as in Istio"


@pytest.mark.parametrize(
    ("operation", "sub", "extra", "place"),
    [
        ("INSERT_BEFORE", "envoy.filters.http.router", {}, -2),
        ("INSERT_BEFORE", "envoy.router", {}, -2),
        ("INSERT_FIRST", "", {}, 0),
        ("ADD", "", {}, -2),
        ("INSERT_FIRST", "", {"filterClass": "STATS"}, -2),
        ("ADD", "", {"filterClass": "AUTHN"}, 0),
    ],
)
def test_places_of_http_filters(operation: str, sub: str, extra: Json, place: int) -> None:
    named = f", subFilter: {{name: {sub}}}" if sub else ""
    match = (
        "{context: SIDECAR_INBOUND, listener: {portNumber: 8080, filterChain: "
        f"{{filter: {{name: envoy.filters.network.http_connection_manager{named}}}}}}}}}"
    )
    graph = graph_of(WORLD, envoy_filter(one("HTTP_FILTER", operation, LUA, match, **extra)))
    found = [each for each in http_filters(listener(graph, "virtualInbound")) if "envoy.filters.http.lua" in each]
    assert found
    for names in found:
        index = names.index("envoy.filters.http.lua")
        assert index == place % len(names)
    assert http_filters(listener(graph, "0.0.0.0_9080")) == http_filters(listener(graph_of(WORLD), "0.0.0.0_9080"))


def test_after_a_filter() -> None:
    match = (
        "{context: SIDECAR_OUTBOUND, listener: {filterChain: {filter: {name: envoy.filters.network."
        "http_connection_manager, subFilter: {name: envoy.filters.http.cors}}}}}"
    )
    graph = graph_of(WORLD, envoy_filter(one("HTTP_FILTER", "INSERT_AFTER", LUA, match)))
    (names,) = http_filters(listener(graph, "0.0.0.0_9080"))
    assert names[names.index("envoy.filters.http.cors") + 1] == "envoy.filters.http.lua"


def test_http_filters_are_removed_replaced_and_merged() -> None:
    match = (
        "{context: SIDECAR_OUTBOUND, listener: {filterChain: {filter: {name: envoy.filters.network."
        "http_connection_manager, subFilter: {name: envoy.filters.http.cors}}}}}"
    )
    plain = http_filters(listener(graph_of(WORLD), "0.0.0.0_9080"))
    gone = http_filters(
        listener(graph_of(WORLD, envoy_filter(one("HTTP_FILTER", "REMOVE", None, match))), "0.0.0.0_9080")
    )
    assert gone == [[each for each in names if each != "envoy.filters.http.cors"] for names in plain]
    swapped = graph_of(WORLD, envoy_filter(one("HTTP_FILTER", "REPLACE", LUA, match)))
    renamed = {"envoy.filters.http.cors": "envoy.filters.http.lua"}
    assert http_filters(listener(swapped, "0.0.0.0_9080")) == [[renamed.get(each, each) for each in n] for n in plain]
    off = graph_of(WORLD, envoy_filter(one("HTTP_FILTER", "MERGE", "{disabled: true}", match)))
    (manager,) = managers(listener(off, "0.0.0.0_9080"))
    assert [each.name for each in manager.http_filters if each.disabled] == ["envoy.filters.http.cors"]


def test_network_filters_keep_the_last_one_last() -> None:
    echo = """
    name: envoy.filters.network.rbac
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x}
    """
    match = "{context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 8080}}}"
    graph = graph_of(WORLD, envoy_filter(one("NETWORK_FILTER", "ADD", echo, match)))
    chains = listener(graph, "virtualInbound").filter_chains
    for chain in chains:
        names = [each.name for each in chain.filters]
        assert ("envoy.filters.network.rbac" in names) is (chain.filter_chain_match.destination_port.value == 8080)
        assert names[-1].endswith(("tcp_proxy", "http_connection_manager"))


def test_managers_are_merged_inside() -> None:
    value = """
    name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      server_name: mine
    """
    match = "{context: GATEWAY, listener: {filterChain: {filter: {name: envoy.http_connection_manager}}}}"
    graph = graph_of(WORLD, envoy_filter(one("NETWORK_FILTER", "MERGE", value, match), namespace="istio-system"))
    (manager,) = managers(listener(graph, "0.0.0.0_8080", ROUTER))
    assert manager.server_name == "mine"
    assert manager.rds.route_config_name == "http.8080"
    assert "mine" not in {each.server_name for each in managers(listener(graph, "0.0.0.0_9080"))}


def test_listeners_their_filters_and_chains() -> None:
    drop = (
        "{context: SIDECAR_OUTBOUND, listener: {name: virtualOutbound, filterChain: {name: virtualOutbound-blackhole}}}"
    )
    added = "{name: own, address: {socket_address: {address: 127.0.0.1, port_value: 9999}}}"
    graph = graph_of(
        WORLD,
        envoy_filter(
            one("LISTENER", "MERGE", "per_connection_buffer_limit_bytes: 1024", "listener: {portNumber: 9080}"),
            one("LISTENER_FILTER", "REMOVE", None, "listener: {listenerFilter: envoy.filters.listener.http_inspector}"),
            one("FILTER_CHAIN", "REMOVE", None, drop),
            one("LISTENER", "ADD", added, "context: SIDECAR_OUTBOUND"),
        ),
    )
    found = listener(graph, "0.0.0.0_9080")
    assert found.per_connection_buffer_limit_bytes.value == 1024
    assert "envoy.filters.listener.http_inspector" not in {each.name for each in found.listener_filters}
    assert "virtualOutbound-blackhole" not in {each.name for each in listener(graph, "virtualOutbound").filter_chains}
    assert "own" in graph.pull(LDS.names, SIDECAR)
    removed = graph_of(WORLD, envoy_filter(one("LISTENER", "REMOVE", None, "listener: {name: 0.0.0.0_9080}")))
    assert "0.0.0.0_9080" not in graph_of(WORLD, "").pull(CDS.names, SIDECAR)
    assert "0.0.0.0_9080" not in removed.pull(LDS.names, SIDECAR)
    assert removed.pull(LDS.resource, SIDECAR, "0.0.0.0_9080") is None


def test_tables_hosts_and_routes() -> None:
    host = "routeConfiguration: {name: '9080', vhost: {name: 'reviews.default.svc.cluster.local:9080'"
    header = "{response_headers_to_add: [{header: {key: x-a, value: b}}]}"
    teapot = "{match: {path: /tea}, direct_response: {status: 418}, name: tea}"
    graph = graph_of(
        WORLD,
        envoy_filter(
            one("ROUTE_CONFIGURATION", "MERGE", header, "routeConfiguration: {portNumber: 9080}"),
            one("VIRTUAL_HOST", "MERGE", header, f"{{{host}}}}}}}"),
            one("HTTP_ROUTE", "INSERT_FIRST", teapot, f"{{{host}}}}}}}"),
            one("HTTP_ROUTE", "MERGE", header, f"{{{host}, route: {{action: DIRECT_RESPONSE}}}}}}}}"),
            one("VIRTUAL_HOST", "REMOVE", None, "routeConfiguration: {vhost: {domainName: ratings}}"),
            one("VIRTUAL_HOST", "ADD", "{name: own, domains: [own.example]}", "routeConfiguration: {name: '9080'}"),
        ),
    )
    found = table(graph)
    hosts = {each.name: each for each in found.virtual_hosts}
    reviews = hosts["reviews.default.svc.cluster.local:9080"]
    assert len(found.response_headers_to_add) == len(reviews.response_headers_to_add) == 1
    assert reviews.routes[0].name == "tea"
    assert [len(each.response_headers_to_add) for each in reviews.routes] == [1, *[0] * (len(reviews.routes) - 1)]
    assert "own" in hosts
    assert not any("ratings" in each for each in hosts)


def test_inbound_tables_are_patched_inside_of_their_listener() -> None:
    match = (
        "{context: SIDECAR_INBOUND, routeConfiguration: {vhost: {name: 'inbound|http|8080', route: {name: default}}}}"
    )
    graph = graph_of(WORLD, envoy_filter(one("HTTP_ROUTE", "MERGE", "{route: {timeout: 4s}}", match)))
    routes = [
        route
        for manager in managers(listener(graph, "virtualInbound"))
        for host in manager.route_config.virtual_hosts
        if host.name == "inbound|http|8080"
        for route in host.routes
    ]
    assert routes
    assert {each.route.timeout.seconds for each in routes} == {4}


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ("gateway: default/front", True),
        ("gateway: default/other", False),
        ("portName: http-front", True),
        ("portName: other", False),
        ("portNumber: 8080", True),
        ("name: http.8080", True),
        ("name: http.80", False),
    ],
)
def test_tables_of_gateways(match: str, met: bool) -> None:
    value = "{request_headers_to_remove: [x-a]}"
    patch_ = one("ROUTE_CONFIGURATION", "MERGE", value, f"{{context: GATEWAY, routeConfiguration: {{{match}}}}}")
    found = table(graph_of(WORLD, envoy_filter(patch_, namespace="istio-system")), "http.8080", ROUTER)
    assert bool(found.request_headers_to_remove) is met


def test_extensions_are_resources_of_their_own() -> None:
    value = """
    name: mine
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
      default_source_code: {inline_string: ""}
    """
    graph = graph_of(WORLD, envoy_filter(one("EXTENSION_CONFIG", "ADD", value)))
    assert graph.pull(ECDS.names, SIDECAR) == ("mine",)
    assert graph.pull(ECDS.resource, SIDECAR, "mine") is not None
    assert graph.pull(ECDS.resource, OTHER, "mine") is None


def test_order_and_whom_they_mean() -> None:
    def seconds(graph: Graph, scope: Scope = SIDECAR) -> int:
        found = cluster(graph, REVIEWS, scope)
        assert found is not None
        return found.connect_timeout.seconds

    def timeout(number: int) -> Json:
        return one("CLUSTER", "MERGE", f"connect_timeout: {number}s")

    everywhere = envoy_filter(timeout(1), namespace="istio-system", name="z", priority=9)
    local = envoy_filter(timeout(2), name="a")
    assert seconds(graph_of(WORLD, everywhere, local)) == 2, "the root namespace's first"
    assert seconds(graph_of(WORLD, everywhere, local), OTHER) == 1
    late = envoy_filter(timeout(3), name="b", priority=-1)
    assert seconds(graph_of(WORLD, local, late)) == 2
    old = envoy_filter(timeout(4), name="zz", metadata={"creationTimestamp": "2020-01-01T00:00:00Z"})
    assert seconds(graph_of(WORLD, old, local)) == 2
    chosen = envoy_filter(timeout(5), workloadSelector={"labels": {"app": "web"}})
    assert seconds(graph_of(WORLD, chosen)) == 5
    not_chosen = envoy_filter(timeout(5), workloadSelector={"labels": {"app": "other"}})
    assert seconds(graph_of(WORLD, not_chosen)) != 5


def test_only_metadata_that_some_patch_asks_for_tells_proxies_apart() -> None:
    asking = {**one("CLUSTER", "MERGE", TIMEOUT), "match": {"proxy": {"metadata": {"TEAM": "shop"}}}}
    graph = graph_of(WORLD, envoy_filter(asking))
    proxy = Proxy(ProxyKind.SIDECAR, "default", "web", metadata=(("NAME", "web"), ("TEAM", "shop")))
    scope = graph.pull(scope_of, proxy)
    assert scope.metadata == (("TEAM", "shop"),)
    patched, other = cluster(graph, REVIEWS, scope), cluster(graph, REVIEWS, replace(scope, metadata=(("TEAM", "x"),)))
    assert patched is not None
    assert other is not None
    assert (patched.connect_timeout.seconds, other.connect_timeout.seconds) == (7, 10)
    assert graph_of(WORLD).pull(scope_of, proxy).metadata == ()


@pytest.mark.parametrize(
    ("patch", "whole"),
    [
        (one("LISTENER", "MERGE", "{stat_prefix: x}"), True),
        (one("NETWORK_FILTER", "INSERT_FIRST", "{name: x}", "{listener: {portNumber: 3306}}"), True),
        (
            one(
                "NETWORK_FILTER",
                "MERGE",
                "{name: x}",
                "{listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}",
            ),
            False,
        ),
        (one("LISTENER", "MERGE", "{stat_prefix: x}", "{context: SIDECAR_INBOUND}"), False),
        (one("LISTENER", "MERGE", "{stat_prefix: x}", "{listener: {name: virtualOutbound}}"), False),
        (one("HTTP_FILTER", "ADD", "{name: x}"), False),
        (one("VIRTUAL_HOST", "MERGE", "{name: x}"), False),
        (one("VIRTUAL_HOST", "ADD", "{name: x}"), True),
        (one("ROUTE_CONFIGURATION", "MERGE", "{name: x}"), True),
        (one("CLUSTER", "MERGE", TIMEOUT), False),
    ],
)
def test_what_a_sidecar_that_asks_would_not_have_is_given_to_it(patch: Json, whole: bool) -> None:
    graph = graph_of(WORLD, envoy_filter(patch))
    proxy = Proxy(ProxyKind.SIDECAR, "default", "web", capabilities=Capabilities(on_demand=True))
    assert graph.pull(scope_of, proxy).on_demand is not whole


def test_a_cluster_called_as_its_address_is_patched_by_its_service() -> None:
    graph = graph_of(
        WORLD.replace("name: http, port: 80,", "name: tcp, port: 80,"),
        envoy_filter(one("CLUSTER", "MERGE", TIMEOUT, "{cluster: {service: web.default.svc.cluster.local}}")),
    )
    found = cluster(graph, "10.96.0.4:80", replace(SIDECAR, on_demand=True))
    assert found is not None
    assert found.connect_timeout.seconds == 7


def test_a_value_that_is_no_message_changes_nothing_and_the_others_apply() -> None:
    graph = graph_of(
        WORLD,
        envoy_filter(
            one("CLUSTER", "MERGE", "{connect_timeout: soon}"),
            one("CLUSTER", "MERGE", "{no_such_field: 1}"),
            one("HTTP_FILTER", "INSERT_FIRST", '{name: x, typed_config: {"@type": type.googleapis.com/no.Such}}'),
            one("CLUSTER", "MERGE", TIMEOUT),
        ),
    )
    found = cluster(graph)
    assert found is not None
    assert found.connect_timeout.seconds == 7
    assert listener(graph, "0.0.0.0_9080") == listener(graph_of(WORLD), "0.0.0.0_9080")


def test_what_no_patch_means_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 services, one patch for one of them: one cluster is encoded again, the others are the same bytes."""
    many = "".join(service(f"s{number}", 9080, f"10.96.1.{number}") for number in range(100))
    read: list[bytes] = []
    monkeypatch.setitem(patch._MESSAGES, "CDS", _counting(read))
    graph = graph_of(
        many, envoy_filter(one("CLUSTER", "MERGE", TIMEOUT, "cluster: {service: s7.default.svc.cluster.local}"))
    )
    plain = graph_of(many)
    names = graph.pull(CDS.names, SIDECAR)
    changed = [
        name for name in names if graph.pull(CDS.resource, SIDECAR, name) != plain.pull(CDS.resource, SIDECAR, name)
    ]
    assert changed == ["outbound|9080||s7.default.svc.cluster.local"]
    assert len(read) == 1


def _counting(read: list[bytes]) -> type[Cluster]:
    class Counting:
        @staticmethod
        def FromString(body: bytes) -> Cluster:  # noqa: N802 (protobuf's name)
            read.append(body)
            return Cluster.FromString(body)

    return Counting  # pyright: ignore[reportReturnType] (what of the type is used)
