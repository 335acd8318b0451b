"""How an agent asks for certificates, without saying over what: the seam between the agent and the CA's client."""

from __future__ import annotations

from typing import Protocol


class SigningError(Exception):
    """No certificate came. `refused` tells a refusal, which trying again will not change soon, from an outage."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class Signer(Protocol):
    """Answers are PEM texts: the leaf, intermediates, and last the root bundle. Both raise SigningError."""

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        """For the Pod that a service account token is bound to."""
        ...

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        """For the holder of a certificate that is still good."""
        ...
