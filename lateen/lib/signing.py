"""How an agent asks for certificates and learns what to trust, without saying over what: the seam between the agent
and the control plane's client, and the names that both ends of the wire know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
from cryptography import x509

from lateen.lib.request_counts import Report

SERVICE = "istio.v1.auth.IstioCertificateService"
TRUST_SERVICE = "lateen.security.v1.TrustService"
SERVER_NAMES = ("istiod.istio-system.svc", "istiod.istio-system", "istiod.istio-system.svc.cluster.local", "localhost")
"""The DNS names that clients of Istio's control plane expect."""


class SigningError(Exception):
    """No certificate came, or no trust; the message says why."""


class Trust(msgspec.Struct, frozen=True):
    """What the mesh trusts now. `roots` (PEM) are the control plane's and the workloads' own; `secret` is what proxies
    check peers with (an encoded Envoy secret named ROOTCA). What `signer` did not sign is to be renewed."""

    version: str
    roots: str
    secret: bytes
    signer: str


class TrustAnswer(msgspec.Struct, frozen=True):
    """What an agent says of its Pods (`namespace/name`): the trust that all of them use, empty while they differ; and
    what their proxies counted."""

    version: str
    pods: tuple[str, ...]
    report: Report | None = None


class Signer(Protocol):
    """Answers are PEM texts: the leaf, intermediates, and last the root bundle. Both raise SigningError."""

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        """For the Pod that a service account token is bound to."""
        ...

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        """For the holder of a certificate that is still good."""
        ...


class TrustedSigner(Signer, Protocol):
    """A signer that also says what the mesh trusts."""

    def follow(self, answers: AsyncIterator[TrustAnswer], *, key: str = "", chain: str = "") -> AsyncIterator[Trust]:
        """What the mesh trusts, now and at every change. SigningError when the connection ends. `key` and `chain` are
        shown where the control plane asks for a certificate."""
        ...


def key_identifier(authority: x509.Certificate) -> str:
    """What certificates of an authority name as their issuer's key (hexadecimal)."""
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    return own.digest.hex()


def issuer_identifier(certificate: x509.Certificate) -> str:
    """The key that signed a certificate, as it says itself; empty when it does not."""
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return ""
    return (issuer.key_identifier or b"").hex()
