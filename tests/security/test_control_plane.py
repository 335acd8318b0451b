"""Attacks on the control plane's ports: other identities, foreign tokens, rubbish, and too much.

One control plane takes all of them; after each it still serves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from lateen.lib.keypair import new_request
from lateen.lib.signing import SERVICE, TRUST_SERVICE, SigningError
from lateen.lib.spiffe import SpiffeId
from lateen.security.ca_files import open_ca
from lateen.security.client import unix_target
from lateen.security.peer import PeerIdentity, parse_peer
from lateen.security.protos.ca_pb2 import IstioCertificateRequest
from lateen.security.tokens import TokenIssuer
from tests.security.plane import ADS, CLUSTER, KEY, SECRET, Attacked, attacked

GATEWAY = "router~10.0.0.1~gateway-1.shop~shop.svc.cluster.local"
VAULT = "sidecar~10.0.0.2~vault-1.bank~bank.svc.cluster.local"
REFUSED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "UNIMPLEMENTED", "UNKNOWN", "UNAUTHENTICATED")
METHODS = (
    ADS,
    ADS.replace("Delta", "Stream"),
    f"/{SERVICE}/CreateCertificate",
    f"/{TRUST_SERVICE}/Follow",
    "/lateen.machines.v1.Machines/Join",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Attacked]:
    async with attacked() as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refused(plane: Attacked, node: str, type_url: str = CLUSTER, *names: str, **metadata: str) -> str:
    """The code that the vault's proxy gets."""
    async with plane.channel(*await plane.identity("bank")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.ask(channel, node, type_url, *names, **metadata)
        return error.value.code().name


async def test_a_proxy_is_served_as_nobody_else(plane: Attacked) -> None:
    for node in (
        GATEWAY,
        VAULT.replace("vault-1.bank", "gateway-1.shop"),
        VAULT.replace("vault-1", "other-1"),
        "rubbish",
        "",
    ):
        assert await refused(plane, node) in ("PERMISSION_DENIED", "INVALID_ARGUMENT"), node
    assert await refused(plane, VAULT, NAMESPACE="shop") == "PERMISSION_DENIED"
    async with plane.channel(*await plane.identity("bank")) as channel:
        assert (await plane.ask(channel, VAULT, CLUSTER)).type_url == CLUSTER


async def test_a_gateways_key_goes_to_no_other_namespace(plane: Attacked) -> None:
    name = "kubernetes://edge"
    async with plane.channel(*await plane.identity("shop")) as channel:
        answer = await plane.ask(channel, GATEWAY, SECRET, name)
        assert KEY.encode() in answer.SerializeToString()
    as_router = VAULT.replace("sidecar", "router")
    for node in (VAULT, as_router):
        for asked in (
            name,
            "kubernetes://shop/edge",
            "kubernetes-gateway://shop/edge",
            "kubernetes://../shop/edge",
            "kubernetes://edge.shop",
            "*",
        ):
            async with plane.channel(*await plane.identity("bank")) as channel:
                try:
                    answer = await asyncio.wait_for(plane.ask(channel, node, SECRET, asked), 1)
                except TimeoutError:
                    continue  # there is nothing to say
                assert b"secret of the shop" not in answer.SerializeToString(), (node, asked)
                assert all(not each.resource.value for each in answer.resources), (node, asked)


async def test_without_a_certificate_of_the_mesh_there_is_no_connection(plane: Attacked, tmp_path: Path) -> None:
    foreign = open_ca(tmp_path / "foreign")
    key, csr = new_request()
    vault = PeerIdentity(spiffe=SpiffeId("cluster.local", "bank", "vault"), pod="vault-1", uid=plane.uids["bank"])
    forged = "".join(foreign.issue(csr, vault)[:-1])
    for pair in (("", ""), (key, forged)):
        async with plane.channel(*pair) as channel:
            with pytest.raises((grpc.aio.AioRpcError, TimeoutError)) as error:
                await asyncio.wait_for(plane.ask(channel, VAULT, CLUSTER), 3)
            if isinstance(error.value, grpc.aio.AioRpcError):
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(plane.xds) as channel:
        with pytest.raises((grpc.aio.AioRpcError, TimeoutError)):
            await asyncio.wait_for(plane.ask(channel, VAULT, CLUSTER), 3)


async def test_another_trust_domain_of_the_same_root_is_not_served(plane: Attacked) -> None:
    key, csr = new_request()
    stranger = PeerIdentity(spiffe=SpiffeId("other.mesh", "bank", "vault"), pod="vault-1", uid=plane.uids["bank"])
    chain = "".join(open_ca(plane.layout.ca).issue(csr, stranger)[:-1])
    async with plane.channel(key, chain) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.ask(channel, VAULT, CLUSTER)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_that_are_not_the_callers_own_buy_nothing(plane: Attacked, tmp_path: Path) -> None:
    before = len(plane.log.read_text())
    good = await plane.token("bank")
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    stolen = {"namespace": "shop", "serviceaccount": {"name": "gateway"}, "pod": claims["kubernetes.io"]["pod"]}
    changed = json.dumps(claims | {"sub": "system:serviceaccount:shop:gateway", "kubernetes.io": stolen})
    forged = base64.urlsafe_b64encode(changed.encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    name = {"namespace": "bank", "service_account": "vault", "pod": "vault-1"}
    bank: dict[str, Any] = {**name, "uid": plane.uids["bank"]}
    changed_uid: dict[str, Any] = {"uid": "another"}
    changed_account: dict[str, Any] = {"service_account": "admin"}
    other_key = TokenIssuer(tmp_path / "tokens.json").issue(**bank)
    own_key = plane.layout.state / "tokens.json"
    expired = TokenIssuer(own_key, lambda: 1_000_000_000.0).issue(**bank)
    gone = TokenIssuer(own_key).issue(**(bank | changed_uid))
    moved = TokenIssuer(own_key).issue(**(bank | changed_account))
    tokens = {
        "UNAUTHENTICATED": (
            f"{head}.{forged}.{signature}",
            f"{none}.{body}.",
            f"{head}.{body}.{signature[:-4]}AAAA",
            other_key,
            expired,
            await plane.token("bank", audiences=["elsewhere"]),
            "x",
            "",
        ),
        "PERMISSION_DENIED": (gone, moved),
    }
    for code, each in tokens.items():
        for token in each:
            with pytest.raises(SigningError, match=f"^{code}: .{{10,}}"):
                await plane.signer.sign(new_request()[1], token=token)
    said = plane.log.read_text()[before:]
    assert "certificate refused" in said
    for token in (good, other_key, expired, gone):
        assert token.split(".")[2] not in said, "a log line holds a token"
    # A token that is sent again buys the same identity again, and never another one.
    chain = await plane.signer.sign(new_request()[1], token=good)
    assert str(parse_peer(chain[0]).spiffe) == "spiffe://cluster.local/ns/bank/sa/vault"


async def test_what_a_request_says_of_identity_is_not_read(plane: Attacked) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/lateen-control-plane"),
        x509.DNSName("istiod.istio-system.svc"),
    ]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    chain = await plane.signer.sign(csr, token=await plane.token("bank"))
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in found] == ["spiffe://cluster.local/ns/bank/sa/vault"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "admin" not in leaf.subject.rfc4514_string()
    call = IstioCertificateRequest(csr=csr)
    call.metadata["ImpersonatedIdentity"] = "spiffe://cluster.local/ns/shop/sa/gateway"
    async with plane.channel(*await plane.identity("bank")) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="not allowed"):
            await channel.unary_unary(f"/{SERVICE}/CreateCertificate")(call.SerializeToString())


