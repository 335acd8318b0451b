"""Features as values: from a rule to a slot, and to a sentence. What Envoy makes of them is in docs/features."""

from __future__ import annotations

import msgspec
import pytest
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import ref_of
from lateen.engine import Graph
from lateen.features import FEATURES
from lateen.features.compile import rule_routes
from lateen.features.fault import grpc_code
from lateen.features.feature import Direction
from lateen.features.phases import http_filters
from lateen.features.retries import parse_conditions
from lateen.intent.route import (
    Abort,
    Cors,
    Delay,
    DirectResponse,
    Fault,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    RouteIntent,
)
from lateen.model.virtual_services import MESH, Reader
from lateen.model.visibility import Client
from tests.configuration import graph_of, service, virtual_service

TO = "route: [{destination: {host: reviews}}]"


def route(rule: str, *more: str) -> RouteIntent:
    """The only route of a rule in YAML flow style."""
    graph = graph_of(service("reviews"), virtual_service("vs", f"{{hosts: [reviews], http: [{{{rule}}}]}}"), *more)
    return only(graph)


def only(graph: Graph) -> RouteIntent:
    ref = ref_of(VirtualService, "default", "vs")
    (found,) = graph.pull(rule_routes, Client("default"), ref, Reader(MESH, "default"), 9080).routes
    return found


def mesh(config: str) -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "{config}"}}
---"""


def test_every_feature_has_its_slot_and_no_slot_is_left_over() -> None:
    slots = {each.name for each in msgspec.structs.fields(RouteIntent)}
    names = [each.name for each in FEATURES]
    assert len(names) == len(set(names))
    assert slots - set(names) == {"name", "match", "destinations", "operation", "stat_prefix", "source"}


def test_filters_stand_in_the_order_of_their_phases() -> None:
    def names(direction: Direction) -> list[str]:
        return [
            HttpFilter.FromString(each).name.removeprefix("envoy.filters.http.") for each in http_filters(direction)
        ]

    assert names(Direction.OUTBOUND) == ["fault", "cors", "set_filter_state", "router"]
    assert names(Direction.GATEWAY) == ["fault", "cors", "set_filter_state", "router"]
    assert names(Direction.INBOUND) == ["router"]


def test_a_redirect_or_an_answer_has_nothing_that_is_about_forwarding() -> None:
    rest = "timeout: 1s, retries: {attempts: 1}, rewrite: {uri: /x}, mirror: {host: reviews}"
    for action in ("redirect: {uri: /y}", "directResponse: {status: 204}"):
        found = route(f"{action}, {rest}, fault: {{abort: {{httpStatus: 500}}}}")
        assert found.destinations == ()
        assert [each.name for each in FEATURES if each.forwards and getattr(found, each.name) is not None] == []
        assert found.fault is not None
        message = Route()
        for each in FEATURES:
            if (slot := getattr(found, each.name)) is not None:
                each.envoy(slot, message)
        assert message.WhichOneof("action") in ("redirect", "direct_response")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("5xx", (("5xx",), ())),
        (" gateway-error , reset,", (("gateway-error", "reset"), ())),
        ("503,connect-failure,502,503", (("connect-failure", "retriable-status-codes"), (503, 502))),
        ("retriable-status-codes,503", (("retriable-status-codes",), (503,))),
        ("42,9999", ((), ())),
        ("", ((), ())),
    ],
)
def test_retry_conditions(said: str, expected: tuple[tuple[str, ...], tuple[int, ...]]) -> None:
    assert parse_conditions(said) == expected


def test_retries() -> None:
    default = Retries(2, ("connect-failure", "refused-stream", "unavailable", "cancelled"))
    assert route(TO).retries == default
    assert route(f"retries: {{attempts: 0}}, {TO}").retries is None
    assert route(f"retries: {{attempts: 5}}, {TO}").retries == msgspec.structs.replace(default, attempts=5)
    said = "retries: {attempts: 1, retryOn: '503', perTryTimeout: 2s, backoff: 10ms, retryRemoteLocalities: true"
    assert route(f"{said}, retryIgnorePreviousHosts: false}}, {TO}").retries == Retries(
        1, ("retriable-status-codes",), (503,), 2.0, 0.01, avoid_previous_hosts=False, remote_localities=True
    )


def test_the_mesh_may_have_other_default_retries() -> None:
    found = route(TO, mesh("defaultHttpRetryPolicy: {attempts: 4, retryOn: reset}")).retries
    assert found is not None
    assert (found.attempts, found.conditions) == (4, ("reset",))
    assert route(TO, mesh("defaultHttpRetryPolicy: {attempts: 0}")).retries is None


def test_with_consistent_hashing_a_retry_may_stay() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dr, namespace: default}
spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
---"""
    for said, avoids in (("", False), (", retryIgnorePreviousHosts: true", True)):
        found = route(f"retries: {{attempts: 1{said}}}, {TO}", rule).retries
        assert found is not None
        assert found.avoid_previous_hosts is avoids


def test_faults() -> None:
    found = route(f"fault: {{delay: {{fixedDelay: 7s, percentage: {{value: 0.5}}}}}}, {TO}").fault
    assert found == Fault(delay=Delay(7.0, 0.5))
    assert route(f"fault: {{delay: {{fixedDelay: 7s, percent: 10}}}}, {TO}").fault == Fault(delay=Delay(7.0, 10))
    assert route(f"fault: {{abort: {{httpStatus: 500}}}}, {TO}").fault == Fault(abort=Abort(0, http_status=500))
    assert route(f"fault: {{}}, {TO}").fault is None


