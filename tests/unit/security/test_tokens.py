"""Service account tokens: whose they are, for whom, how long, and by which key."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from lateen.security.tokens import CA_AUDIENCE, LEEWAY_S, MAX_LIFETIME_S, TokenError, TokenIssuer

START = 2_000_000_000.0


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(tmp_path: Path, clock: Clock) -> TokenIssuer:
    return TokenIssuer(tmp_path / "keys" / "tokens.json", clock)


def _issue(issuer: TokenIssuer, **changed: Any) -> str:
    pod: dict[str, Any] = {"namespace": "default", "service_account": "reviews", "pod": "reviews-1", "uid": "u1"}
    return issuer.issue(**pod | changed)


def test_a_token_says_whose_it_is(issuer: TokenIssuer) -> None:
    claims = issuer.verify(_issue(issuer), CA_AUDIENCE)
    assert (claims.namespace, claims.service_account, claims.pod, claims.uid) == (
        "default",
        "reviews",
        "reviews-1",
        "u1",
    )
    assert claims.expires == START + 12 * 3600


def test_it_has_the_claims_of_kubernetes(issuer: TokenIssuer) -> None:
    body = _issue(issuer).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert claims["sub"] == "system:serviceaccount:default:reviews"
    assert claims["aud"] == ["istio-ca"]
    assert claims["kubernetes.io"]["pod"] == {"name": "reviews-1", "uid": "u1"}


def test_it_ends(issuer: TokenIssuer, clock: Clock) -> None:
    token = _issue(issuer, lifetime_s=600)
    clock.time = START + 600 + LEEWAY_S - 1
    issuer.verify(token, CA_AUDIENCE)
    clock.time = START + 600 + LEEWAY_S
    with pytest.raises(TokenError, match="expired"):
        issuer.verify(token, CA_AUDIENCE)


def test_it_is_not_for_before_it_was_made(issuer: TokenIssuer, clock: Clock) -> None:
    token = _issue(issuer)
    clock.time = START - LEEWAY_S - 1
    with pytest.raises(TokenError):
        issuer.verify(token, CA_AUDIENCE)


def test_it_lasts_a_day_at_most(issuer: TokenIssuer) -> None:
    assert issuer.verify(_issue(issuer, lifetime_s=10**9), CA_AUDIENCE).expires == START + MAX_LIFETIME_S


def test_it_is_for_its_audience_only(issuer: TokenIssuer) -> None:
    with pytest.raises(TokenError, match="aud"):
        issuer.verify(_issue(issuer, audiences=("vault",)), CA_AUDIENCE)
    assert issuer.verify(_issue(issuer, audiences=("vault", CA_AUDIENCE)), "vault").audiences == ("vault", "istio-ca")


def test_keys_outlive_the_process_and_are_private(issuer: TokenIssuer, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "keys" / "tokens.json"
    TokenIssuer(file, clock).verify(_issue(issuer), CA_AUDIENCE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_tokens_survive_the_rotation_of_their_key_as_long_as_they_live(issuer: TokenIssuer, clock: Clock) -> None:
    old = _issue(issuer, lifetime_s=MAX_LIFETIME_S)
    issuer.rotate()
    new = _issue(issuer)
    assert jwt_header(old)["kid"] != jwt_header(new)["kid"]
    clock.time += MAX_LIFETIME_S - 1
    issuer.verify(old, CA_AUDIENCE)
    issuer.rotate()
    assert len(issuer.public_keys()["keys"]) == 3
    clock.time += LEEWAY_S + 1
    issuer.rotate()
    assert jwt_header(old)["kid"] not in [key["kid"] for key in issuer.public_keys()["keys"]]


def test_public_keys_are_public_and_verify(issuer: TokenIssuer) -> None:
    issuer.rotate()
    keys = issuer.public_keys()
    assert not any("d" in key for key in keys["keys"])
    assert (
        jwt.decode(_issue(issuer), KeySet([ECKey.import_key(key) for key in keys["keys"]]), algorithms=["ES256"])
        .claims["sub"]
        .endswith("reviews")
    )


def jwt_header(token: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))


def _forged(issuer: TokenIssuer) -> str:
    """A token with a known kid, signed by another key."""
    header, body, _ = _issue(issuer).split(".")
    return jwt.encode(
        jwt_header(f"{header}.x.y"),
        json.loads(base64.urlsafe_b64decode(body + "==")),
        ECKey.generate_key("P-256"),
        algorithms=["ES256"],
    )


def _unsigned(issuer: TokenIssuer) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    return f"{header}.{_issue(issuer).split('.')[1]}."


def test_forged_and_broken_tokens_are_refused_without_being_repeated(issuer: TokenIssuer) -> None:
    whole = _issue(issuer)
    for token in ("", "x", "a.b.c", whole + "x", whole[:-5], _forged(issuer), _unsigned(issuer), "\x00" * 50):
        with pytest.raises(TokenError) as error:
            issuer.verify(token, CA_AUDIENCE)
        assert not token or token not in str(error.value)


def test_a_token_of_ours_without_a_pod_is_refused(issuer: TokenIssuer) -> None:
    with pytest.raises(TokenError, match="not bound to a Pod"):
        issuer.verify(_issue(issuer, uid=""), CA_AUDIENCE)
