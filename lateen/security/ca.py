"""The certificate authority of a mesh: one signing key, in a folder of four files with Istio's names.

`ca-cert.pem` and `ca-key.pem` sign, `cert-chain.pem` leads from ca-cert to the root, `root-cert.pem` is what
everybody trusts (several roots while one replaces the other). A folder that has none of them gets a self-made
root; one that has them is a plug-in CA and is checked as a whole before anything is signed. Both are then the same.

What a certificate says comes from the authenticated identity alone; of the request only the public key is used.
Every certificate has Subject and Authority Key Identifiers: with two roots of one name in a bundle, verifiers find
the right one only by these.

Source: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ (the files), RFC 5280,
SPIFFE X509-SVID.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lateen.lib.errors import LateenError
from lateen.lib.spiffe import SpiffeId
from lateen.security.files import write_secret
from lateen.security.peer import PeerIdentity, subject_of, utc_now

FILES = ("ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem")
DEFAULT_VALIDITY = dt.timedelta(hours=24)
ROOT_VALIDITY = dt.timedelta(days=3650)
BACKDATED = dt.timedelta(minutes=2)
"""How far before now a certificate starts, for clocks that differ."""

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class CaError(LateenError):
    """The CA's files cannot be used; the message names the file and what to do."""


class CsrError(Exception):
    """A certificate request cannot be signed; the message says why."""


class CertificateAuthority:
    """Signs workload certificates. Made by `open_ca`. `trust_pem` is what peers trust: one or several roots."""

    def __init__(
        self,
        key: SigningKey,
        certificate: x509.Certificate,
        intermediates: tuple[x509.Certificate, ...],
        roots: tuple[x509.Certificate, ...],
        now: Callable[[], dt.datetime],
        max_validity: dt.timedelta,
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._now = now
        self._max_validity = max_validity
        self.chain_pem = tuple(_pem(each) for each in intermediates)
        self.trust_pem = "".join(_pem(each) for each in roots)

    @property
    def expires(self) -> dt.datetime:
        """When the signing certificate ends; nothing it signs outlives it."""
        return self._certificate.not_valid_after_utc

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
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, self._certificate.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False, encipher=isinstance(public, rsa.RSAPublicKey)), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_authority_key(self._certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return (_pem(certificate), *self.chain_pem, self.trust_pem)


def open_ca(
    directory: Path,
    organization: str = "lateen",
    *,
    now: Callable[[], dt.datetime] = utc_now,
    max_validity: dt.timedelta = DEFAULT_VALIDITY,
) -> CertificateAuthority:
    """The CA in a folder, made there first when the folder is empty or absent. CaError when its files make no CA."""
    present = [name for name in FILES if (directory / name).exists()]
    if not present:
        _make(directory, organization, now())
    elif len(present) < len(FILES):
        missing = ", ".join(name for name in FILES if name not in present)
        raise CaError(
            f"{directory} has {', '.join(present)} but not {missing}: "
            "give all four files of a plug-in CA, or remove them all to have one made"
        )
    return _load(directory, now, max_validity)


def _make(directory: Path, organization: str, now: dt.datetime) -> None:
    """Writes a self-made root: all files appear at once, or none."""
    now = now.replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + ROOT_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = _pem(root).encode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    try:
        contents = {"ca-cert.pem": pem, "ca-key.pem": secret, "root-cert.pem": pem, "cert-chain.pem": pem}
        for file, content in contents.items():
            write_secret(draft / file, content)
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()
        draft.rename(directory)
    except BaseException as error:
        shutil.rmtree(draft)
        if isinstance(error, OSError):
            raise CaError(f"cannot write a CA to {directory}: {error.strerror}") from error
        raise


def _load(directory: Path, now: Callable[[], dt.datetime], max_validity: dt.timedelta) -> CertificateAuthority:
    certificate = _certificates(directory / "ca-cert.pem")[0]
    roots = _certificates(directory / "root-cert.pem")
    chain = _certificates(directory / "cert-chain.pem")
    _keep_to_owner(directory / "ca-key.pem")
    key = _private_key(directory / "ca-key.pem")
    file = directory / "ca-cert.pem"
    if _public_bytes(key.public_key()) != _public_bytes(_known(certificate)):
        raise CaError(f"{directory / 'ca-key.pem'} is not the key of {file}: they must be made together")
    _check_authority(file, certificate, now())
    lasting = [root for root in roots if root.not_valid_after_utc > now()]
    for root in lasting or roots:
        _check_authority(directory / "root-cert.pem", root, now())
    roots = lasting
    path = _path_to_root(certificate, [each for each in chain if each != certificate], roots)
    if path is None:
        raise CaError(
            f"{directory / 'cert-chain.pem'} does not lead from {file} to a certificate of "
            f"{directory / 'root-cert.pem'}: put the certificates in between into it"
        )
    for each in path[1:]:
        _check_authority(directory / "cert-chain.pem", each, now())
    return CertificateAuthority(key, certificate, tuple(path), tuple(roots), now, max_validity)


def _path_to_root(
    certificate: x509.Certificate, others: list[x509.Certificate], roots: list[x509.Certificate]
) -> list[x509.Certificate] | None:
    """The certificates to send between a leaf and the root: none when the signing certificate is itself a root."""
    if certificate in roots:
        return []
    path = [certificate]
    while True:
        if any(_signed_by(path[-1], root) for root in roots):
            return path
        step = next(
            (each for each in others if each not in path and each not in roots and _signed_by(path[-1], each)), None
        )
        if step is None:
            return None
        path.append(step)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_authority(file: Path, certificate: x509.Certificate, now: dt.datetime) -> None:
    """CaError unless the certificate may sign others, now."""
    name = certificate.subject.rfc4514_string()
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise CaError(f"{file}: {name} is not a CA certificate (its basic constraints must say CA:TRUE)")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.key_cert_sign:
        raise CaError(f"{file}: {name} may not sign certificates (its key usage must include keyCertSign)")
    if certificate.not_valid_after_utc <= now:
        raise CaError(f"{file}: {name} ended at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z: renew it")
    if certificate.not_valid_before_utc > now:
        raise CaError(
            f"{file}: {name} starts at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z: is the clock right?"
        )


def _keep_to_owner(file: Path) -> None:
    """Takes everybody else's rights on a private key away, as plug-in files come with any."""
    try:
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
    except FileNotFoundError:
        return  # reading it says so
    except OSError as error:
        raise CaError(f"{file} can be read by others, and that cannot be changed: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CaError(f"cannot read {file}: {error.strerror}") from error


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError as error:
        raise CaError(f"{file} holds no PEM certificate: {error}") from error


def _private_key(file: Path) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(_read(file), password=None)
    except TypeError as error:
        raise CaError(f"{file} is encrypted: give the key without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CaError(f"{file} holds no PEM private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CaError(f"{file} is of a kind Envoy cannot verify: use an EC P-256 or an RSA key")
    return key


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


def _key_usage(*, ca: bool, encipher: bool = False) -> x509.KeyUsage:
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


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_known(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _known(certificate: x509.Certificate) -> PublicKey:
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        name = certificate.subject.rfc4514_string()
        raise CaError(f"the key of {name} is of a kind Envoy cannot verify: use an EC P-256 or an RSA key")
    return public


def _public_bytes(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
