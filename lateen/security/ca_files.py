"""The files of a certificate authority: a folder with Istio's names.

`ca-cert.pem` and `ca-key.pem` sign, `cert-chain.pem` leads from ca-cert to the root, `root-cert.pem` is what
everybody trusts (several roots while one replaces the other), `ca-crl.pem`, if there, says which certificates no longer
count. A folder that has none of them gets a self-made root; one that has them is a plug-in CA and is checked as a whole
before anything is signed. Both are then the same.

Source: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from lateen.security.ca import (
    BACKDATED,
    DEFAULT_VALIDITY,
    CaError,
    CertificateAuthority,
    PublicKey,
    SigningKey,
    key_usage,
    known_key,
    pem_of,
)
from lateen.security.files import write_secret
from lateen.security.peer import utc_now

CERTIFICATE: Final = "ca-cert.pem"
KEY: Final = "ca-key.pem"
ROOTS: Final = "root-cert.pem"
CHAIN: Final = "cert-chain.pem"
FILES: Final = (CERTIFICATE, KEY, ROOTS, CHAIN)
REVOKED: Final = "ca-crl.pem"
ROOT_VALIDITY: Final = dt.timedelta(days=3650)


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
        put_files(directory, made(now(), organization))
    elif len(present) < len(FILES):
        missing = ", ".join(name for name in FILES if name not in present)
        raise CaError(
            f"{directory} has {', '.join(present)} but not {missing}: "
            "give all four files of a plug-in CA, or remove them all to have one made"
        )
    return _load(directory, now, max_validity)


def made(now: dt.datetime, organization: str = "lateen") -> dict[str, bytes]:
    """The files of a new self-made root. Each has a name of its own: revocation lists are looked up by it."""
    now = now.replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, f"root {subject_key.digest.hex()[:8]}"),
        ]
    )
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + ROOT_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = pem_of(root).encode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {CERTIFICATE: pem, KEY: secret, ROOTS: pem, CHAIN: pem}


def put_files(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Makes a folder (absent or empty before) with files, all at once or none. CaError when it cannot."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
        draft.mkdir(mode=0o700)
        try:
            for file, content in contents.items():
                write_secret(draft / file, content)
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()
            draft.rename(directory)
        except BaseException:
            shutil.rmtree(draft)
            raise
    except OSError as error:
        raise CaError(f"cannot write a CA to {directory}: {error.strerror}") from error


def certificates_in(file: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. CaError when there are none."""
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError as error:
        raise CaError(f"{file} holds no PEM certificate: {error}") from error


def _load(directory: Path, now: Callable[[], dt.datetime], max_validity: dt.timedelta) -> CertificateAuthority:
    file = directory / CERTIFICATE
    certificate = certificates_in(file)[0]
    roots = certificates_in(directory / ROOTS)
    chain = certificates_in(directory / CHAIN)
    _keep_to_owner(directory / KEY)
    key = _private_key(directory / KEY)
    if _public_bytes(key.public_key()) != _public_bytes(known_key(certificate)):
        raise CaError(f"{directory / KEY} is not the key of {file}: they must be made together")
    _check_authority(file, certificate, now())
    lasting = [root for root in roots if root.not_valid_after_utc > now()]
    for root in lasting or roots:
        _check_authority(directory / ROOTS, root, now())
    path = _path_to_root(certificate, [each for each in chain if each != certificate], lasting)
    if path is None:
        raise CaError(
            f"{directory / CHAIN} does not lead from {file} to a certificate of "
            f"{directory / ROOTS}: put the certificates in between into it"
        )
    for each in path[1:]:
        _check_authority(directory / CHAIN, each, now())
    revocations = _revocations(directory / REVOKED, certificate, [*path, *lasting])
    return CertificateAuthority(key, certificate, tuple(path), tuple(lasting), now, max_validity, revocations)


def _revocations(
    file: Path, certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file, none without it. A verifier with lists wants one of every authority; of those
    above the signing one only their owners can make it."""
    if not file.exists():
        return ()
    end = b"-----END X509 CRL-----"
    try:
        found = [x509.load_pem_x509_crl(part + end) for part in _read(file).split(end)[:-1]]
    except ValueError as error:
        raise CaError(f"{file} holds no revocation list in PEM: {error}") from error
    if not found:
        raise CaError(f"{file} holds no revocation list in PEM: remove the file to have none")
    for each in authorities:
        lists = [one for one in found if one.issuer == each.subject]
        if not any(one.is_signature_valid(known_key(each)) for one in lists) and (lists or each != certificate):
            raise CaError(
                f"{file} has no list signed by {each.subject.rfc4514_string()}: "
                "with revocation lists every authority needs one, or its certificates are refused"
            )
    return tuple(found)


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


def _public_bytes(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
