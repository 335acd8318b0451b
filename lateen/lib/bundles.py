"""Bundles of root certificates, as PEM and as SPIFFE writes them: a JSON Web Key Set with a certificate in each key.

Source: the SPIFFE Trust Domain and Bundle standard (spiffe.io), RFC 7517 (x5c).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

REFRESH_HINT_S: Final = 300
_USE: Final = "x509-svid"
_CURVES: Final = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}


class _Key(msgspec.Struct, frozen=True):
    use: str = ""
    x5c: tuple[str, ...] = ()


class _Bundle(msgspec.Struct, frozen=True):
    keys: tuple[_Key, ...]


def authorities(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text. ValueError when there is none, or one that may not sign others."""
    found = x509.load_pem_x509_certificates(pem.encode())
    for each in found:
        name = each.subject.rfc4514_string()
        try:
            constraints = each.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            raise ValueError(f"{name} is not a CA certificate") from None
        if not constraints.ca:
            raise ValueError(f"{name} is not a CA certificate")
    return found


def from_spiffe(document: bytes) -> str:
    """The roots of a SPIFFE bundle as PEM. ValueError when it is none, or holds none."""
    try:
        bundle = msgspec.json.decode(document, type=_Bundle)
        found = [
            x509.load_der_x509_certificate(base64.b64decode(each.x5c[0], validate=True))
            for each in bundle.keys
            if each.use == _USE and each.x5c
        ]
    except (msgspec.MsgspecError, binascii.Error, RecursionError) as error:
        raise ValueError(f"it is no SPIFFE bundle: {error}") from None
    if not found:
        raise ValueError(f'it holds no key with use "{_USE}" and a certificate')
    pem = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in found)
    authorities(pem)
    return pem


def to_spiffe(pem: str) -> bytes:
    """A SPIFFE bundle of the roots in a PEM text."""
    keys = [_key(each) for each in x509.load_pem_x509_certificates(pem.encode())]
    return msgspec.json.encode({"keys": keys, "spiffe_refresh_hint": REFRESH_HINT_S})


def _key(root: x509.Certificate) -> dict[str, Any]:
    der = base64.b64encode(root.public_bytes(serialization.Encoding.DER)).decode()
    head = {"use": _USE, "x5c": [der]}
    public = root.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        curve, size = _CURVES[public.curve.name]
        numbers = public.public_numbers()
        return {"kty": "EC", "crv": curve, "x": _number(numbers.x, size), "y": _number(numbers.y, size), **head}
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = public.public_numbers()
    n = _number(numbers.n, (numbers.n.bit_length() + 7) // 8)
    return {"kty": "RSA", "n": n, "e": _number(numbers.e, (numbers.e.bit_length() + 7) // 8), **head}


def _number(value: int, size: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()
