"""Certificates of gateways through the real Envoy: renewed under traffic, RSA beside ECDSA, OCSP, revocation, roots."""

from __future__ import annotations

import base64
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.envoy.certificates import rsa_key
from tests.envoy.test_gateway_connections import gateway, routes, server
from tests.lab.client import Caller, Caller2
from tests.lab.lab import Lab, Refused
from tests.lab.world import GATEWAY

SHOP = routes("shop", "['*']", "ratings", "[istio-system/edge]")
ROTATIONS = 8


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def secret(name: str, **data: bytes) -> str:
    """A Secret of the gateway; `_` in a key stands for a dot, `__` for a dash."""
    keys = {key.replace("__", "-").replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": "istio-system"}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": keys}) + "---\n"


def shown(lab: Lab, context: ssl.SSLContext | None = None) -> x509.Certificate | None:
    """The certificate that a new connection gets; None without one."""
    try:
        with lab.connect("gateway", 8443, tls=context or lab.certificates.client_context(), sni="a.test") as one:
            assert isinstance(one, ssl.SSLSocket)
            one.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
            if not one.recv(65536):
                return None
            return x509.load_der_x509_certificate(one.getpeercert(binary_form=True) or b"")
    except OSError:
        return None


def names(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


class Traffic:
    """Requests without a pause: on one connection of HTTP/2, on one of HTTP/1.1, and each on a new one."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._over = threading.Event()
        self.counts: dict[str, int] = dict.fromkeys(("http/2", "http/1.1", "new"), 0)
        self.failed: list[Any] = []
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._http2, self._http1, self._new)]

    def __enter__(self) -> Traffic:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _http2(self) -> None:
        with Caller2(self._lab, "gateway", 8443, tls=self._context("h2"), sni="a.test") as caller:
            self._ask("http/2", lambda: caller.ask("a.test")[0].status)

    def _http1(self) -> None:
        with Caller(self._lab, "gateway", 8443, tls=self._context(), sni="a.test") as caller:
            self._ask("http/1.1", lambda: caller.ask("/", "a.test").status)

    def _new(self) -> None:
        self._ask("new", lambda: 200 if shown(self._lab) is not None else 0)

    def _ask(self, kind: str, once: Callable[[], int]) -> None:
        while not self._over.is_set():
            status = once()
            self.counts[kind] += 1
            if status != 200:
                self.failed.append((kind, self.counts[kind], status))
                return

    def _context(self, *alpn: str) -> ssl.SSLContext:
        return self._lab.certificates.client_context("", alpn)

    def wait_more(self, count: int) -> None:
        """Until each kind has that many more requests behind it."""
        wanted = {kind: before + count for kind, before in self.counts.items()}
        self._lab.wait(lambda: self.failed or all(self.counts[kind] >= wanted[kind] for kind in wanted), 60)


def test_a_renewed_secret_drops_no_connection(lab: Lab) -> None:
    root = lab.certificates.authorities["root"]
    lab.configure(gateway("edge", server("https", "['*']")), SHOP)
    with Traffic(lab) as traffic:
        for number in range(ROTATIONS):
            traffic.wait_more(3)
            chain, key = root.leaf("", f"{number}.test")
            lab.add(secret("edge", tls_crt=chain, tls_key=key))
            lab.wait(lambda number=number: traffic.failed or names(shown(lab)) == [f"{number}.test"], 60)
        traffic.wait_more(3)
    assert traffic.failed == []


def test_renewed_files_drop_no_connection(lab: Lab) -> None:
    """The proxy reads its files again when they are moved into their directory."""
    root = lab.certificates.authorities["root"]
    key = lab.certificates.read("edge.key").encode()

    def write(name: str) -> None:
        for file, text in (("renewed.key", key), ("renewed.pem", root.leaf("", name, key=key)[0])):
            new = Path(lab.certificates.path(f"{file}.new"))
            new.write_bytes(text)
            new.replace(lab.certificates.path(file))

    write("first.test")
    files = ", serverCertificate: '@files/renewed.pem', privateKey: '@files/renewed.key'"
    lab.configure(gateway("edge", server("https", "['*']", more=files)), SHOP)
    with Traffic(lab) as traffic:
        for number in range(ROTATIONS):
            traffic.wait_more(3)
            write(f"{number}.test")
            lab.wait(lambda number=number: traffic.failed or names(shown(lab)) == [f"{number}.test"], 60)
        traffic.wait_more(3)
    assert traffic.failed == []


def test_a_secret_that_does_not_fit_leaves_the_last_one_in_force(lab: Lab) -> None:
    root = lab.certificates.authorities["root"]
    good, key = root.leaf("", "good.test")
    lab.configure(gateway("edge", server("https", "['*']")), SHOP, secret("edge", tls_crt=good, tls_key=key))
    lab.wait(lambda: names(shown(lab)) == ["good.test"])
    other, _ = root.leaf("", "other.test")
    with Traffic(lab) as traffic:
        traffic.wait_more(1)
        with pytest.raises(Refused, match="KEY_VALUES_MISMATCH"):
            lab.add(secret("edge", tls_crt=other, tls_key=key))
        traffic.wait_more(3)
    assert traffic.failed == []
    assert names(shown(lab)) == ["good.test"]


def test_a_pair_of_rsa_and_ecdsa(lab: Lab) -> None:
    """Each client gets the certificate that it can check."""
    root = lab.certificates.authorities["root"]
    pairs = {"old": root.leaf("", "a.test", key=rsa_key()), "new": root.leaf("", "a.test")}
    secrets = [secret(name, tls_crt=chain, tls_key=key) for name, (chain, key) in pairs.items()]
    for name, (chain, key) in pairs.items():
        Path(lab.certificates.path(f"{name}.pem")).write_bytes(chain)
        Path(lab.certificates.path(f"{name}.key")).write_bytes(key)
    listed = ", ".join(f"{{serverCertificate: '@files/{each}.pem', privateKey: '@files/{each}.key'}}" for each in pairs)
    for more in (", credentialNames: [old, new]", f", tlsCertificates: [{listed}]"):
        lab.configure(gateway("edge", server("https", "['*']", more=more)), SHOP, *secrets)
        for ciphers, kind in (
            ("ECDHE-RSA-AES128-GCM-SHA256", rsa.RSAPublicKey),
            ("ECDHE-ECDSA-AES128-GCM-SHA256", ec.EllipticCurvePublicKey),
        ):
            context = lab.certificates.client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            certificate = shown(lab, context)
            assert certificate is not None
            assert isinstance(certificate.public_key(), kind)


def test_what_a_responder_says_is_stapled(lab: Lab) -> None:
    root = lab.certificates.authorities["root"]
    chain, key = root.leaf("", "a.test")
    stapled = secret("edge", tls_crt=chain, tls_key=key, **{"tls_ocsp__staple": root.staple(chain)})
    lab.configure(gateway("edge", server("https", "['*']")), SHOP, stapled)
    command = [*lab.sidecar.inside(), "openssl", "s_client", "-connect", f"{GATEWAY}:8443", "-servername", "a.test"]
    done = subprocess.run([*command, "-status"], input="", capture_output=True, text=True, check=False)
    assert "OCSP Response Status: successful" in done.stdout, done
    assert "Cert Status: good" in done.stdout, done


@pytest.mark.parametrize("where", ["Secret", "ConfigMap", "Secret of its own"])
def test_roots_of_clients_and_what_they_revoked(lab: Lab, where: str) -> None:
    """From the server's Secret, from `NAME-cacert`, or from a ConfigMap that caCertCredentialName names."""
    root = lab.certificates.authorities["root"]
    chain, key = root.leaf("", "a.test")
    revoked = lab.certificates.read("revoked-client.pem")
    for crl, answer in (("", ["a.test"]), (revoked, [])):
        lists: dict[str, bytes] = {"ca_crl": crl.encode()} if crl else {}
        more = CREDENTIALS[where]
        if where == "Secret":
            texts = [secret("mine", tls_crt=chain, tls_key=key, ca_crt=root.pem, **lists)]
        elif where == "ConfigMap":
            metadata = {"name": "roots", "namespace": "istio-system"}
            data = {"ca.crt": root.pem.decode(), **({"ca.crl": crl} if crl else {})}
            public = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
            texts = [secret("mine", tls_crt=chain, tls_key=key), public + "---\n"]
        else:
            texts = [secret("mine", tls_crt=chain, tls_key=key), secret("mine-cacert", ca_crt=root.pem, **lists)]
        lab.configure(gateway("edge", server("https", "['*']", mode="MUTUAL", more=more)), SHOP, *texts)
        assert names(shown(lab, lab.certificates.client_context("client"))) == answer
        assert names(shown(lab, lab.certificates.client_context("server"))) == ["a.test"]
        assert shown(lab, lab.certificates.client_context("stranger")) is None
        assert shown(lab) is None


CREDENTIALS = {
    "Secret": ", credentialName: mine",
    "ConfigMap": ", credentialName: mine, caCertCredentialName: roots",
    "Secret of its own": ", credentialName: mine",
}


def test_the_mesh_certificate_with_names_versions_and_hashes(lab: Lab) -> None:
    """ISTIO_MUTUAL is held to the same fields as MUTUAL."""
    client, spiffe = lab.certificates.client_context("client"), "spiffe://cluster.local/ns/default/sa/client"
    leaf = x509.load_pem_x509_certificate(lab.certificates.read("client.pem").encode())
    good = leaf.fingerprint(hashes.SHA256()).hex()
    for more, passes in (
        ("", True),
        (f", subjectAltNames: ['{spiffe}']", True),
        (", subjectAltNames: ['spiffe://cluster.local/ns/default/sa/other']", False),
        (f", verifyCertificateHash: ['{good}']", True),
        (f", verifyCertificateHash: ['{'00' * 32}']", False),
        (", minProtocolVersion: TLSV1_3", True),
    ):
        lab.configure(gateway("edge", server("https", "['*']", mode="ISTIO_MUTUAL", more=more)), SHOP)
        assert (shown(lab, client) is not None) is passes, more
    old = lab.certificates.client_context("client")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shown(lab, old) is None
