"""What a real Envoy counts of requests: whose, and what counts as an error of which side."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.json_format import MessageToDict

from lateen.envoy.request_counts import add_request_counts
from lateen.envoy.virtual_host import METADATA
from lateen.lib.request_counts import FILTER, RequestCount, parse
from tests.envoy.harness import Envoy, free_port

Json = dict[str, Any]
RULE = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/a"
CLUSTER = "outbound|80||a.default.svc.cluster.local"
FAULT = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}


def answer(path: str, status: int, **headers: str) -> Json:
    """A route of the rule that answers by itself."""
    added = [{"header": {"key": key.replace("_", "-"), "value": value}} for key, value in headers.items()]
    return {
        "match": {"path": path},
        "direct_response": {"status": status},
        "metadata": {"filter_metadata": {METADATA: {"config": RULE}}},
        **({"response_headers_to_add": added} if added else {}),
    }


ROUTES = [
    {
        "match": {"path": "/fault"},
        "route": {"cluster": CLUSTER},
        "typed_per_filter_config": {
            "envoy.filters.http.fault": {**FAULT, "abort": {"http_status": 503, "percentage": {"numerator": 100}}}
        },
    },
    answer("/ok", 200),
    answer("/missing", 404),
    answer("/broken", 500),
    answer("/grpc-ok", 200, content_type="application/grpc", grpc_status="0"),
    answer("/grpc-unavailable", 200, content_type="application/grpc", grpc_status="14"),
    answer("/grpc-not-found", 200, content_type="application/grpc", grpc_status="5"),
]


@pytest.fixture
def envoy(directory: Path) -> Iterator[tuple[Envoy, int]]:
    manager = HttpConnectionManager()
    add_request_counts(manager.access_log.add)
    logs: list[Json] = []
    for each in manager.access_log:
        shown: Json = MessageToDict(each, preserving_proto_field_name=True)
        # What the message classes do not know is lost on the way to JSON, so it is written here once more.
        shown["typed_config"]["stats_scope"] = {"prefix": "lateen", "max_counters": 1000}
        logs.append(shown)
    port = free_port()
    config = {
        "@type": f"type.googleapis.com/{HttpConnectionManager.DESCRIPTOR.full_name}",
        "stat_prefix": "out",
        "access_log": logs,
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": ROUTES}]},
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": FAULT},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": config}]}],
    }
    static = {"listeners": [listener], "clusters": [{"name": CLUSTER, "connect_timeout": "1s"}]}
    running = Envoy({"static_resources": static}, directory)
    try:
        running.wait_live()
        yield running, port
    finally:
        running.stop()


def ask(port: int, path: str, *more: str) -> None:
    subprocess.run(["curl", "-s", "-o", "/dev/null", *more, f"http://127.0.0.1:{port}{path}"], check=True, timeout=20)


def counted(envoy: Envoy) -> dict[str, RequestCount]:
    return parse(envoy.admin(f"/stats?filter={FILTER}"))


def test_what_counts_as_an_error(envoy: tuple[Envoy, int]) -> None:
    proxy, port = envoy
    for path in ("/ok", "/ok", "/missing", "/broken"):
        ask(port, path)
    assert counted(proxy) == {RULE: RequestCount(RULE, 4, 1, 1)}
    for path in ("/grpc-ok", "/grpc-unavailable", "/grpc-not-found"):
        ask(port, path, "-H", "content-type: application/grpc")
    assert counted(proxy)[RULE] == RequestCount(RULE, 7, 1, 2)
    ask(port, "/grpc-unavailable")  # the same words to somebody who speaks no gRPC
    assert counted(proxy)[RULE] == RequestCount(RULE, 8, 1, 2)
    ask(port, "/fault")  # no upstream hears of it
    assert counted(proxy)[CLUSTER] == RequestCount(CLUSTER, 1, 0, 1)
    assert "eprecated" not in proxy.logs()
