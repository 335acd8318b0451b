"""Which keys of a key set are usable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from lateen.lib.keysets import NOBODYS, encoded, usable_keys

RSA = RSAKey.generate_key(2048).as_dict(private=True)
GOOD = [
    RSA,
    *(ECKey.generate_key(each).as_dict(private=True) for each in ("P-256", "P-384", "P-521")),
    OKPKey.generate_key("Ed25519").as_dict(private=True),
]


def key_set(*keys: Any) -> str:
    return json.dumps({"keys": keys})


def test_good_keys_lose_their_private_parts() -> None:
    found = usable_keys(key_set(*GOOD))
    assert [each["kty"] for each in found] == ["RSA", "EC", "EC", "EC", "OKP"]
    assert not any("d" in each for each in found)
    assert usable_keys(key_set(OctKey.generate_key(256).as_dict(private=True)))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "no", '{"keys": {}}', '{"keys": []}', '{"keys": [1, null, "x", {}]}', "[" * 2000]
)
def test_what_is_no_key_set(text: str) -> None:
    assert usable_keys(text) == []
    assert encoded(usable_keys(text)) == NOBODYS


P256 = GOOD[1]


@pytest.mark.parametrize(
    "key",
    [
        RSA | {"n": "AQAB"},
        RSA | {"n": 5},
        RSA | {"e": "Ag"},
        RSA | {"e": "AQ"},
        RSA | {"n": "***"},
        RSA | {"alg": "ES256"},
        RSA | {"alg": 5},
        RSA | {"kid": 5},
        RSA | {"kty": "rsa"},
        P256 | {"x": P256["y"]},
        P256 | {"crv": "P-384"},
        P256 | {"crv": "secp256k1"},
        P256 | {"alg": "ES384"},
        GOOD[4] | {"x": "AQAB"},
        GOOD[4] | {"crv": "X25519"},
        {"kty": "oct", "k": ""},
    ],
)
def test_bad_keys_are_left_out(key: dict[str, Any]) -> None:
    assert usable_keys(key_set(key)) == []
    assert len(usable_keys(key_set(key, RSA))) == 1


def test_the_order_of_keys_means_nothing() -> None:
    assert encoded(usable_keys(key_set(*GOOD))) == encoded(usable_keys(key_set(*reversed(GOOD))))


def test_nobodys_key_is_a_key() -> None:
    assert len(usable_keys(NOBODYS)) == 1
