"""The certificate service over gRPC with TLS, with its real client: who gets a certificate, and who does not."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from lateen.lib.keypair import new_request
from lateen.lib.signing import SERVER_NAMES, SERVICE, SigningError
from lateen.lib.spiffe import CONTROL_PLANE_ACCOUNT, CONTROL_PLANE_NAMESPACE, SpiffeId
from lateen.security.ca import CertificateAuthority
from lateen.security.ca_files import open_ca
from lateen.security.client import CertificateClient, ControlPlane, unix_target
from lateen.security.csr import Caller, CertificateService
from lateen.security.peer import PeerIdentity, parse_peer, utc_now
from lateen.security.protos.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from lateen.security.serving import SERVER_OPTIONS, ServingCertificate
from lateen.security.tokens import TokenIssuer
from tests.envoy.harness import short_directory

REVIEWS = PeerIdentity(
    spiffe=SpiffeId("cluster.local", "default", "reviews"), pod="reviews-1", uid="u1", workload="reviews", revision="v1"
)


class Plane:
    """A control plane that signs, in a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca: CertificateAuthority = open_ca(directory / "ca")
        self.tokens = TokenIssuer(directory / "tokens.json")
        self.pods = {"u1": REVIEWS}
        self.time = dt.timedelta(0)
        self.client = CertificateClient(
            ControlPlane(self.target("ca"), self.target("xds"), directory / "ca" / "root-cert.pem"), timeout_s=5
        )
        self._servers: list[grpc.aio.Server] = []

    def target(self, name: str) -> str:
        return unix_target(self.directory / f"{name}.sock")

    def now(self) -> dt.datetime:
        return utc_now() + self.time

    def lookup(self, caller: Caller) -> PeerIdentity | None:
        return self.pods.get(caller.uid)

    async def start(self) -> None:
        service = CertificateService(lambda: self.ca, self.tokens, self.lookup, lambda: "cluster.local", now=self.now)
        serving = ServingCertificate(lambda: self.ca, lambda: "cluster.local", now=self.now)
        for name, mutual in (("ca", False), ("xds", True)):
            server = grpc.aio.server(options=SERVER_OPTIONS)
            service.add_to(server)
            server.add_secure_port(self.target(name), serving.credentials(require_client_certificate=mutual))
            await server.start()
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(None)
        self._servers.clear()

    def token(self, **changed: Any) -> str:
        pod: dict[str, Any] = {"namespace": "default", "service_account": "reviews", "pod": "reviews-1", "uid": "u1"}
        return self.tokens.issue(**pod | changed)

    async def raw(self, request: IstioCertificateRequest, *metadata: tuple[str, str]) -> IstioCertificateResponse:
        """One call with any metadata, without a client certificate."""
        credentials = grpc.ssl_channel_credentials(self.ca.trust_pem.encode())
        options = (("grpc.ssl_target_name_override", SERVER_NAMES[0]),)
        async with grpc.aio.secure_channel(self.target("ca"), credentials, options=options) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/CreateCertificate",
                request_serializer=IstioCertificateRequest.SerializeToString,
                response_deserializer=IstioCertificateResponse.FromString,
            )
            return await call(request, metadata=metadata)


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    directory = short_directory()
    made = Plane(directory)
    await made.start()
    yield made
    await made.stop()
    shutil.rmtree(directory)


async def test_a_token_gets_the_pods_certificate(plane: Plane) -> None:
    key, csr = new_request()
    chain = await plane.client.sign(csr, token=plane.token())
    assert parse_peer(chain[0]) == REVIEWS
    assert chain[-1] == plane.ca.trust_pem
    assert key


async def test_a_certificate_gets_the_next_one(plane: Plane) -> None:
    key, csr = new_request()
    chain = await plane.client.sign(csr, token=plane.token())
    other_key, other_csr = new_request()
    renewed = await plane.client.renew(other_csr, key=key, chain="".join(chain[:-1]))
    assert parse_peer(renewed[0]) == REVIEWS
    assert renewed[0] != chain[0]
    assert other_key != key


