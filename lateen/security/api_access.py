"""Keys and certificates of the Kubernetes API, and the kubeconfig of the mesh's owner.

They come from a CA of their own: a workload's certificate opens no API, and the API's CA speaks for no workload. Who a
client certificate is for is its common name, the groups are its organizations, as in Kubernetes.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/ (X509 client certificates).
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lateen.security.files import write_secret
from lateen.security.peer import utc_now

_CA_LIFE: Final = dt.timedelta(days=3650)
_LEAF_LIFE: Final = dt.timedelta(days=365)
_RENEW_BEFORE: Final = dt.timedelta(days=60)
_BACKDATED: Final = dt.timedelta(minutes=2)
_NAMES: Final = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
MASTERS: Final = "system:masters"


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its key, each a PEM file."""

    certificate: Path
    key: Path

    def pem(self) -> tuple[bytes, bytes]:
        """Both as text."""
        return self.certificate.read_bytes(), self.key.read_bytes()


class ApiAccess:
    """The files of one mesh's API in one folder; what is missing or about to end is made."""

    def __init__(self, folder: Path, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._now = now
        self.ca = Pair(folder / "ca.crt", folder / "ca.key")
        self.server = Pair(folder / "server.crt", folder / "server.key")
        self._owner = Pair(folder / "owner.crt", folder / "owner.key")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.ca.key.exists() or not self.ca.certificate.exists():
            self._make_ca()
        if self._is_due(self.server):
            addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
            names: list[x509.GeneralName] = [*(x509.DNSName(each) for each in _NAMES), *addresses]
            self._issue(self.server, _name("lateen"), ExtendedKeyUsageOID.SERVER_AUTH, names)
        if self._is_due(self._owner):
            self._issue(self._owner, _name("lateen:owner", MASTERS), ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def kubeconfig(self, mesh: str, url: str) -> bytes:
        """A kubeconfig (JSON is YAML) with which clients are the mesh's owner."""
        certificate, key = self._owner.pem()
        name = f"lateen-{mesh}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": url,
                        "certificate-authority-data": _text(self.ca.certificate.read_bytes()),
                    },
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {"client-certificate-data": _text(certificate), "client-key-data": _text(key)},
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        return msgspec.json.format(msgspec.json.encode(config)) + b"\n"

    def _is_due(self, pair: Pair) -> bool:
        if not pair.certificate.exists() or not pair.key.exists():
            return True
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        ca = x509.load_pem_x509_certificate(self.ca.certificate.read_bytes())
        return certificate.not_valid_after_utc - self._now() < _RENEW_BEFORE or certificate.issuer != ca.subject

    def _make_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"lateen API {x509.random_serial_number() % 10**8}")
        certificate = (
            self._builder(name, name, key.public_key(), _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._write(self.ca, certificate, key)

    def _issue(
        self, pair: Pair, subject: x509.Name, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]
    ) -> None:
        ca = x509.load_pem_x509_certificate(self.ca.certificate.read_bytes())
        signer = serialization.load_pem_private_key(self.ca.key.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, ca.subject, key.public_key(), _LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._write(pair, builder.sign(signer, hashes.SHA256()), key)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: dt.timedelta
    ) -> x509.CertificateBuilder:
        now = self._now().replace(microsecond=0)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + life)
        )

    def _write(self, pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        write_secret(pair.key, key.private_bytes(serialization.Encoding.PEM, form, plain))
        write_secret(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _name(common: str, *organizations: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
