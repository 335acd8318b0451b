"""Who is at the other end of a stream.

`Authenticated` is the rule: a client certificate that the TLS layer verified, or a service account token, says
which namespace and account it is; the node id only chooses which Pod (or WorkloadEntry) of that account it claims
to be, and the claim is checked against the Pod. Metadata adds capabilities, nothing else.

`Believing` is for tools on loopback (`lateen serve`): no authentication, and node metadata is taken as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import grpc
from envoy.config.core.v3.base_pb2 import Node
from google.protobuf.struct_pb2 import Struct

from lateen.intent.scope import Capabilities, HostSocket, MeshGateway, Proxy, ProxyKind
from lateen.lib.names import is_address


class Refused(Exception):
    """The stream is not served; `code` and the message go to the client."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Context(Protocol):
    """The part of a gRPC servicer context read here."""

    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...
    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...


class Peer(Protocol):
    """An authenticated identity; `pod` is empty where the credential does not name one."""

    @property
    def namespace(self) -> str: ...
    @property
    def service_account(self) -> str: ...
    @property
    def pod(self) -> str: ...


class Identify(Protocol):
    """Says which proxy a stream speaks for, or raises Refused."""

    def __call__(self, context: Context, node: Node) -> Proxy: ...


def parse_node(node: Node) -> Proxy:
    """The proxy a node says it is: `sidecar~IP~NAME.NAMESPACE~DOMAIN`. Refused when the id has another form."""
    parts = node.id.split("~")
    kinds = {each.value for each in ProxyKind}
    if len(parts) != 4 or parts[0] not in kinds:
        raise Refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"node id {node.id!r} is not KIND~IP~NAME.NAMESPACE~DOMAIN with KIND one of {', '.join(sorted(kinds))}",
        )
    name, dot, namespace = parts[2].rpartition(".")
    if not dot:
        name, namespace = parts[2], ""
    metadata = node.metadata
    namespace = _text(metadata, "NAMESPACE") or namespace
    if not namespace:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"node id {node.id!r} and its metadata name no namespace")
    addresses = tuple(each for each in _text(metadata, "INSTANCE_IPS").split(",") if each)
    return Proxy(
        kind=ProxyKind(parts[0]),
        namespace=namespace,
        name=name,
        service_account=_text(metadata, "SERVICE_ACCOUNT"),
        addresses=addresses or ((parts[1],) if parts[1] else ()),
        labels=_labels(metadata),
        capabilities=Capabilities(
            host_sockets=_host_sockets(_text(metadata, "LATEEN_HOST_SOCKETS")),
            mesh_gateway=_mesh_gateway(_text(metadata, "LATEEN_MESH_GATEWAY")),
            on_demand=_text(metadata, "LATEEN_ON_DEMAND") == "true",
            counts=_text(metadata, "LATEEN_COUNTS") == "true",
        ),
        metadata=tuple(
            sorted((key, each.string_value) for key, each in metadata.fields.items() if each.HasField("string_value"))
        ),
    )


def _text(metadata: Struct, key: str) -> str:
    return metadata.fields[key].string_value if key in metadata.fields else ""


def _labels(metadata: Struct) -> tuple[tuple[str, str], ...]:
    if "LABELS" not in metadata.fields:
        return ()
    fields = metadata.fields["LABELS"].struct_value.fields
    return tuple(sorted((key, value.string_value) for key, value in fields.items()))


def _host_sockets(text: str) -> tuple[HostSocket, ...]:
    sockets: list[HostSocket] = []
    for each in filter(None, text.split(",")):
        port, _, path = each.partition("=")
        if not port.isdigit() or not path.startswith("/"):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"LATEEN_HOST_SOCKETS: {each!r} is not PORT=/PATH")
        sockets.append(HostSocket(int(port), path))
    return tuple(sorted(sockets))


def _mesh_gateway(text: str) -> MeshGateway | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not is_address(host) or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"LATEEN_MESH_GATEWAY: {text!r} is not ADDRESS:PORT")
    return MeshGateway(host, int(port))


class Believing:
    """No authentication: the node's word counts."""

    def __call__(self, context: Context, node: Node) -> Proxy:
        return parse_node(node)


class Authenticated:
    """A certificate or a token decides; the Pod it claims must run under that account.

    `peer_of` reads the verified client certificate of a call, `peer_of_token` a bearer token (None: not valid),
    `account_of(namespace, name)` the service account of a Pod or WorkloadEntry (None: there is none).
    """

    def __init__(
        self,
        peer_of: Callable[[Context], Peer | None],
        peer_of_token: Callable[[str], Peer | None],
        account_of: Callable[[str, str], str | None],
    ) -> None:
        self._peer_of = peer_of
        self._peer_of_token = peer_of_token
        self._account_of = account_of

    def __call__(self, context: Context, node: Node) -> Proxy:
        peer = self._peer_of(context) or self._by_token(context)
        if peer is None:
            raise Refused(
                grpc.StatusCode.UNAUTHENTICATED,
                "no workload certificate and no valid service account token: connect with mTLS, or send "
                "`authorization: Bearer TOKEN`",
            )
        claimed = parse_node(node)
        who = f"{peer.namespace}/{peer.service_account}"
        target = f"{claimed.namespace}/{claimed.name}"
        if claimed.namespace != peer.namespace or (peer.pod and peer.pod != claimed.name):
            held = f"{peer.namespace}/{peer.pod}" if peer.pod else f"a Pod of namespace {peer.namespace}"
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED, f"the credential of {who} is for {held}, the node id says {target}"
            )
        account = self._account_of(claimed.namespace, claimed.name)
        if account is None:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"there is no Pod or WorkloadEntry {target}")
        if account != peer.service_account:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{target} runs as service account {account}, the credential is of {peer.service_account}",
            )
        return Proxy(
            kind=claimed.kind,
            namespace=claimed.namespace,
            name=claimed.name,
            service_account=account,
            capabilities=claimed.capabilities,
            metadata=claimed.metadata,
        )

    def _by_token(self, context: Context) -> Peer | None:
        for key, value in context.invocation_metadata() or ():
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            scheme, _, token = text.partition(" ")
            if key == "authorization" and scheme.lower() == "bearer":
                return self._peer_of_token(token.strip())
        return None
