"""RequestAuthentication through the real Envoy, with tokens of an identity provider."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.identity_provider import IdentityProvider
from tests.envoy.test_security_authorization import APPLICATION, policy, source, when


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        yield made


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.close()


@pytest.fixture(scope="module")
def other() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.close()


def accepting(*rules: str, name: str = "tokens") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: {name}}}
spec: {{jwtRules: [{", ".join(rules)}]}}
---
"""


def inline(provider: IdentityProvider, more: str = "") -> str:
    return f"{{issuer: '{provider.issuer}', jwks: '{provider.keys}'{more}}}"


def bearing(token: str, scheme: str = "Bearer ", header: str = "authorization", path: str = "/") -> Call:
    return Call(path=path, headers=((header, scheme + token),))


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = "mallory"
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


def unsigned(provider: IdentityProvider) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    return f"{head}.{provider.token().split('.')[1]}."


def test_no_token_passes_a_good_one_passes_and_a_bad_one_does_not(
    pod: GuardedPod, provider: IdentityProvider, other: IdentityProvider
) -> None:
    pod.configure(APPLICATION, accepting(inline(provider)))
    good = provider.token()
    assert pod.statuses([Call(), bearing(good)]) == [200, 200]
    bad = [
        tampered(good),
        unsigned(provider),
        provider.token(exp=1_000_000_000),
        provider.token(nbf=4_000_000_000),
        other.token(),
        other.token(iss=provider.issuer),
        good[:-10],
        "nonsense",
        "a.b.c",
    ]
    assert pod.statuses([bearing(each) for each in bad]) == [401] * len(bad)


def test_without_keys_yet_tokens_are_refused_and_nothing_else(pod: GuardedPod, provider: IdentityProvider) -> None:
    pod.configure(APPLICATION, accepting(f"{{issuer: '{provider.issuer}'}}"))
    assert pod.statuses([Call(), bearing(provider.token())]) == [200, 401]


def test_several_issuers(pod: GuardedPod, provider: IdentityProvider, other: IdentityProvider) -> None:
    pod.configure(APPLICATION, accepting(inline(provider)), accepting(inline(other), name="more"))
    calls = [bearing(provider.token()), bearing(other.token()), bearing(other.token(iss="x")), Call()]
    assert pod.statuses(calls) == [200, 200, 401, 200]


def test_where_tokens_are_and_what_becomes_of_them(pod: GuardedPod, provider: IdentityProvider) -> None:
    token = provider.token(email="a@x", nested={"group": "g"})
    more = (
        ", fromHeaders: [{name: x-token, prefix: 'Token '}], fromParams: [t], fromCookies: [c],"
        " outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-email, claim: email},"
        " {header: x-group, claim: nested.group}]"
    )
    pod.configure(
        APPLICATION, accepting(inline(provider, more)), policy("{" + source('requestPrincipals: ["*"]') + "}")
    )
    lies = (("x-payload", "lie"), ("x-email", "lie"), ("x-group", "lie"))
    calls = [
        Call(headers=(("x-token", f"Token {token}"), *lies)),
        Call(path=f"/?t={token}"),
        Call(headers=(("cookie", f"a=b; c={token}"),)),
        bearing(token),
        Call(headers=lies),
    ]
    got = pod.calls(calls)
    assert [each.status for each in got] == [200, 200, 200, 403, 403]
    seen = got[0].seen_headers
    assert seen["x-email"] == "a@x"
    assert seen["x-group"] == "g"
    payload = seen["x-payload"]
    assert json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["email"] == "a@x"
    assert "x-token" not in seen
    pod.configure(APPLICATION, accepting(inline(provider, ", forwardOriginalToken: true")))
    assert pod.call(headers=(("authorization", f"Bearer {token}"),)).seen_headers["authorization"] == f"Bearer {token}"


def test_audiences(pod: GuardedPod, provider: IdentityProvider) -> None:
    pod.configure(APPLICATION, accepting(inline(provider, ", audiences: [one, two]")))
    audiences = ["one", ["x", "two"], "three", None]
    assert pod.statuses([bearing(provider.token(aud=each)) for each in audiences]) == [200, 200, 403, 403]


def test_rules_about_claims(pod: GuardedPod, provider: IdentityProvider) -> None:
    issuer = provider.issuer
    alice = provider.token("alice", aud=["a1", "a2"], azp="app", groups=["admin", "dev"], scope="read write")
    alice_nested = provider.token("alice", realm={"roles": ["boss"], "name": "r"}, words="p q")
    bob = provider.token("bob/x", aud="a3", groups="guests")
    cases: list[tuple[str, list[bool]]] = [
        (source(f"requestPrincipals: ['{issuer}/alice']"), [True, True, False, False]),
        (source(f"requestPrincipals: ['{issuer}/*']"), [True, True, True, False]),
        (source("requestPrincipals: ['*/alice']"), [True, True, False, False]),
        (source("requestPrincipals: ['*/x']"), [False, False, True, False]),
        (source(f"requestPrincipals: ['{issuer}/bob/x']"), [False, False, True, False]),
        (source("requestPrincipals: ['*']"), [True, True, True, False]),
        (source("notRequestPrincipals: ['*']"), [False, False, False, True]),
        (when("request.auth.principal", f"values: ['{issuer}/alice']"), [True, True, False, False]),
        (when("request.auth.audiences", "values: [a2, a3]"), [True, False, True, False]),
        (when("request.auth.presenter", "values: [app]"), [True, False, False, False]),
        (when("request.auth.claims[groups]", "values: [admin]"), [True, False, False, False]),
        (when("request.auth.claims[groups]", "values: ['gue*']"), [False, False, True, False]),
        (when("request.auth.claims[groups]", "notValues: [admin]"), [False, True, True, True]),
        (when("request.auth.claims[groups]", "values: ['*']"), [True, False, True, False]),
        (when("request.auth.claims[realm][roles]", "values: [boss]"), [False, True, False, False]),
        (when("request.auth.claims[realm][name]", "values: [r]"), [False, True, False, False]),
        (when("request.auth.claims[scope]", "values: [write]"), [True, False, False, False]),
        (when("request.auth.claims[words]", "values: [q]"), [False, True, False, False]),
        (when("request.auth.claims[iss]", f"values: ['{issuer}']"), [True, True, True, False]),
    ]
    calls = [bearing(alice), bearing(alice_nested), bearing(bob), Call()]
    for rule, matches in cases:
        tokens = accepting(inline(provider, ", spaceDelimitedClaims: [words]"))
        pod.configure(APPLICATION, tokens, policy("{" + rule + "}"))
        assert pod.statuses(calls) == [200 if each else 403 for each in matches], rule
        pod.configure(APPLICATION, tokens, policy("{action: DENY, " + rule + "}"))
        assert pod.statuses(calls) == [403 if each else 200 for each in matches], rule
