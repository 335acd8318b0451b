"""The certificate authority of a mesh: one signing key and what leads from it to the roots.

What a certificate says comes from the authenticated identity alone; of the request only the public key is used.
Every certificate has Subject and Authority Key Identifiers: with two roots of one name in a bundle, verifiers find
the right one only by these.

Source: RFC 5280, SPIFFE X509-SVID.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lateen.lib.errors import LateenError
from lateen.lib.signing import key_identifier
from lateen.lib.spiffe import SpiffeId
from lateen.security.peer import PeerIdentity, subject_of

DEFAULT_VALIDITY: Final = dt.timedelta(hours=24)
BACKDATED: Final = dt.timedelta(minutes=2)
"""How far before now a certificate starts, for clocks that differ."""

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class CaError(LateenError):
    """The CA's files cannot be used; the message names the file and what to do."""


class CsrError(Exception):
    """A certificate request cannot be signed; the message says why."""


class CertificateAuthority:
    """Signs workload certificates. Made by `lateen.security.ca_files.open_ca`.

    `trust_pem` is what peers trust: one root, or several while one replaces another. `revoked_pem` holds the revocation
    lists of everything that may sign; empty: nothing is ever looked up.
    """

    def __init__(
        self,
        key: SigningKey,
        certificate: x509.Certificate,
        intermediates: tuple[x509.Certificate, ...],
        roots: tuple[x509.Certificate, ...],
        now: Callable[[], dt.datetime],
        max_validity: dt.timedelta,
        revocations: tuple[x509.CertificateRevocationList, ...] = (),
    ) -> None:
        self._key = key
        self._now = now
        self._max_validity = max_validity
        self._revocations = revocations
        self.certificate = certificate
        self.roots = roots
        self.chain_pem = tuple(pem_of(each) for each in intermediates)
        self.trust_pem = "".join(pem_of(each) for each in roots)
        self.revoked_pem = "".join(self.revocation_lists().values()) if revocations else ""

    @property
    def expires(self) -> dt.datetime:
        """When the signing certificate ends; nothing it signs outlives it."""
        return self.certificate.not_valid_after_utc

    @property
    def signer(self) -> str:
        """What certificates of this authority name as their issuer's key (hexadecimal)."""
        return key_identifier(self.certificate)

    @property
    def longest(self) -> dt.timedelta:
        """The longest life of a certificate."""
        return self._max_validity

    def revoked(self, certificate: x509.Certificate) -> bool:
        """True for a certificate that a revocation list names."""
        return any(
            each.issuer == certificate.issuer
            and each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            for each in self._revocations
        )

    def issue(
        self, csr_pem: str | bytes, identity: PeerIdentity, validity: dt.timedelta = DEFAULT_VALIDITY
    ) -> tuple[str, ...]:
        """Signs the request's key for an identity: the leaf, intermediates, and last the root bundle, each PEM.

        `validity` is cut to the CA's maximum and to its own end. CsrError when the request is not a request, not
        signed by its own key, or its key is of a kind Envoy cannot use; names in it are not read.
        """
        try:
            subject = subject_of(identity)
        except ValueError as error:
            raise CsrError(str(error)) from None
        return self._sign(csr_pem, subject, (x509.UniformResourceIdentifier(str(identity.spiffe)),), validity)

    def issue_serving(self, csr_pem: str | bytes, identity: SpiffeId, names: tuple[str, ...]) -> tuple[str, ...]:
        """Like `issue`, for the control plane's own servers, which are also known by DNS names."""
        alternatives = (x509.UniformResourceIdentifier(str(identity)), *(x509.DNSName(name) for name in names))
        return self._sign(csr_pem, x509.Name([]), alternatives, DEFAULT_VALIDITY)

    def _sign(
        self, csr_pem: str | bytes, subject: x509.Name, names: tuple[x509.GeneralName, ...], validity: dt.timedelta
    ) -> tuple[str, ...]:
        public = _request_key(csr_pem)
        now = self._now().replace(microsecond=0)
        if validity <= dt.timedelta(0):
            validity = DEFAULT_VALIDITY
        end = min(now + min(validity, self._max_validity), self.expires)
        if end <= now:
            raise CaError(f"the CA certificate ended at {self.expires:%Y-%m-%d %H:%M}Z: nothing can be signed with it")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, self.certificate.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False, encipher=isinstance(public, rsa.RSAPublicKey)), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_authority_key(self.certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return (pem_of(certificate), *self.chain_pem, self.trust_pem)

    def revocation_lists(self) -> dict[x509.Name, str]:
        """The lists (PEM) of everything that may sign, by issuer, with an empty one of this CA's own when it has none:
        verifiers that have lists want one of every issuer."""
        lists = {each.issuer: each for each in self._revocations}
        if self.certificate.subject not in lists:
            builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
            builder = builder.last_update(self._now() - BACKDATED).next_update(self.expires)
            builder = builder.add_extension(_authority_key(self.certificate), critical=False)
            lists[self.certificate.subject] = builder.sign(self._key, hashes.SHA256())
        return {name: each.public_bytes(serialization.Encoding.PEM).decode() for name, each in lists.items()}


def key_usage(*, ca: bool, encipher: bool = False) -> x509.KeyUsage:
    """The key usage of an authority, or of a leaf (`encipher`: with an RSA key)."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def known_key(certificate: x509.Certificate) -> PublicKey:
    """The public key of an authority. CaError when Envoy could not verify with it."""
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        name = certificate.subject.rfc4514_string()
        raise CaError(f"the key of {name} is of a kind Envoy cannot verify: use an EC P-256 or an RSA key")
    return public


def pem_of(certificate: x509.Certificate) -> str:
    """A certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _request_key(csr_pem: str | bytes) -> PublicKey:
    """The public key a request asks a certificate for, when its sender holds the private one."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode() if isinstance(csr_pem, str) else csr_pem)
        valid = request.is_signature_valid
        public = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CsrError(f"not a certificate request in PEM: {error}") from None
    if not valid:
        raise CsrError("the request is not signed by the key it asks a certificate for")
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in ("secp256r1", "secp384r1", "secp521r1"):
        return public
    if isinstance(public, rsa.RSAPublicKey) and 2048 <= public.key_size <= 8192:
        return public
    raise CsrError("the key must be EC P-256, P-384 or P-521, or RSA of 2048 to 8192 bits")


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(known_key(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
