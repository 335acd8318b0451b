"""Throw-away certificates for tests, made without lateen's own CA."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def rsa_key() -> bytes:
    """A key of RSA, PEM."""
    return _pem(rsa.generate_private_key(65537, 2048))


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
"""What the SPIFFE validator insists on: a leaf whose key usage says that it signs no certificates."""


class Authority:
    """A root that signs leaves valid for an hour."""

    def __init__(self, name: str = "test root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = self._key.public_key()
        self._certificate = (
            _builder(self._name, self._name, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(self, uri: str, *dns_names: str, key: bytes | None = None) -> tuple[bytes, bytes]:
        """A certificate for client and server use and its key, both PEM; `key` is one to make it for."""
        own = ec.generate_private_key(ec.SECP256R1()) if key is None else serialization.load_pem_private_key(key, None)
        assert isinstance(own, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
        names += [x509.DNSName(each) for each in dns_names]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            _builder(x509.Name([]), self._name, own.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(_SIGNS, critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(own)

    def staple(self, leaf: bytes) -> bytes:
        """What a responder of this authority says of a certificate: good, for an hour (DER)."""
        now = datetime.datetime.now(datetime.UTC)
        made = ocsp.OCSPResponseBuilder().add_response(
            cert=x509.load_pem_x509_certificate(leaf),
            issuer=self._certificate,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now,
            next_update=now + datetime.timedelta(hours=1),
            revocation_time=None,
            revocation_reason=None,
        )
        made = made.responder_id(ocsp.OCSPResponderEncoding.HASH, self._certificate)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def revoked(self, *leaves: bytes) -> bytes:
        """A revocation list with those certificates, PEM."""
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        made = made.last_update(now).next_update(now + datetime.timedelta(hours=1))
        for each in leaves:
            number = x509.load_pem_x509_certificate(each).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now)
            made = made.add_revoked_certificate(entry.build())
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )
