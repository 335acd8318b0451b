"""Who gets a stream: what the credential says and what the node id claims have to agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import pytest
from envoy.config.core.v3.base_pb2 import Node

from lateen.intent.scope import HostSocket, ProxyKind
from lateen.xds.auth import Authenticated, Believing, Context, Peer, Refused, parse_node


@dataclass
class Call:
    """A call's credentials."""

    certificate: bytes = b""
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list[tuple[str, str | bytes]])

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {"x509_pem_cert": [self.certificate]} if self.certificate else {}

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self.metadata


@dataclass(frozen=True)
class Identity:
    namespace: str
    service_account: str
    pod: str = ""


def node(node_id: str, **metadata: str | dict[str, str]) -> Node:
    made = Node(id=node_id)
    for key, value in metadata.items():
        made.metadata[key] = value
    return made


def by_certificate(context: Context) -> Peer | None:
    pems = context.auth_context().get("x509_pem_cert")
    return Identity(*pems[0].decode().split("/")) if pems else None


def by_token(token: str) -> Peer | None:
    return Identity("shop", "cart") if token == "good" else None


ACCOUNTS = {("shop", "cart-1"): "cart", ("shop", "admin-1"): "admin", ("bank", "vault-1"): "vault"}
RULE = Authenticated(by_certificate, by_token, lambda namespace, name: ACCOUNTS.get((namespace, name)))


@pytest.mark.parametrize(
    "call", [Call(b"shop/cart"), Call(b"shop/cart/cart-1"), Call(metadata=[("authorization", "Bearer good")])]
)
def test_a_pod_of_the_credentials_account(call: Call) -> None:
    proxy = RULE(
        call,
        node(
            "sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local",
            LABELS={"app": "liar"},
            INSTANCE_IPS="10.0.0.9",
            SERVICE_ACCOUNT="admin",
            LATEEN_HOST_SOCKETS="8443=/b,8080=/a",
        ),
    )
    assert (proxy.kind, proxy.namespace, proxy.name, proxy.service_account) == (
        ProxyKind.SIDECAR,
        "shop",
        "cart-1",
        "cart",
    )
    assert (proxy.labels, proxy.addresses) == ((), ()), "only the Pod says what it is"
    assert ("INSTANCE_IPS", "10.0.0.9") in proxy.metadata, "a claim, for the matches of EnvoyFilters"
    assert proxy.capabilities.host_sockets == (HostSocket(8080, "/a"), HostSocket(8443, "/b"))


CART = "sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("call", "node_id", "code", "words"),
    [
        (Call(), CART, "UNAUTHENTICATED", "no workload certificate"),
        (Call(metadata=[("authorization", "Bearer bad")]), CART, "UNAUTHENTICATED", "token"),
        (Call(metadata=[("authorization", "Basic good")]), CART, "UNAUTHENTICATED", "token"),
        (Call(b"bank/vault"), CART, "PERMISSION_DENIED", "bank/vault"),
        (Call(b"shop/cart/cart-2"), CART, "PERMISSION_DENIED", "shop/cart-2"),
        (Call(b"shop/cart"), "sidecar~10.0.0.1~admin-1.shop~x", "PERMISSION_DENIED", "service account admin"),
        (Call(b"shop/cart"), "sidecar~10.0.0.1~ghost.shop~x", "PERMISSION_DENIED", "no Pod"),
        (Call(b"shop/cart"), "cart-1", "INVALID_ARGUMENT", "KIND~IP"),
        (Call(b"shop/cart"), "boat~10.0.0.1~cart-1.shop~x", "INVALID_ARGUMENT", "router, sidecar"),
    ],
)
def test_everybody_else_is_refused_in_words(call: Call, node_id: str, code: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        RULE(call, node(node_id))
    assert refused.value.code is grpc.StatusCode[code]


def test_metadata_cannot_move_an_authenticated_proxy() -> None:
    with pytest.raises(Refused):
        RULE(Call(b"shop/cart"), node(CART, NAMESPACE="bank"))


def test_a_tool_is_believed() -> None:
    proxy = Believing()(
        Call(),
        node("router~10.0.0.1~gw~x", NAMESPACE="edge", LABELS={"istio": "ingressgateway"}, INSTANCE_IPS="10.0.0.1,::1"),
    )
    assert (proxy.kind, proxy.namespace, proxy.name) == (ProxyKind.ROUTER, "edge", "gw")
    assert proxy.labels == (("istio", "ingressgateway"),)
    assert proxy.addresses == ("10.0.0.1", "::1")


def test_the_id_names_the_namespace_where_metadata_does_not() -> None:
    assert parse_node(node("sidecar~10.0.0.1~a.b.shop~x")).namespace == "shop"
    with pytest.raises(Refused, match="no namespace"):
        parse_node(node("sidecar~10.0.0.1~a~x"))


@pytest.mark.parametrize("text", ["8080", "x=/a", "80=a", "=/a"])
def test_a_broken_capability_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="PORT=/PATH"):
        parse_node(node(CART, LATEEN_HOST_SOCKETS=text))