@pytest.mark.parametrize(
    ("status", "code"), [("UNAVAILABLE", 14), ("deadline_exceeded", 4), ("13", 13), ("17", None), ("NOPE", None)]
)
def test_grpc_statuses(status: str, code: int | None) -> None:
    assert grpc_code(status) == code


def test_mirrors() -> None:
    def shares(rule: str) -> list[float]:
        found: tuple[Mirror, ...] = route(f"{rule}, {TO}").mirror or ()
        return [each.percent for each in found]

    assert shares("mirror: {host: reviews}") == [100]
    assert shares("mirror: {host: reviews}, mirrorPercent: 20") == [20]
    assert shares("mirror: {host: reviews}, mirror_percent: 30") == [30]
    assert shares("mirror: {host: reviews}, mirrorPercentage: {value: 0.1}, mirrorPercent: 20") == [0.1]
    assert shares("mirror: {host: reviews}, mirrorPercentage: {}") == []
    assert shares("mirrors: [{destination: {host: a}}, {destination: {host: b}, percentage: {value: 0}}]") == [100]


def test_an_answer_with_a_body_that_is_no_base64_is_empty() -> None:
    assert route("directResponse: {status: 200, body: {bytes: '!'}}").direct_response == DirectResponse(200)


@pytest.mark.parametrize(
    ("said", "origins"),
    [
        ("allowOrigin: ['*', 'http://a']", [("regex", ".*"), ("exact", "http://a")]),
        ("allowOrigins: [{regex: .*}, {exact: '*'}, {}]", [("regex", ".*"), ("regex", ".*")]),
        ("allowOrigins: [{prefix: 'https://'}]", [("prefix", "https://")]),
    ],
)
def test_origins_of_cors(said: str, origins: list[tuple[str, str]]) -> None:
    found = route(f"corsPolicy: {{{said}}}, {TO}").cors
    assert found is not None
    assert [(each.kind.value, each.value) for each in found.origins] == origins


def test_pseudo_headers_cannot_be_changed() -> None:
    found = route(
        f"headers: {{request: {{set: {{':path': /x, ':authority': h, a: b}}, remove: [Host]}}}}, {TO}"
    ).headers
    assert found is not None
    assert found.route.request.set == (("a", "b"),)
    assert found.route.request.remove == ()
    assert found.route.authority == "h"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("100%", "100%%"),
        ("100%%", "100%%"),
        ("%REQ(X)%", "%REQ(X)%"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% 5%", "%DOWNSTREAM_REMOTE_ADDRESS% 5%%"),
        ("a%20b", "a%%20b"),
        ("%START_TIME(%s)%:7%", "%START_TIME(%s)%:7%%"),
    ],
)
def test_percent_signs_in_header_values(value: str, sent: str) -> None:
    found = route(f"headers: {{request: {{set: {{a: '{value}'}}}}}}, {TO}")
    message = Route()
    next(each for each in FEATURES if each.name == "headers").envoy(found.headers, message)
    assert message.request_headers_to_add[0].header.value == sent


@pytest.mark.parametrize(
    ("slot", "value", "sentence"),
    [
        ("retries", Retries(1, ("5xx", "retriable-status-codes"), (503,), 0.5),
         "A failed request is retried once (on 5xx, 503), on another endpoint if there is one, each try for at most "
         "0.5 s."),
        ("rewrite", Rewrite(prefix="/v2", authority="h"),
         "The upstream sees /v2 in place of the path that matched and the host name h."),
        ("redirect", Redirect(302, authority="h", port=80), "The client is redirected (302) to host h, port 80."),
        ("redirect", Redirect(), "The client is redirected (301) to the same place."),
        ("direct_response", DirectResponse(404, b"gone"), "The proxy itself answers with 404 and a body of 4 bytes."),
        ("fault", Fault(Delay(7, 100), Abort(0.5, grpc_status=14)),
         "On purpose, 100 % of the requests wait 7 s first and 0.5 % are answered gRPC status UNAVAILABLE without "
         "being sent."),
        ("cors", Cors(), "Browsers may call it from pages of no other origin."),
    ],
)  # fmt: skip
def test_words(slot: str, value: object, sentence: str) -> None:
    assert next(each for each in FEATURES if each.name == slot).words(value) == sentence


def test_words_of_what_a_rule_says() -> None:
    rule = """
timeout: 2s, mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 5},
headers: {request: {set: {Host: h, a: b}, remove: [c]}, response: {add: {d: e}}}
"""
    found = route(f"{rule}, {TO}")
    sentences = [each.words(slot) for each in FEATURES if (slot := getattr(found, each.name)) is not None]
    assert sentences == [
        "The whole request, retries included, takes at most 2 s, then it is answered with 504.",
        "A failed request is retried up to 2 times (on connect-failure, refused-stream, unavailable, cancelled), on "
        "another endpoint if there is one.",
        "Requests are also sent, as copies nobody waits for: 5 % to reviews.default.svc.cluster.local:9080 "
        "(subset v2).",
        "The proxy sets a on the request, removes c on the request, adds d on the response, sets the host name to h.",
    ]
    assert (
        next(each for each in FEATURES if each.name == "timeout").words(route(TO).timeout) == "There is no time limit."
    )
