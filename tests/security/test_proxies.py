"""Attacks on a sidecar: headers that say who the caller is, paths around a policy, plaintext, other trust domains."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.test_security_authorization import ALICE, APPLICATION, policy
from tests.envoy.test_security_peers import peers

ADMIN = "spiffe://cluster.local/ns/admins/sa/root"
SPOOFED = [
    ("x-forwarded-client-cert", f"By=x;Hash=y;URI={ADMIN}"),
    ("X-Forwarded-Client-Cert", f"URI={ADMIN}"),
    ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
    ("x-envoy-external-address", "10.0.0.1"),
    ("x-envoy-internal", "true"),
    ("x-envoy-original-path", "/public"),
    ("x-envoy-peer-metadata-id", f"sidecar~10.0.0.1~{ADMIN}"),
    ("x-istio-attributes", ADMIN),
    ("source.principal", ADMIN),
    (":authority", "admin"),
]
ONLY_ROOT = policy('{rules: [{from: [{source: {principals: ["cluster.local/ns/admins/sa/root"]}}]}]}')
SMUGGLED = (
    "/admin",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/%2e/admin",
    "/%2E%2e/admin",
    "/x/%2e%2e/admin",
    "/%2fadmin",
    "/x%2f..%2fadmin",
    "/%61dmin",
    "/admin/",
    "/admin;x=y",
    "/admin%3bx",
    "/admin?x",
    "/admin#x",
    "\\admin",
    "/x\\..\\admin",
    "http://app/admin",
    "/;/../admin",
    "/%5cadmin",
)
DECODING = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}"}
---
"""


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        yield made


def test_no_header_makes_a_caller_somebody_else(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, peers("PERMISSIVE"), ONLY_ROOT)
    assert pod.call(by=ADMIN).status == 200
    headers = [[each] for each in SPOOFED[:-1]] + [SPOOFED[:-1]]
    for by in (ALICE, ""):
        assert pod.statuses([Call(by, headers=each) for each in headers]) == [403] * len(headers)


def test_an_application_can_tell_the_proxys_word_from_the_callers(pod: GuardedPod) -> None:
    """Of `x-forwarded-client-cert` the last element is the proxy's; plain callers have none."""
    pod.configure(APPLICATION, peers("PERMISSIVE"))
    spoofed = SPOOFED[:1]
    mutual, plain = pod.calls([Call(ALICE, headers=spoofed), Call(headers=spoofed)])
    last = mutual.seen_headers["x-forwarded-client-cert"].rpartition(",")[2]
    assert f"URI=spiffe://cluster.local/{ALICE}" in last
    assert ADMIN not in last
    assert "x-forwarded-client-cert" not in plain.seen_headers


def test_no_spelling_of_a_path_gets_around_a_policy(pod: GuardedPod) -> None:
    deny = policy('{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}')
    pod.configure(APPLICATION, DECODING, peers("PERMISSIVE"), deny)
    for call, answer in zip(SMUGGLED, pod.calls([Call(ALICE, path=each) for each in SMUGGLED]), strict=True):
        if answer.status == 200:
            seen = posixpath.normpath(unquote(answer.seen["path"]).replace("\\", "/").partition("?")[0])
            assert not f"/{seen.lstrip('/')}".startswith("/admin"), (call, answer.seen["path"])
        else:
            assert answer.status in (0, 400, 403, 404), call
    assert pod.call(by=ALICE, path="/public").status == 200


def test_two_requests_in_one_do_not_reach_the_application(pod: GuardedPod) -> None:
    """Lengths that contradict each other, and headers with line breaks in them."""
    deny = policy('{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}')
    pod.configure(APPLICATION, peers("PERMISSIVE"), deny)
    inner = "GET /admin HTTP/1.1\r\nhost: app\r\n\r\n"
    both = [("content-length", str(len(inner))), ("transfer-encoding", "chunked")]
    twice = [("content-length", "5"), ("content-length", str(len(inner)))]
    odd = [("transfer-encoding", "xchunked"), ("content-length", "0")]
    for headers in (both, twice, odd):
        answer = pod.call(by=ALICE, method="POST", path="/public", headers=headers, body=inner)
        assert answer.status in (0, 400, 403, 501), headers
        assert "/admin" not in answer.text


def test_strict_takes_the_meshs_own_alone(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, peers("STRICT"))
    callers = [
        Call(ALICE),
        Call(),
        Call(ALICE, foreign=True),
        Call("spiffe://other.mesh/ns/a/sa/alice"),
        Call("spiffe://cluster.local.evil/ns/a/sa/alice"),
    ]
    assert pod.statuses(callers) == [200, 0, 0, 0, 0]
