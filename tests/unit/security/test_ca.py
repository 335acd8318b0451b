"""The CA: its files, what it signs, and what it refuses."""

from __future__ import annotations

import datetime as dt
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from lateen.lib.keypair import new_request
from lateen.lib.spiffe import SpiffeId, control_plane_id
from lateen.security.ca import CaError, CsrError
from lateen.security.ca_files import FILES, open_ca
from lateen.security.peer import PeerIdentity, parse_peer

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
REVIEWS = PeerIdentity(spiffe=SpiffeId("cluster.local", "default", "reviews"), pod="reviews-1", uid="u1")


def _leaf(chain: tuple[str, ...]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain[0].encode())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority(
    name: str,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    *,
    ca: bool = True,
    days: int = 100,
    identifiers: bool = True,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate made without lateen: a root, or signed by an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    parent, parent_key = issuer if issuer else (None, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=200))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if identifiers:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(parent_key, hashes.SHA256()), key


def _key(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def _plug_in(directory: Path, **replaced: bytes) -> Path:
    """Files of an intermediate CA two steps below a root; each can be replaced."""
    root = _authority("root")
    middle = _authority("middle", root)
    signer = _authority("signer", middle)
    contents = {
        "ca_cert": _pem(signer[0]),
        "ca_key": _key(signer[1]),
        "root_cert": _pem(root[0]),
        "cert_chain": _pem(signer[0]) + _pem(middle[0]) + _pem(root[0]),
    } | replaced
    directory.mkdir()
    for file in FILES:
        (directory / file).write_bytes(contents[file.removesuffix(".pem").replace("-", "_")])
    return directory


def test_a_made_root_is_private_lasting_and_kept(tmp_path: Path) -> None:
    made = open_ca(tmp_path / "ca", now=lambda: NOW)
    again = open_ca(tmp_path / "ca", now=lambda: NOW)
    assert made.trust_pem == again.trust_pem
    for file in FILES:
        assert stat.S_IMODE((tmp_path / "ca" / file).stat().st_mode) == 0o600
    root = x509.load_pem_x509_certificate(made.trust_pem.encode())
    assert root.not_valid_after_utc == NOW + dt.timedelta(days=3650)
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
    assert root.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == key_id
    assert [each.name for each in tmp_path.iterdir()] == ["ca"]


def test_an_empty_folder_counts_as_none(tmp_path: Path) -> None:
    assert "BEGIN CERTIFICATE" in open_ca(tmp_path).trust_pem


def test_a_leaf_says_what_the_identity_says_and_nothing_of_the_request(tmp_path: Path) -> None:
    ca = open_ca(tmp_path / "ca", now=lambda: NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    evil = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/admin"), x509.DNSName("a.b")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf = _leaf(ca.issue(evil.public_bytes(serialization.Encoding.PEM), REVIEWS))
    assert leaf.public_key() == key.public_key()
    assert parse_peer(leaf) == REVIEWS
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/reviews")]
    assert not leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    root = x509.load_pem_x509_certificate(ca.trust_pem.encode())
    assert (
        leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
    )
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (dt.timedelta(hours=24), dt.timedelta(hours=24)),
        (dt.timedelta(0), dt.timedelta(hours=24)),
        (dt.timedelta(hours=1), dt.timedelta(hours=1)),
        (dt.timedelta(days=400), dt.timedelta(hours=24)),
    ],
)
def test_how_long_a_leaf_lasts(tmp_path: Path, asked: dt.timedelta, given: dt.timedelta) -> None:
    ca = open_ca(tmp_path / "ca", now=lambda: NOW)
    leaf = _leaf(ca.issue(new_request()[1], REVIEWS, asked))
    assert leaf.not_valid_after_utc == NOW + given
    assert leaf.not_valid_before_utc < NOW


def test_no_leaf_outlives_its_ca(tmp_path: Path) -> None:
    clock = [NOW]
    ca = open_ca(tmp_path / "ca", now=lambda: clock[0])
    clock[0] = ca.expires - dt.timedelta(hours=1)
    assert _leaf(ca.issue(new_request()[1], REVIEWS)).not_valid_after_utc == ca.expires
    clock[0] = ca.expires
    with pytest.raises(CaError, match="ended at 2039"):
        ca.issue(new_request()[1], REVIEWS)
    with pytest.raises(CaError, match=r"ca-cert.pem: .* ended at 2039"):
        open_ca(tmp_path / "ca", now=lambda: clock[0])


