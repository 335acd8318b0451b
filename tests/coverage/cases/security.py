"""PeerAuthentication, RequestAuthentication and AuthorizationPolicy, field by field."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import yaml
from joserfc import jwt
from joserfc.jwk import OctKey

from lateen.security.fetching import FetchError
from lateen.security.jwks import fetch
from tests.coverage.case import Case, Json, Probe, Refusal
from tests.coverage.cases.extensions import GATEWAY as EDGE
from tests.lab.client import Answer, ask, outside
from tests.lab.lab import Lab

GATEWAY = "gateway.networking.k8s.io"
ISSUER = "https://one.test"
KEY = OctKey.import_key("a key for tests, thirty-two bytes", {"kid": "one", "use": "sig", "alg": "HS256"})
KEYS = json.dumps({"keys": [KEY.as_dict(private=True)]})
STRICT_MESH = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
"""
MATCHING: Json = {"matchLabels": {"app": "app"}}


def cases() -> Iterator[Case]:
    yield from _peers()
    yield from _tokens()
    yield from _policies()


def refusals() -> Iterator[Refusal]:
    kinds: tuple[tuple[str, Json], ...] = (
        ("AuthorizationPolicy", {"action": "DENY", "rules": [{}]}),
        ("RequestAuthentication", {}),
    )
    for kind, spec in kinds:
        target = {"group": GATEWAY, "kind": "Gateway", "name": "edge"}
        for place, document in (
            ("spec.targetRef", new(kind, {**spec, "targetRef": target})),
            ("spec.targetRefs[0]", new(kind, {**spec, "targetRefs": [target]})),
        ):
            yield Refusal(kind, f"{place}.namespace", document, "other", "IST0106")
            yield Refusal(kind, f"{place}.kind", document, "Service", "LTN0001")


def new(kind: str, spec: Json, namespace: str = "default") -> Json:
    """An object of security.istio.io."""
    metadata = {"name": "it", "namespace": namespace}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def called(by: str = "", **how: Any) -> Probe:
    """The status of a request to the application: by a certificate of that name, or in the clear."""
    return lambda lab: _called(lab, by, **how).status


def _called(lab: Lab, by: str = "", **how: Any) -> Answer:
    if not by:
        return outside(lab, **how)
    tls = lab.certificates.client_context(by, ("istio-http/1.1", "istio", "http/1.1"))
    return outside(lab, tls=tls, **{"sni": "app", **how})


def at_edge(**how: Any) -> Probe:
    """The status of a request to the gateway."""
    return lambda lab: ask(lab, "gateway", port=8080, authority="shop.test", **how).status


# -- PeerAuthentication -------------------------------------------------------------------------------------------


def _both(lab: Lab) -> tuple[bool, bool]:
    """Whether requests in the clear are answered, and those over mutual TLS by way of the proxy."""
    secure = _called(lab, "alice")
    return _called(lab).status == 200, secure.status == 200 and not secure.seen["tls"]


def _peers() -> Iterator[Case]:
    kind = "PeerAuthentication"
    modes = {"DISABLE": (True, False), "PERMISSIVE": (True, True), "STRICT": (False, True), "UNSET": (False, True)}
    for before, after in (("DISABLE", "PERMISSIVE"), ("PERMISSIVE", "STRICT"), ("PERMISSIVE", "UNSET")):
        whole = new(kind, {"mtls": {"mode": before}})
        yield Case(kind, "spec.mtls.mode", whole, after, _both, modes[before], modes[after], STRICT_MESH)
        ported = new(kind, {"selector": MATCHING, "portLevelMtls": {"9080": {"mode": before}}})
        place = "spec.portLevelMtls{9080}.mode"
        yield Case(kind, place, ported, after, _both, modes[before], modes[after], STRICT_MESH)
    selecting = new(kind, {"selector": MATCHING, "mtls": {"mode": "STRICT"}})
    yield Case(kind, "spec.selector.matchLabels{app}", selecting, "other", _both, (False, True), (True, True))


# -- RequestAuthentication ----------------------------------------------------------------------------------------


