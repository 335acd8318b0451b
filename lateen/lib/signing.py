"""How an agent asks for certificates, without saying over what: the seam between the agent and the CA's client, and
the names that both ends of the wire know."""

from __future__ import annotations

from typing import Protocol

SERVICE = "istio.v1.auth.IstioCertificateService"
SERVER_NAMES = ("istiod.istio-system.svc", "istiod.istio-system", "istiod.istio-system.svc.cluster.local", "localhost")
"""The DNS names that clients of Istio's control plane expect."""


class SigningError(Exception):
    """No certificate came; the message says why."""


class Signer(Protocol):
    """Answers are PEM texts: the leaf, intermediates, and last the root bundle. Both raise SigningError."""

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        """For the Pod that a service account token is bound to."""
        ...

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        """For the holder of a certificate that is still good."""
        ...