async def test_the_next_one_says_what_the_pod_is_now(plane: Plane) -> None:
    key, csr = new_request()
    chain = await plane.client.sign(csr, token=plane.token())
    plane.pods["u1"] = PeerIdentity(spiffe=REVIEWS.spiffe, pod="reviews-1", uid="u1", workload="reviews", revision="v2")
    renewed = await plane.client.renew(new_request()[1], key=key, chain="".join(chain[:-1]))
    assert parse_peer(renewed[0]).revision == "v2"


async def test_the_asked_validity_counts(plane: Plane) -> None:
    chain = await plane.client.sign(new_request()[1], token=plane.token(), validity_s=600)
    left = x509.load_pem_x509_certificate(chain[0].encode()).not_valid_after_utc - utc_now()
    assert dt.timedelta(seconds=500) < left <= dt.timedelta(seconds=600)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"uid": "u2"}, "PERMISSION_DENIED: there is no Pod default/reviews-1 with uid u2"),
        ({"service_account": "admin"}, "PERMISSION_DENIED: spiffe://cluster.local/ns/default/sa/admin asked for a Pod"),
        ({"namespace": "prod"}, "PERMISSION_DENIED: spiffe://cluster.local/ns/prod/sa/reviews asked for a Pod"),
        ({"audiences": ("vault",)}, "UNAUTHENTICATED: .*aud"),
        ({"lifetime_s": -60}, "UNAUTHENTICATED: .*expired"),
    ],
)
async def test_tokens_that_get_nothing(plane: Plane, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SigningError, match=message):
        await plane.client.sign(new_request()[1], token=plane.token(**changed))


async def test_a_pod_that_is_gone_gets_nothing(plane: Plane) -> None:
    key, csr = new_request()
    chain = await plane.client.sign(csr, token=plane.token())
    del plane.pods["u1"]
    with pytest.raises(SigningError, match="PERMISSION_DENIED: there is no Pod"):
        await plane.client.sign(csr, token=plane.token())
    with pytest.raises(SigningError, match="PERMISSION_DENIED: there is no Pod"):
        await plane.client.renew(csr, key=key, chain="".join(chain[:-1]))


async def test_nobody_is_the_control_plane(plane: Plane) -> None:
    spiffe = SpiffeId("cluster.local", CONTROL_PLANE_NAMESPACE, CONTROL_PLANE_ACCOUNT)
    plane.pods["u1"] = PeerIdentity(spiffe=spiffe, pod="x", uid="u1")
    token = plane.token(namespace=CONTROL_PLANE_NAMESPACE, service_account=CONTROL_PLANE_ACCOUNT)
    with pytest.raises(SigningError, match=r"PERMISSION_DENIED: .* belongs to the control plane"):
        await plane.client.sign(new_request()[1], token=token)


