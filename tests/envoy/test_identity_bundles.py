"""Other meshes are trusted by the SPIFFE bundles that they serve over HTTPS, for their own names alone."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lateen.daemon.jwt_keys import key_fetcher
from lateen.lib.bundles import to_spiffe
from lateen.lib.layout import Layout
from lateen.lib.spiffe import SpiffeId
from lateen.security import jwks
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity
from tests.envoy.identities import Json, until
from tests.envoy.pair import Pair, mesh_of_two
from tests.envoy.plug_in import authority
from tests.envoy.test_identity_roots import leaf

THEIRS = PeerIdentity(spiffe=SpiffeId("partner.example", "default", "caller"))
OURS = PeerIdentity(spiffe=SpiffeId("cluster.local", "default", "caller"))
THIRD = PeerIdentity(spiffe=SpiffeId("third.example", "default", "caller"))


class Endpoint:
    """A bundle endpoint with a certificate of its own CA. `documents` by path; None: there is no answer."""

    def __init__(self, directory: Path) -> None:
        self.documents: dict[str, bytes | None] = {}
        self.asked = 0
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked += 1
                document = endpoint.documents.get(self.path)
                self.send_response(200 if document is not None else 503)
                self.end_headers()
                self.wfile.write(document or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.roots = directory / "web.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate(directory))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _certificate(self, directory: Path) -> Path:
        root, signer = authority("web root")
        self.roots.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bundles")]))
            .issuer_name(root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(signer, hashes.SHA256())
        )
        file = directory / "bundles.pem"
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, plain) + made.public_bytes(serialization.Encoding.PEM)
        )
        return file

    def url(self, path: str) -> str:
        """The address of a document."""
        return f"https://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        """Goes away."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint whose CA this machine trusts; the control plane looks again several times a second."""
    made = Endpoint(directory)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.roots))
    monkeypatch.setattr(jwks, "REFRESH_S", (0.2, 0.2))
    monkeypatch.setattr(jwks, "DEFAULT_REFRESH_S", 0.2)
    yield made
    made.close()


async def trust(pair: Pair, *entries: Json) -> None:
    """Puts `caCertificates` in force."""
    metadata = {"name": "istio", "namespace": "istio-system"}
    data = {"mesh": yaml.safe_dump({"caCertificates": list(entries)})}
    await pair.signing.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


async def taken(pair: Pair, certificate: tuple[bytes, bytes], *, wanted: bool = True) -> None:
    """Returns when the server takes a certificate, or does not any more."""

    async def there() -> bool:
        return await pair.accepts(*certificate) is wanted

    await until(there, 60)


async def test_several_meshes_are_trusted_by_their_bundles(layout: Layout, directory: Path, endpoint: Endpoint) -> None:
    partner, renewed, third = (open_ca(directory / name) for name in ("partner", "renewed", "third"))
    both = to_spiffe(partner.trust_pem + renewed.trust_pem)
    endpoint.documents = {"/partner": to_spiffe(partner.trust_pem), "/third": to_spiffe(third.trust_pem)}
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        fetcher = key_fetcher(pair.signing.pump)
        fetching = asyncio.create_task(fetcher.run())
        try:
            assert not await pair.accepts(*leaf(partner, THEIRS))
            await trust(
                pair,
                {"spiffeBundleUrl": endpoint.url("/partner"), "trustDomains": ["partner.example"]},
                {"spiffeBundleUrl": endpoint.url("/third"), "trustDomains": ["third.example"]},
            )
            await taken(pair, leaf(partner, THEIRS))
            await taken(pair, leaf(third, THIRD))
            for ca, identity in ((partner, OURS), (partner, THIRD), (third, THEIRS), (third, OURS)):
                assert not await pair.accepts(*leaf(ca, identity)), f"{identity.spiffe} by the CA of another domain"
            # The partner replaces its root: both are in the bundle, then the new one alone.
            assert not await pair.accepts(*leaf(renewed, THEIRS))
            endpoint.documents["/partner"] = both
            await taken(pair, leaf(renewed, THEIRS))
            assert await pair.accepts(*leaf(partner, THEIRS))
            endpoint.documents["/partner"] = to_spiffe(renewed.trust_pem)
            await taken(pair, leaf(partner, THEIRS), wanted=False)
            # What is no bundle, and an endpoint that is away, leave what was good.
            for broken in (b"<html>", b'{"keys": []}', None):
                endpoint.documents["/partner"] = broken
                asked = endpoint.asked
                async with asyncio.timeout(60):
                    while endpoint.asked < asked + 2:
                        await asyncio.sleep(0.05)
                assert await pair.accepts(*leaf(renewed, THEIRS))
            await trust(pair)
            await taken(pair, leaf(renewed, THEIRS), wanted=False)
            await traffic.more()
            assert traffic.failures == []
        finally:
            fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await fetching


async def test_an_endpoint_that_cannot_prove_itself_is_not_believed(
    layout: Layout, directory: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = open_ca(directory / "partner")
    endpoint.documents = {"/partner": to_spiffe(partner.trust_pem)}
    monkeypatch.delenv("SSL_CERT_FILE")
    async with mesh_of_two(layout) as pair, pair.running():
        fetcher = key_fetcher(pair.signing.pump)
        fetching = asyncio.create_task(fetcher.run())
        try:
            await trust(pair, {"spiffeBundleUrl": endpoint.url("/partner"), "trustDomains": ["partner.example"]})
            async with asyncio.timeout(60):
                while not fetcher.failed:
                    await asyncio.sleep(0.05)
            assert (endpoint.asked, fetcher.fetched) == (0, 0)
            assert not await pair.accepts(*leaf(partner, THEIRS))
        finally:
            fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await fetching
