"""The secret discovery service of one Pod: its certificate and its trust, on a Unix socket, to its Envoy.

`default` is the certificate with its key (in one secret, so they change together), `ROOTCA` what peers are
trusted by. A change is pushed to every open stream; connections that are open keep what they have. A stream asked
before there is a certificate waits for it. Who may connect is a matter of the file system: the socket is 0600 in
a folder that applications do not see.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret and the xDS protocol page.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
import structlog
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from lateen.node.identity import Identity

CERTIFICATE = "default"
TRUST = "ROOTCA"
TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"

Request = TypeVar("Request", DiscoveryRequest, DeltaDiscoveryRequest)
Response = TypeVar("Response", DiscoveryResponse, DeltaDiscoveryResponse)

_log = structlog.stdlib.get_logger("lateen.node.sds")


@dataclass
class _Held:
    """What a stream has of the trust: whether it asked for it, what it was sent by nonce, what it accepted."""

    asked: bool = False
    accepted: str = ""
    sent: dict[str, str] = field(default_factory=dict[str, str])

    def answered(self, nonce: str, *, refused: bool) -> None:
        version = self.sent.pop(nonce, None)
        if version is not None and not refused:
            self.accepted = version


class SecretServer:
    """Serves one Pod's secrets. Before the first `update` streams are answered with nothing and wait."""

    def __init__(self, pod: str, *, resumed: bool = False) -> None:
        """`resumed`: a proxy is there already, and has what an earlier server gave it."""
        self._pod = pod
        self._awaited = resumed
        self._secrets: dict[str, tuple[str, bytes]] = {}
        self._streams: dict[asyncio.Event, _Held] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listens on a Unix socket, replacing a dead one's file. OSError when it cannot."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE,
                    {
                        "StreamSecrets": grpc.stream_stream_rpc_method_handler(
                            self._sotw, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
                        ),
                        "DeltaSecrets": grpc.stream_stream_rpc_method_handler(
                            self._delta, DeltaDiscoveryRequest.FromString, DeltaDiscoveryResponse.SerializeToString
                        ),
                    },
                ),
            )
        )
        _bind(server, path)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Ends all streams and removes the socket; Envoy keeps the secrets it has."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def update(self, identity: Identity, trusted: bytes | None = None) -> None:
        """Serves a new certificate and trust from now on; what did not change is not sent again. `trusted` is the
        encoded secret of the mesh's trust, without it the roots that came with the certificate are."""
        certificate = Secret()
        certificate.name = CERTIFICATE
        certificate.tls_certificate.certificate_chain.inline_bytes = identity.chain.encode()
        certificate.tls_certificate.private_key.inline_bytes = identity.key.encode()
        if trusted is None:
            trust = Secret()
            trust.name = TRUST
            trust.validation_context.trusted_ca.inline_bytes = identity.roots.encode()
            trusted = trust.SerializeToString(deterministic=True)
        for name, body in ((CERTIFICATE, certificate.SerializeToString(deterministic=True)), (TRUST, trusted)):
            self._secrets[name] = (hashlib.blake2b(body, digest_size=8).hexdigest(), body)
        for changed in self._streams:
            changed.set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def behind(self) -> bool:
        """True while a proxy has not accepted the trust that is served now, or is still to connect again."""
        version = self._secrets[TRUST][0] if TRUST in self._secrets else ""
        asking = [each for each in self._streams.values() if each.asked]
        self._awaited = self._awaited and not asking
        return self._awaited or any(each.accepted != version for each in asking)

    async def _sotw(
        self, requests: AsyncIterator[DiscoveryRequest], _context: object
    ) -> AsyncIterator[DiscoveryResponse]:
        names: tuple[str, ...] = ()
        sent: dict[str, str] = {}
        nonce = 0
        held = _Held()

        def take(request: DiscoveryRequest) -> None:
            nonlocal names
            self._note_error(request, sent)
            held.answered(request.response_nonce, refused=request.HasField("error_detail"))
            if not request.response_nonce or request.response_nonce == str(nonce):
                names = tuple(request.resource_names)
                held.asked = TRUST in names

        def answer() -> DiscoveryResponse | None:
            nonlocal sent, nonce
            have = {name: self._secrets[name] for name in names if name in self._secrets}
            versions = {name: version for name, (version, _) in have.items()}
            if versions == {name: sent.get(name) for name in versions}:
                return None
            sent, nonce = versions, nonce + 1
            response = DiscoveryResponse()
            response.type_url, response.nonce = TYPE_URL, str(nonce)
            response.version_info = "-".join(versions.values())
            held.sent[response.nonce] = versions.get(TRUST, "")
            for _, body in have.values():
                resource = response.resources.add()
                resource.type_url, resource.value = TYPE_URL, body
            return response

        async for response in self._run(requests, take, answer, held):
            yield response

    async def _delta(
        self, requests: AsyncIterator[DeltaDiscoveryRequest], _context: object
    ) -> AsyncIterator[DeltaDiscoveryResponse]:
        names: dict[str, None] = {}
        sent: dict[str, str] = {}
        nonce = 0
        held = _Held()

        def take(request: DeltaDiscoveryRequest) -> None:
            self._note_error(request, sent)
            held.answered(request.response_nonce, refused=request.HasField("error_detail"))
            held.accepted = request.initial_resource_versions.get(TRUST, held.accepted)
            for name in request.resource_names_subscribe:
                names[name] = None
                sent.pop(name, None)
            sent.update({name: version for name, version in request.initial_resource_versions.items() if name in names})
            for name in request.resource_names_unsubscribe:
                names.pop(name, None)
            held.asked = TRUST in names

        def answer() -> DeltaDiscoveryResponse | None:
            nonlocal nonce
            have = {name: self._secrets[name] for name in names if name in self._secrets}
            new = {name: secret for name, secret in have.items() if sent.get(name) != secret[0]}
            if not new:
                return None
            nonce += 1
            response = DeltaDiscoveryResponse()
            response.type_url, response.nonce = TYPE_URL, str(nonce)
            for name, (version, body) in new.items():
                sent[name] = version
                if name == TRUST:
                    held.sent[response.nonce] = version
                resource = response.resources.add()
                resource.name, resource.version = name, version
                resource.resource.type_url, resource.resource.value = TYPE_URL, body
            return response

        async for response in self._run(requests, take, answer, held):
            yield response

    def _note_error(self, request: DiscoveryRequest | DeltaDiscoveryRequest, sent: dict[str, str]) -> None:
        if request.HasField("error_detail"):
            _log.error("secret refused", pod=self._pod, secrets=sorted(sent), reason=request.error_detail.message)

    async def _run(
        self,
        requests: AsyncIterator[Request],
        take: Callable[[Request], None],
        answer: Callable[[], Response | None],
        held: _Held,
    ) -> AsyncIterator[Response]:
        """One stream: requests are taken as they come, answers leave when a request or a change makes one."""
        changed = asyncio.Event()
        ended = False

        async def read() -> None:
            nonlocal ended
            try:
                async for request in requests:
                    take(request)
                    changed.set()
            finally:
                ended = True
                changed.set()

        reader = asyncio.create_task(read(), name=f"sds requests of {self._pod}")
        self._streams[changed] = held
        try:
            while True:
                await changed.wait()
                changed.clear()
                if ended:
                    return
                response = answer()
                if response is not None:
                    yield response
        finally:
            self._streams.pop(changed, None)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader


def _bind(server: grpc.aio.Server, path: Path) -> None:
    try:
        server.add_insecure_port("unix:" + quote(str(path)))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {path}: {error}") from error
    path.chmod(0o600)
