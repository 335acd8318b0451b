"""Patches of EnvoyFilters in the real Envoy: what they add takes part in traffic; every operation is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.envoy.single_pod import HTTP_APPLICATION, SinglePod
from tests.envoy.test_listeners_traffic import APPLICATION
from tests.unit.envoy.test_patches import envoy_filter, one

LUA = """
name: envoy.filters.http.lua
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  default_source_code:
    inline_string: |
      function envoy_on_request(handle) handle:headers():add("x-PLACE", "yes") end
"""
MANAGER = "filter: {name: envoy.filters.network.http_connection_manager"
ROUTER = "subFilter: {name: envoy.filters.http.router}"


@pytest.fixture(scope="module")
def pod() -> Iterator[SinglePod]:
    with SinglePod([("app", "app")]) as made:
        made.application(HTTP_APPLICATION, 9080)
        yield made


def headers(pod: SinglePod) -> dict[str, str]:
    answer = pod.get("10.96.0.1", 80, "app")
    assert answer["status"] == 200, answer
    return {name.lower(): value for name, value in json.loads(answer["body"])["headers"].items()}


def test_lua_runs_on_both_sides(pod: SinglePod) -> None:
    inbound = f"{{context: SIDECAR_INBOUND, listener: {{portNumber: 9080, filterChain: {{{MANAGER}, {ROUTER}}}}}}}}}"
    outbound = inbound.replace("INBOUND", "OUTBOUND").replace("9080", "80")
    pod.configure(
        APPLICATION,
        envoy_filter(
            one("HTTP_FILTER", "INSERT_BEFORE", LUA.replace("PLACE", "server"), inbound),
            one("HTTP_FILTER", "INSERT_BEFORE", LUA.replace("PLACE", "client"), outbound),
        ),
    )
    assert {"x-client", "x-server"} <= headers(pod).keys()
    pod.configure(APPLICATION)
    assert not {"x-client", "x-server"} & headers(pod).keys()


def test_an_extension_by_discovery(pod: SinglePod) -> None:
    named = """
    name: mine
    config_discovery:
      config_source: {ads: {}, resource_api_version: V3}
      type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]
    """
    where = f"{{context: SIDECAR_INBOUND, listener: {{filterChain: {{{MANAGER}, {ROUTER}}}}}}}}}"
    for word in ("one", "two"):
        extension = LUA.replace("PLACE", word).replace("envoy.filters.http.lua\n", "mine\n", 1)
        pod.configure(
            APPLICATION,
            envoy_filter(
                one("HTTP_FILTER", "INSERT_BEFORE", named, where),
                one("EXTENSION_CONFIG", "ADD", extension),
            ),
        )
        assert {"x-one", "x-two"} & headers(pod).keys() == {f"x-{word}"}


def test_every_kind_is_accepted(pod: SinglePod) -> None:
    static = """
    name: extra
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: extra
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /nowhere}}}}]}]
    """
    answer = "{name: tea, match: {path: /}, direct_response: {status: 418, body: {inline_string: short and stout}}}"
    logging = """
    name: envoy.filters.network.rbac
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
      stat_prefix: mine
      rules: {action: LOG, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}
    """
    pod.configure(
        APPLICATION,
        envoy_filter(
            one("CLUSTER", "ADD", static),
            one("CLUSTER", "MERGE", "{connect_timeout: 3s}", "context: SIDECAR_OUTBOUND"),
            one("LISTENER", "MERGE", "{per_connection_buffer_limit_bytes: 65536}"),
            one("NETWORK_FILTER", "INSERT_FIRST", logging, "context: SIDECAR_INBOUND"),
            one("FILTER_CHAIN", "MERGE", "{transport_socket_connect_timeout: 9s}", "context: SIDECAR_INBOUND"),
            one("ROUTE_CONFIGURATION", "MERGE", "{response_headers_to_remove: [x-b]}"),
            one("VIRTUAL_HOST", "MERGE", "{response_headers_to_remove: [x-c]}"),
            one(
                "HTTP_ROUTE",
                "INSERT_FIRST",
                answer,
                "{context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 80}}",
            ),
        ),
    )
    assert pod.get("10.96.0.1", 80, "app") == {"status": 418, "body": "short and stout"} | {
        "s": pytest.approx(1, abs=5)
    }
    assert pod.envoy.stat("cluster_manager.active_clusters") > 0
    assert "extra" in pod.envoy.admin("/clusters")