async def test_a_request_that_is_none(plane: Plane) -> None:
    with pytest.raises(SigningError, match="INVALID_ARGUMENT: not a certificate request"):
        await plane.client.sign("nonsense", token=plane.token())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((), "show a service account token or a client certificate"),
        ((("authorization", "Basic eDp5"),), "only Bearer tokens"),
        ((("authorization", "Bearer"),), "the token is not accepted"),
    ],
)
async def test_callers_that_prove_nothing(plane: Plane, metadata: tuple[tuple[str, str], ...], message: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
        await plane.raw(IstioCertificateRequest(csr=new_request()[1]), *metadata)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_asking_for_somebody_else_is_refused_and_empty_metadata_is_not(plane: Plane) -> None:
    bearer = ("authorization", f"Bearer {plane.token()}")
    request = IstioCertificateRequest(csr=new_request()[1])
    request.metadata["CertSigner"] = ""
    assert len((await plane.raw(request, bearer)).cert_chain) == 2
    request.metadata["ImpersonatedIdentity"] = "spiffe://cluster.local/ns/default/sa/admin"
    with pytest.raises(grpc.aio.AioRpcError, match="ImpersonatedIdentity is not allowed") as error:
        await plane.raw(request, bearer)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_that_ended_does_not_renew_itself(plane: Plane) -> None:
    key, csr = new_request()
    chain = await plane.client.sign(csr, token=plane.token(), validity_s=60)
    plane.time = dt.timedelta(minutes=2)
    with pytest.raises(SigningError, match="UNAUTHENTICATED: the client certificate has ended"):
        await plane.client.renew(csr, key=key, chain="".join(chain[:-1]))


async def test_another_meshs_certificate_does_not_get_in(plane: Plane, tmp_path: Path) -> None:
    key, csr = new_request()
    foreign = open_ca(tmp_path / "foreign").issue(csr, REVIEWS)
    with pytest.raises(SigningError, match="UNAVAILABLE"):
        await plane.client.renew(csr, key=key, chain="".join(foreign[:-1]))
    elsewhere = PeerIdentity(spiffe=SpiffeId("other.mesh", "default", "reviews"), uid="u1")
    same_root = plane.ca.issue(csr, elsewhere)
    with pytest.raises(SigningError, match=r"UNAUTHENTICATED: trust domain other.mesh"):
        await plane.client.renew(csr, key=key, chain="".join(same_root[:-1]))


async def test_a_server_that_is_not_the_control_plane_is_not_asked(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "trust.pem").write_text(open_ca(tmp_path / "foreign").trust_pem)
    client = CertificateClient(ControlPlane(plane.target("ca"), plane.target("xds"), tmp_path / "trust.pem"))
    with pytest.raises(SigningError, match="UNAVAILABLE"):
        await client.sign(new_request()[1], token=plane.token())


async def test_an_absent_control_plane_is_an_error_soon(plane: Plane) -> None:
    await plane.stop()
    async with asyncio.timeout(20):
        with pytest.raises(SigningError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
            await plane.client.sign(new_request()[1], token=plane.token())
    shutil.rmtree(plane.directory / "ca")
    with pytest.raises(SigningError, match="cannot read the roots of the control plane"):
        await plane.client.sign(new_request()[1], token=plane.token())


async def test_the_servers_certificate_is_renewed_and_open_connections_stay(plane: Plane) -> None:
    credentials = grpc.ssl_channel_credentials(plane.ca.trust_pem.encode())
    options = (("grpc.ssl_target_name_override", SERVER_NAMES[0]), ("grpc.use_local_subchannel_pool", 1))
    serving = ServingCertificate(lambda: plane.ca, lambda: "cluster.local", now=plane.now)
    first = serving.current()
    assert serving.current() == first
    plane.time = dt.timedelta(hours=11, minutes=58)
    assert serving.current() == first
    async with grpc.aio.secure_channel(plane.target("ca"), credentials, options=options) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/CreateCertificate",
            request_serializer=IstioCertificateRequest.SerializeToString,
            response_deserializer=IstioCertificateResponse.FromString,
        )
        request = IstioCertificateRequest(csr=new_request()[1])
        bearer = (("authorization", f"Bearer {plane.token()}"),)
        await call(request, metadata=bearer)
        before = await _serial(plane)
        plane.time = dt.timedelta(hours=13)
        # the fake clock only ages the server's certificate: tokens have a clock of their own
        assert await _serial(plane) != before
        await call(request, metadata=bearer)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
    assert serving.current()[2] == first[2] + 1


async def _serial(plane: Plane) -> int:
    """The serial number that a new connection is shown."""
    context = ssl.create_default_context(cadata=plane.ca.trust_pem)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_unix_connection(
        str(plane.directory / "ca.sock"), ssl=context, server_hostname=SERVER_NAMES[0]
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number