def _token(**claims: Any) -> str:
    said = {"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 3600, "aud": "web", "words": "a b", **claims}
    return jwt.encode({"alg": "HS256", "kid": "one"}, said, KEY)


def bearing(where: str = "authorization", prefix: str = "Bearer ", **claims: Any) -> Probe:
    """The status of a request with a token in a header."""
    return lambda lab: _called(lab, headers={where: prefix + _token(**claims)}).status


def _seen(header: str) -> Probe:
    """A header that the application gets with a token."""

    def probe(lab: Lab) -> Any:
        return _called(lab, headers={"authorization": f"Bearer {_token()}"}).seen["headers"].get(header)

    return probe


def _tokens() -> Iterator[Case]:
    kind = "RequestAuthentication"
    rule: Json = {"issuer": ISSUER, "jwks": KEYS}

    def case(place: str, said: Json, value: Any, probe: Probe, before: Any, after: Any, beside: str = "") -> Case:
        document = new(kind, {"jwtRules": [{**rule, **said}]})
        return Case(kind, f"spec.jwtRules[0].{place}", document, value, probe, before, after, beside)

    needed = (
        yaml.safe_dump(new("AuthorizationPolicy", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}))
        + "---\n"
    )
    yield case("issuer", {}, "https://two.test", bearing(), 200, 401)
    yield case("jwks", {}, '{"keys": []}', bearing(), 200, 401)
    yield case("audiences[0]", {"audiences": ["web"]}, "api", bearing(), 200, 403)
    yield case("forwardOriginalToken", {}, True, lambda lab: _seen("authorization")(lab) is not None, False, True)
    yield case("fromHeaders[0].name", {"fromHeaders": [{"name": "x-a"}]}, "x-b", bearing("x-a", ""), 200, 403, needed)
    prefixed = {"fromHeaders": [{"name": "x-a", "prefix": "One "}]}
    yield case("fromHeaders[0].prefix", prefixed, "Two ", bearing("x-a", "One "), 200, 403, needed)
    by_parameter: Probe = lambda lab: _called(lab, path=f"/?t={_token()}").status  # noqa: E731
    yield case("fromParams[0]", {"fromParams": ["t"]}, "other", by_parameter, 200, 403, needed)
    by_cookie = bearing("cookie", "session=")
    yield case("fromCookies[0]", {"fromCookies": ["session"]}, "other", by_cookie, 200, 403, needed)
    yield case("outputPayloadToHeader", {}, "x-token", lambda lab: _seen("x-token")(lab) is not None, False, True)
    copied = {"outputClaimToHeaders": [{"header": "x-a", "claim": "sub"}]}
    yield case("outputClaimToHeaders[0].claim", copied, "iss", _seen("x-a"), "alice", ISSUER)
    yield case("outputClaimToHeaders[0].header", copied, "x-b", _seen("x-a"), "alice", None)
    words = (
        yaml.safe_dump(
            new("AuthorizationPolicy", {"rules": [{"when": [{"key": "request.auth.claims[words]", "values": ["b"]}]}]})
        )
        + "---\n"
    )
    yield case("spaceDelimitedClaims[0]", {"spaceDelimitedClaims": ["words"]}, "others", bearing(), 200, 403, words)

    public: Json = {"issuer": "https://idp.test"}
    for name in ("jwksUri", "jwks_uri"):
        place = f"spec.jwtRules[0].{name}"
        document = new(kind, {"jwtRules": [{**public, name: "http://issuer.lab/keys"}]})
        yield Case(kind, place, document, "http://issuer.lab/nothing", _by_provider, 200, 401)
    slow = new(kind, {"jwtRules": [{**public, "jwksUri": "http://issuer.lab/slow", "timeout": "20s"}]})
    yield Case(kind, "spec.jwtRules[0].timeout", slow, "0.2s", _by_provider, 200, 401)

    selecting = new(kind, {"selector": MATCHING, "jwtRules": [rule]})
    wrong = bearing(exp=1)
    yield Case(kind, "spec.selector.matchLabels{app}", selecting, "other", wrong, 401, 200)
    bad = at_edge(headers={"authorization": "Bearer nonsense"})
    yield from _targets(kind, {"jwtRules": [rule]}, bad, 401)


def _by_provider(lab: Lab) -> int:
    """The status of a request with a token of the lab's identity provider, once the keys wanted were fetched."""
    for source in lab.sidecar.key_sources():
        with contextlib.suppress(FetchError):
            lab.sidecar.put_keys([(source, asyncio.run(fetch(source)).keys)])
    token = lab.provider.token(iss="https://idp.test")
    return _called(lab, headers={"authorization": f"Bearer {token}"}).status


def _targets(kind: str, spec: Json, probe: Probe, meant: int) -> Iterator[Case]:
    """What a policy is attached to by reference: the gateway, or nothing."""
    target = {"group": GATEWAY, "kind": "Gateway", "name": "edge"}
    for place, document in (
        ("spec.targetRef", new(kind, {**spec, "targetRef": target}, "istio-system")),
        ("spec.targetRefs[0]", new(kind, {**spec, "targetRefs": [target]}, "istio-system")),
    ):
        yield Case(kind, f"{place}.name", document, "other", probe, meant, 200, EDGE)
        yield Case(kind, f"{place}.group", document, "networking.istio.io", probe, meant, 200, EDGE)


