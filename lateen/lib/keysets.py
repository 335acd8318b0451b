"""JSON Web Key Sets as Envoy takes them: which keys of one are usable, and a set that verifies nothing.

Envoy refuses a whole listener for a key set without a usable key, so each key is looked at before: its kind, its
numbers, whether a point is on its curve, whether the algorithm it names fits. Source: RFC 7517, RFC 7518, RFC 8037.

`NOBODYS` holds one point of P-256 that was not made from a private key: its x is a hash, its y follows from the
curve. Nobody knows the private key, so no token is ever good; it stands where keys are not known yet.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

_CURVES: Final[Mapping[str, tuple[int, int, str]]] = {
    "P-256": (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        "ES256",
    ),
    "P-384": (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        "ES384",
    ),
    "P-521": (
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        "ES512",
    ),
}
"""Prime, constant term and algorithm of each curve (SEC 2)."""
_RSA_BITS: Final = (1024, 8192)
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def usable_keys(text: str | bytes) -> list[dict[str, Any]]:
    """The usable keys of a set in JSON, without private parts; empty when it is no key set at all."""
    keys = [cast("dict[str, Any]", each) for each in _items(text) or () if isinstance(each, dict)]
    return [
        {name: value for name, value in sorted(key.items()) if name not in _PRIVATE} for key in keys if _usable(key)
    ]


def is_key_set(text: str | bytes) -> bool:
    """True for a JSON object with a list of keys, usable or not."""
    return _items(text) is not None


def _items(text: str | bytes) -> list[Any] | None:
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    said: Any = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    return cast("list[Any]", said) if isinstance(said, list) else None


def encoded(keys: list[dict[str, Any]]) -> str:
    """A key set as text, the same for the same keys in any order; `NOBODYS` for none."""
    if not keys:
        return NOBODYS
    return f'{{"keys":[{",".join(sorted(msgspec.json.encode(each).decode() for each in keys))}]}}'


def _usable(key: dict[str, Any]) -> bool:
    algorithm = key.get("alg")
    if (algorithm is not None and not isinstance(algorithm, str)) or not isinstance(key.get("kid", ""), str):
        return False
    algorithm = algorithm or ""
    match key.get("kty"):
        case "RSA":
            modulus, exponent = _number(key.get("n")), _number(key.get("e"))
            shortest, longest = _RSA_BITS
            fits = algorithm[:2] in ("", "RS", "PS")
            return fits and shortest <= modulus.bit_length() <= longest and modulus % 2 == exponent % 2 == 1 < exponent
        case "EC":
            curve = _CURVES.get(str(key.get("crv")))
            x, y = _number(key.get("x")), _number(key.get("y"))
            if curve is None or algorithm not in ("", curve[2]):
                return False
            prime, term, _ = curve
            return 0 < x < prime and 0 < y < prime and (y * y - (x**3 - 3 * x + term)) % prime == 0
        case "OKP":
            return key.get("crv") == "Ed25519" and algorithm in ("", "EdDSA") and len(_bytes(key.get("x"))) == 32
        case "oct":
            return algorithm[:2] in ("", "HS") and bool(_bytes(key.get("k")))
        case _:
            return False


def _bytes(said: object) -> bytes:
    """What a base64url text holds; empty when it is none."""
    if not isinstance(said, str) or "=" in said:
        return b""
    try:
        return base64.b64decode(said.replace("-", "+").replace("_", "/") + "=" * (-len(said) % 4), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _number(said: object) -> int:
    return int.from_bytes(_bytes(said))


def _nobodys_key() -> dict[str, Any]:
    prime, term, algorithm = _CURVES["P-256"]
    counter = 0
    while True:
        x = int.from_bytes(hashlib.sha256(b"lateen: a key that nobody has %d" % counter).digest()) % prime
        square = (x**3 - 3 * x + term) % prime
        y = pow(square, (prime + 1) // 4, prime)
        if y * y % prime == square:
            break
        counter += 1
    coordinates = [base64.urlsafe_b64encode(each.to_bytes(32)).decode().rstrip("=") for each in (x, y)]
    return {"alg": algorithm, "crv": "P-256", "kid": "nobodys", "kty": "EC", "x": coordinates[0], "y": coordinates[1]}


NOBODYS: Final = f'{{"keys":[{msgspec.json.encode(_nobodys_key()).decode()}]}}'
"""A key set that verifies no token."""
