"""Key pairs and the requests for certificates over them. For the edges: a key is random, so no query makes one."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def new_request() -> tuple[str, str]:
    """A fresh EC P-256 key and a request for it, both PEM. The request names nobody: the CA knows who asks."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode(), request.public_bytes(serialization.Encoding.PEM).decode()