async def test_a_workload_that_asks_too_often_is_told_so(plane: Attacked) -> None:
    token = await plane.token("shop")
    codes: list[str] = []
    for _ in range(40):
        try:
            await plane.signer.sign(new_request()[1], token=token)
        except SigningError as error:
            codes.append(str(error).partition(":")[0])
    assert set(codes) == {"RESOURCE_EXHAUSTED"}
    assert all(await plane.identity("bank")), "others are not held up"


async def test_one_proxy_has_a_few_streams(plane: Attacked) -> None:
    async with plane.channel(*await plane.identity("bank")) as channel:
        calls = [stream(channel, ADS) for _ in range(12)]
        for call in calls:
            await call.write(first_request(VAULT))
        codes = [await code_of(call) for call in calls]
        assert Counter(codes) == {"": 8, "RESOURCE_EXHAUSTED": 4}
        for call in calls:
            call.cancel()


def first_request(node: str) -> bytes:
    """What a proxy says first."""
    request = DeltaDiscoveryRequest(type_url=CLUSTER)
    request.node.id = node
    return request.SerializeToString()


def stream(channel: grpc.aio.Channel, method: str) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """A call that takes and gives bytes as they are."""
    return cast("grpc.aio.StreamStreamCall[bytes, bytes]", channel.stream_stream(method)())


async def code_of(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> str:
    """How a call ended; empty when it was answered."""
    try:
        if await asyncio.wait_for(call.read(), 60) is not grpc.aio.EOF:
            return ""
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return (await call.code()).name


async def test_rubbish_and_too_much_on_every_method_change_nothing(plane: Attacked) -> None:
    rubbish = (b"\xff" * 64, os.urandom(4_096), b"\x0a\xff\xff\xff\xff\x7f", b"x" * (20 << 20))
    before = plane.memory_kb()
    own = (plane.layout.ca / "root-cert.pem").read_bytes()
    first = grpc.aio.secure_channel(
        unix_target(plane.layout.run / "ca.sock"),
        grpc.ssl_channel_credentials(own),
        options=(("grpc.ssl_target_name_override", "localhost"),),
    )
    async with plane.channel(*await plane.identity("bank")) as mutual, first:
        for channel in (mutual, first):
            for method in METHODS:
                for message in rubbish:
                    call = stream(channel, method)
                    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                        await call.write(message)
                    code = await code_of(call) or await code_of(call)  # who follows the trust is told it first
                    assert code in REFUSED, (method, message[:8], code)
    assert await plane.client.ready()
    assert all(await plane.identity("bank"))
    assert plane.memory_kb() < before + 100_000
    assert "Traceback" not in plane.log.read_text()


async def test_a_stream_that_says_nothing_is_ended(plane: Attacked) -> None:
    async with plane.channel(*await plane.identity("bank")) as channel:
        assert await code_of(stream(channel, ADS)) == "DEADLINE_EXCEEDED"


@pytest.mark.long
async def test_a_stream_ends_before_its_certificate() -> None:
    """And one with the next certificate takes its place."""
    async with attacked(certificate_validity_s=60) as short:
        key, chain = await short.identity("bank")
        ends = x509.load_pem_x509_certificate(chain.encode()).not_valid_after_utc
        async with short.channel(key, chain) as channel:
            call = stream(channel, ADS)
            await call.write(first_request(VAULT))
            assert await code_of(call) == ""
            assert await code_of(call) == "UNAVAILABLE"
            assert dt.datetime.now(dt.UTC) < ends
        fresh, csr = new_request()
        renewed = "".join((await short.signer.renew(csr, key=key, chain=chain))[:-1])
        async with short.channel(fresh, renewed) as channel:
            assert (await short.ask(channel, VAULT, CLUSTER)).type_url == CLUSTER
