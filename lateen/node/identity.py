"""A workload's certificate as the agent holds it: the key, its chain, and what peers are trusted by.

It is kept in a file of the Pod's hidden folder (0600), so that an agent that starts anew while the control plane
is away still serves what is good.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization


class Identity(msgspec.Struct, frozen=True):
    """PEM texts: the private key, the chain (leaf first, without the root), and the root bundle."""

    key: str
    chain: str
    roots: str

    def __repr__(self) -> str:
        return f"Identity(ends {self.ends:%Y-%m-%d %H:%M:%S}Z)"

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.chain.encode())

    @property
    def ends(self) -> dt.datetime:
        """When the leaf stops being good, UTC."""
        return self.leaf.not_valid_after_utc


def from_answer(key: str, answer: tuple[str, ...]) -> Identity:
    """The identity in a CA's answer (leaf, intermediates, root bundle). ValueError when it is not for this key."""
    identity = Identity(key, "".join(answer[:-1]), answer[-1])
    own = serialization.load_pem_private_key(key.encode(), password=None).public_key()
    if own != identity.leaf.public_key():
        raise ValueError("the certificate is for another key")
    x509.load_pem_x509_certificates(identity.roots.encode())
    return identity


def save(identity: Identity, path: Path) -> None:
    """Replaces the file in one step; only its owner can read it at any time."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.encode(identity))
    draft.replace(path)


def load(path: Path, now: dt.datetime) -> Identity | None:
    """The identity kept in a file; None when there is none, or it is broken or over."""
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
        return identity if identity.ends > now else None
    except (FileNotFoundError, ValueError, msgspec.DecodeError):
        return None
