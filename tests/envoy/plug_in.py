"""A CA of somebody else as Istio's users plug it in: a root that stays away, and an intermediate that signs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def authority(name: str, issuer: Pair | None = None, days: float = 100, *, identified: bool = True) -> Pair:
    """A CA certificate with its key, self-signed or signed by an issuer. `days` below 0: it is over. `identified`: it
    says by which key it was issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    parent, parent_key = issuer if issuer else (None, key)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=200))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if identified:
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(parent_key.public_key())
        builder = builder.add_extension(issued_by, critical=False)
    return builder.sign(parent_key, hashes.SHA256()), key


class PlugIn:
    """A root, and an intermediate below it that signs."""

    def __init__(self, days: float = 100, *, identified: bool = True) -> None:
        self.root = authority("plug-in root")
        self.signing = authority("plug-in intermediate", self.root, days, identified=identified)

    def renew(self) -> None:
        """Another intermediate of the same root."""
        self.signing = authority("plug-in intermediate", self.root)

    def files(self) -> dict[str, str]:
        """The four files by name."""
        key = self.signing[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signing, root = (
            each[0].public_bytes(serialization.Encoding.PEM).decode() for each in (self.signing, self.root)
        )
        return {
            "ca-cert.pem": signing,
            "ca-key.pem": key.decode(),
            "root-cert.pem": root,
            "cert-chain.pem": signing + root,
        }

    def write(self, directory: Path) -> Path:
        """The files in a new directory."""
        directory.mkdir()
        for name, content in self.files().items():
            (directory / name).write_text(content)
        return directory

    def revocation_lists(self, *leaves: bytes) -> str:
        """The lists of both CAs: of the intermediate's leaves those are revoked."""
        serials = [x509.load_pem_x509_certificate(each).serial_number for each in leaves]
        return _list(self.root, []) + _list(self.signing, serials)


def _list(issuer: Pair, serials: list[int]) -> str:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer[0].subject)
    builder = builder.last_update(now).next_update(now + dt.timedelta(hours=1))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
