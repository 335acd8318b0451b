"""The other end of the certificate service: what an agent asks certificates with.

First certificates go over the port without client certificates, with a token; renewals over the mutual TLS port
with the certificate that is still good, so that a token that ended during a long outage blocks nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import grpc
import grpc.aio
import msgspec

from lateen.lib.machines import ADDRESS_KEY
from lateen.lib.signing import SERVER_NAMES, SERVICE, TRUST_SERVICE, SigningError, Trust, TrustAnswer
from lateen.security.protos import trust_pb2
from lateen.security.protos.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse

TIMEOUT_S = 5.0
_KEEPALIVE = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))


class ControlPlane(msgspec.Struct, frozen=True):
    """Where certificates come from, as gRPC targets (`unix:/run/ca.sock`, `10.0.0.1:15012`), and the file with the
    roots that the control plane is trusted by."""

    token_target: str
    renewal_target: str
    roots: Path


def unix_target(path: Path | str) -> str:
    """The gRPC target and listening address of a Unix socket."""
    return "unix:" + quote(str(path))


class CertificateClient:
    """A `Signer` over gRPC; each call has its own short-lived connection, since they are hours apart.

    `address` is that of the machine that asks; Pods say none, the control plane knows theirs.
    """

    def __init__(self, control_plane: ControlPlane, timeout_s: float = TIMEOUT_S, *, address: str = "") -> None:
        self._control_plane = control_plane
        self._timeout_s = timeout_s
        self._address = address

    async def sign(self, csr: str, *, token: str, validity_s: int = 0) -> tuple[str, ...]:
        """Leaf, intermediates, root bundle (PEM) for the Pod of a token. SigningError when there are none."""
        return await self._ask(
            self._control_plane.token_target,
            self._credentials(None, None),
            csr,
            validity_s,
            (("authorization", f"Bearer {token}"),),
        )

    async def renew(self, csr: str, *, key: str, chain: str, validity_s: int = 0) -> tuple[str, ...]:
        """The same for the holder of a certificate that is still good. SigningError when there are none."""
        credentials = self._credentials(key.encode(), chain.encode())
        return await self._ask(self._control_plane.renewal_target, credentials, csr, validity_s, ())

    async def follow(
        self, answers: AsyncIterator[TrustAnswer], *, key: str = "", chain: str = ""
    ) -> AsyncIterator[Trust]:
        """What the mesh trusts, at every change: with a certificate from where renewals go, else from where tokens go.
        SigningError when the connection ends or there is none."""

        async def told() -> AsyncIterator[trust_pb2.TrustAnswer]:
            async for each in answers:
                yield _message(each)

        options = (("grpc.ssl_target_name_override", SERVER_NAMES[0]), *_KEEPALIVE)
        target = self._control_plane.renewal_target if key else self._control_plane.token_target
        credentials = self._credentials(key.encode() or None, chain.encode() or None)
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            call = channel.stream_stream(
                f"/{TRUST_SERVICE}/Follow",
                request_serializer=trust_pb2.TrustAnswer.SerializeToString,
                response_deserializer=trust_pb2.Trust.FromString,
            )
            try:
                async for each in call(told()):
                    yield Trust(each.version, each.roots, each.secret, each.signer)
            except grpc.aio.AioRpcError as error:
                raise SigningError(f"{error.code().name}: {error.details()}") from None
        raise SigningError("the control plane ended the stream")

    def _credentials(self, key: bytes | None, chain: bytes | None) -> grpc.ChannelCredentials:
        try:
            roots = self._control_plane.roots.read_bytes()
        except OSError as error:
            message = f"cannot read the roots of the control plane, {self._control_plane.roots}: {error.strerror}"
            raise SigningError(message) from error
        return grpc.ssl_channel_credentials(roots, key, chain)

    async def _ask(
        self,
        target: str,
        credentials: grpc.ChannelCredentials,
        csr: str,
        validity_s: int,
        metadata: tuple[tuple[str, str], ...],
    ) -> tuple[str, ...]:
        options = (("grpc.ssl_target_name_override", SERVER_NAMES[0]),)
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/CreateCertificate",
                request_serializer=IstioCertificateRequest.SerializeToString,
                response_deserializer=IstioCertificateResponse.FromString,
            )
            request = IstioCertificateRequest(csr=csr, validity_duration=validity_s)
            if self._address:
                request.metadata.fields[ADDRESS_KEY].string_value = self._address
            try:
                response = await call(request, metadata=metadata, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise SigningError(f"{error.code().name}: {error.details()}") from None
        if len(response.cert_chain) < 2:
            raise SigningError("the control plane answered without a certificate")
        return tuple(response.cert_chain)


def _message(answer: TrustAnswer) -> trust_pb2.TrustAnswer:
    message = trust_pb2.TrustAnswer(version=answer.version, pods=answer.pods)
    if answer.report is not None:
        message.seconds = answer.report.seconds
        for each in answer.report.counts:
            message.counts.add(**msgspec.to_builtins(each))
    return message