def test_a_plug_in_intermediate_signs_and_sends_its_chain(tmp_path: Path) -> None:
    ca = open_ca(_plug_in(tmp_path / "ca"), now=lambda: NOW)
    chain = ca.issue(new_request()[1], REVIEWS)
    subjects = [x509.load_pem_x509_certificate(each.encode()).subject.rfc4514_string() for each in chain[1:]]
    assert subjects == ["CN=signer", "CN=middle", "CN=root"]
    (tmp_path / "root").write_text(chain[-1])
    (tmp_path / "between").write_text("".join(chain[1:-1]))
    (tmp_path / "leaf").write_text(chain[0])
    check = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", str(tmp_path / "root")]
    check += ["-untrusted", str(tmp_path / "between"), str(tmp_path / "leaf")]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_that_others_could_read_is_taken_from_them(tmp_path: Path) -> None:
    open_ca(tmp_path / "ca")
    key = tmp_path / "ca" / "ca-key.pem"
    key.chmod(0o644)
    open_ca(tmp_path / "ca")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_ca_without_identifiers_still_leads_verifiers_to_its_key(tmp_path: Path) -> None:
    root = _authority("root", identifiers=False)
    pem = _pem(root[0])
    files = _plug_in(tmp_path / "ca", ca_cert=pem, ca_key=_key(root[1]), root_cert=pem, cert_chain=pem)
    leaf = _leaf(open_ca(files, now=lambda: NOW).issue(new_request()[1], REVIEWS))
    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert identifier == x509.AuthorityKeyIdentifier.from_issuer_public_key(root[1].public_key())


def test_roots_that_ended_are_left_out_of_a_bundle(tmp_path: Path) -> None:
    root = _authority("root")
    over = _authority("root", days=-1)
    pem = _pem(root[0])
    files = _plug_in(tmp_path / "ca", ca_cert=pem, ca_key=_key(root[1]), root_cert=_pem(over[0]) + pem, cert_chain=pem)
    assert open_ca(files, now=lambda: NOW).trust_pem == pem.decode()


OTHER = _authority("other")

BAD_FILES: list[tuple[dict[str, bytes], str]] = [
    ({"ca_cert": b"nonsense"}, r"ca-cert.pem holds no PEM certificate"),
    ({"ca_key": b"nonsense"}, r"ca-key.pem holds no PEM private key"),
    ({"ca_key": _key(OTHER[1])}, r"ca-key.pem is not the key of .*ca-cert.pem"),
    ({"ca_key": _key(OTHER[1], b"secret")}, r"ca-key.pem is encrypted"),
    ({"ca_key": _key(ed25519.Ed25519PrivateKey.generate())}, r"ca-key.pem is of a kind Envoy cannot verify"),
    ({"root_cert": _pem(OTHER[0])}, r"cert-chain.pem does not lead from .*ca-cert.pem to a certificate of"),
    ({"cert_chain": _pem(OTHER[0])}, r"cert-chain.pem does not lead from"),
    ({"root_cert": b""}, r"root-cert.pem holds no PEM certificate"),
]


@pytest.mark.parametrize(("replaced", "message"), BAD_FILES)
def test_bad_plug_in_files_are_named(tmp_path: Path, replaced: dict[str, bytes], message: str) -> None:
    with pytest.raises(CaError, match=message):
        open_ca(_plug_in(tmp_path / "ca", **replaced), now=lambda: NOW)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_authority("leaf", ca=False), r"CN=leaf is not a CA certificate"),
        (_authority("old", days=-1), r"CN=old ended at 2029-12-31"),
        (_authority("old", days=-1, ca=False), r"CN=old is not a CA certificate"),
    ],
)
def test_certificates_that_cannot_sign_are_refused(
    tmp_path: Path, made: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], message: str
) -> None:
    pem = _pem(made[0])
    files = _plug_in(tmp_path / "ca", ca_cert=pem, ca_key=_key(made[1]), root_cert=pem, cert_chain=pem)
    with pytest.raises(CaError, match=message):
        open_ca(files, now=lambda: NOW)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named_and_nothing_is_made(tmp_path: Path, file: str) -> None:
    files = _plug_in(tmp_path / "ca")
    (files / file).unlink()
    with pytest.raises(CaError, match=rf"but not {file}: give all four"):
        open_ca(files, now=lambda: NOW)
    assert not (files / file).exists()


def _signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _tampered() -> bytes:
    """A request whose signature does not fit its key any more."""
    der = bytearray(x509.load_pem_x509_csr(new_request()[1].encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("csr", "message"),
    [
        (b"nonsense", "not a certificate request"),
        (b"", "not a certificate request"),
        (_tampered(), "not signed by the key"),
        (_signed(ec.generate_private_key(ec.SECP256K1())), "the key must be EC P-256"),
        (_signed(rsa.generate_private_key(65537, 1024)), "the key must be EC P-256"),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, csr: bytes, message: str) -> None:
    with pytest.raises(CsrError, match=message):
        open_ca(tmp_path / "ca").issue(csr, REVIEWS)


def test_rsa_requests_are_signed(tmp_path: Path) -> None:
    leaf = _leaf(open_ca(tmp_path / "ca").issue(_signed(rsa.generate_private_key(65537, 2048)), REVIEWS))
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


def test_the_control_plane_is_known_by_name_too(tmp_path: Path) -> None:
    own = control_plane_id("cluster.local")
    leaf = _leaf(open_ca(tmp_path / "ca").issue_serving(new_request()[1], own, ("localhost",)))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(own)), x509.DNSName("localhost")]