# -- AuthorizationPolicy ------------------------------------------------------------------------------------------

PROVIDERS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: details
      envoyExtAuthzHttp: {service: details.default.svc.cluster.local, port: 9080, timeout: 10s}
---
"""
TOKENS = yaml.safe_dump(new("RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, "jwks": KEYS}]})) + "---\n"


def _policies() -> Iterator[Case]:
    kind = "AuthorizationPolicy"
    everything: Json = {"action": "DENY", "rules": [{}]}
    for before, after, outcomes in (("DENY", "ALLOW", (403, 200)), ("DENY", "AUDIT", (403, 200))):
        document = new(kind, {"action": before, "rules": [{}]})
        yield Case(kind, "spec.action", document, after, called("alice"), *outcomes)
    asking = new(kind, {"action": "CUSTOM", "provider": {"name": "details"}, "rules": [{}]})
    yield Case(kind, "spec.provider.name", asking, "nobody", called("alice"), 200, 403, PROVIDERS)
    custom: Json = {"action": "CUSTOM", "provider": {"name": "nobody"}, "rules": [{}]}  # neither field can be alone
    audits = new(kind, {"action": "AUDIT", "rules": [{}]})
    yield Case(kind, "spec", audits, custom, called("alice"), 200, 403, PROVIDERS, field="spec.action=CUSTOM")
    selecting = new(kind, {**everything, "selector": MATCHING})
    yield Case(kind, "spec.selector.matchLabels{app}", selecting, "other", called("alice"), 403, 200)
    yield from _targets(kind, everything, at_edge(), 403)
    yield from _sources()
    yield from _operations()
    yield from _conditions()


def _negative(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _sources() -> Iterator[Case]:
    alice = called("alice")
    with_token: Probe = lambda lab: _called(lab, "alice", headers={"authorization": f"Bearer {_token()}"}).status  # noqa: E731
    for name, yes, no, probe, beside in (
        ("principals", "cluster.local/ns/a/sa/alice", "cluster.local/ns/b/sa/bob", alice, ""),
        ("requestPrincipals", f"{ISSUER}/alice", f"{ISSUER}/bob", with_token, TOKENS),
        ("namespaces", "a", "b", alice, ""),
        ("serviceAccounts", "a/alice", "b/bob", alice, ""),
        ("trustDomains", "cluster.local", "other.test", alice, ""),
        ("ipBlocks", "10.88.0.0/16", "10.99.0.0/16", alice, ""),
        ("remoteIpBlocks", "10.88.0.0/16", "10.99.0.0/16", alice, ""),
    ):
        yield from _yes_and_no(f"from[0].source.{name}", {"from": [{"source": {name: [yes]}}]}, no, probe, beside)


def _operations() -> Iterator[Case]:
    alice = called("alice", path="/a", authority="app.test")
    for name, yes, no in (
        ("hosts", "app.test", "other.test"),
        ("ports", "9080", "9081"),
        ("methods", "GET", "POST"),
        ("paths", "/a", "/b"),
    ):
        yield from _yes_and_no(f"to[0].operation.{name}", {"to": [{"operation": {name: [yes]}}]}, no, alice)


def _yes_and_no(place: str, rule: Json, no: str, probe: Probe, beside: str = "") -> Iterator[Case]:
    """A field and its negative form, in a rule that allows."""
    kind = "AuthorizationPolicy"
    yield Case(kind, f"spec.rules[0].{place}[0]", new(kind, {"rules": [rule]}), no, probe, 200, 403, beside)
    group, _, name = place.rpartition(".")
    (key, entries), *_ = rule.items()
    inner = next(iter(entries[0]))
    turned = {key: [{inner: {_negative(name): entries[0][inner][name]}}]}
    where = f"spec.rules[0].{group}.{_negative(name)}[0]"
    yield Case(kind, where, new(kind, {"rules": [turned]}), no, probe, 403, 200, beside)


def _conditions() -> Iterator[Case]:
    kind = "AuthorizationPolicy"
    probe: Probe = lambda lab: _called(lab, "alice", headers={"x-a": "one"}).status  # noqa: E731

    def rule(**said: Any) -> Json:
        return new(kind, {"rules": [{"when": [{"key": "request.headers[x-a]", **said}]}]})

    place = "spec.rules[0].when[0]"
    yield Case(kind, f"{place}.key", rule(values=["one"]), "request.headers[x-b]", probe, 200, 403)
    yield Case(kind, f"{place}.values[0]", rule(values=["one"]), "two", probe, 200, 403)
    yield Case(kind, f"{place}.notValues[0]", rule(notValues=["one"]), "two", probe, 403, 200)
