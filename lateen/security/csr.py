"""The certificate service: who may have which certificate, over gRPC as Istio's agents speak it.

A caller shows a service account token, or its current certificate when it renews. Either leads to a Pod, and the
Pod, looked up, leads to the identity that is signed; a Pod that is gone gets nothing. One file maps every refusal
to its gRPC code: UNAUTHENTICATED (who are you), PERMISSION_DENIED (no such Pod, or not yours), INVALID_ARGUMENT
(a request that cannot be signed), FAILED_PRECONDITION (the CA itself cannot sign).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final, NoReturn

import grpc
import grpc.aio
import msgspec
import structlog
from cryptography import x509

from lateen.lib.bucket import Bucket
from lateen.lib.machines import ADDRESS_KEY, PEER_TYPE
from lateen.lib.once import Once
from lateen.lib.signing import SERVICE
from lateen.lib.spiffe import SpiffeId, control_plane_id
from lateen.security.ca import CaError, CertificateAuthority, CsrError
from lateen.security.peer import PeerIdentity, parse_peer, utc_now
from lateen.security.protos.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from lateen.security.tokens import CA_AUDIENCE, TokenError, TokenIssuer

_log = structlog.stdlib.get_logger("lateen.security.csr")

Context = grpc.aio.ServicerContext[IstioCertificateRequest, IstioCertificateResponse]


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as proven. `pod` and `uid` are empty for a certificate that names no Pod, `account_uid` for any.

    A machine is one of a WorkloadGroup: `group` is its name, `uid` the group's. `address` is what the machine says.
    """

    namespace: str
    service_account: str
    pod: str = ""
    uid: str = ""
    group: str = ""
    address: str = ""
    account_uid: str = ""


class Denied(Exception):
    """The caller gets no certificate; the message tells it why."""


Lookup = Callable[[Caller], PeerIdentity | None]
"""The identity of a caller's Pod or machine as it is now; None when there is no such Pod (same uid, same service
account). Denied when more can be said."""


REQUESTS: Final = (0.5, 20.0)
"""How many requests a second one workload may make for long, and at once."""
_CALLERS: Final = 10_000


class _Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class CertificateService:
    """Serves CreateCertificate on any number of gRPC servers."""

    def __init__(
        self,
        ca: Callable[[], CertificateAuthority],
        tokens: TokenIssuer,
        lookup: Lookup,
        trust_domain: Callable[[], str],
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._ca = ca
        self._tokens = tokens
        self._lookup = lookup
        self._trust_domain = trust_domain
        self._now = now
        self._pacing: dict[tuple[str, str, str], Bucket] = {}
        self._said = Once()

    @property
    def _own(self) -> SpiffeId:
        return control_plane_id(self._trust_domain())

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service; before the server starts."""
        handler = grpc.unary_unary_rpc_method_handler(
            self.create,
            request_deserializer=IstioCertificateRequest.FromString,
            response_serializer=IstioCertificateResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"CreateCertificate": handler}),)
        )

    async def create(self, request: IstioCertificateRequest, context: Context) -> IstioCertificateResponse:
        """Answers one request, or aborts the call with a code and the reason."""
        try:
            caller = self._caller(context, _address(request))
            self._pace(caller)
            identity = self._identity(caller, request)
            validity = dt.timedelta(seconds=max(0, min(request.validity_duration, 10**9)))
            chain = self._ca().issue(request.csr, identity, validity)
        except _Refusal as refusal:
            return await _abort(context, self._said, refusal.code, str(refusal))
        except Denied as denied:
            return await _abort(context, self._said, grpc.StatusCode.PERMISSION_DENIED, str(denied))
        except CsrError as error:
            return await _abort(context, self._said, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except CaError as error:
            return await _abort(context, self._said, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        _log.info("certificate issued", identity=str(identity.spiffe), pod=identity.pod)
        return IstioCertificateResponse(cert_chain=chain)

    def _pace(self, caller: Caller) -> None:
        """Refuses a workload that asks again and again."""
        now = self._now().timestamp()
        who = (caller.namespace, caller.pod or caller.group, caller.uid)
        bucket = self._pacing.pop(who, None) or Bucket(*REQUESTS, now)
        self._pacing[who] = bucket
        if len(self._pacing) > _CALLERS:
            del self._pacing[next(iter(self._pacing))]
        if bucket.take(now) > 0:
            bucket.give_back()
            raise _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests: try again later")

    def _caller(self, context: Context, address: str) -> Caller:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                if scheme.lower() != "bearer":
                    raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, "only Bearer tokens are understood")
                try:
                    claims = self._tokens.verify(token.strip(), CA_AUDIENCE)
                except TokenError as error:
                    raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None
                return Caller(
                    claims.namespace,
                    claims.service_account,
                    claims.pod,
                    claims.uid,
                    claims.group,
                    address,
                    claims.account_uid,
                )
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if pem is None:
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, "show a service account token or a client certificate")
        certificate = x509.load_pem_x509_certificate(pem)
        try:
            peer = parse_peer(certificate)
        except ValueError as error:
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None
        if peer.trust_domain != self._own.trust_domain:
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, f"trust domain {peer.trust_domain} has its own CA")
        # The connection may have outlived the certificate it was opened with.
        if certificate.not_valid_after_utc <= self._now():
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, "the client certificate has ended: show a token")
        if self._ca().revoked(certificate):
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, "the client certificate is revoked: show a token")
        if peer.type == PEER_TYPE:
            return Caller(peer.namespace, peer.service_account, "", peer.uid, peer.workload, address)
        return Caller(peer.namespace, peer.service_account, peer.pod, peer.uid)

    def _identity(self, caller: Caller, request: IstioCertificateRequest) -> PeerIdentity:
        for key in ("ImpersonatedIdentity", "CertSigner"):
            if key in request.metadata.fields and request.metadata.fields[key].string_value:
                raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{key} is not allowed to this caller")
        identity = self._lookup(caller)
        if identity is None:
            name = (
                f"{caller.namespace}/{caller.pod}" if caller.pod else f"of {caller.namespace}/{caller.service_account}"
            )
            raise _Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                f"there is no Pod {name} with uid {caller.uid or '(none)'} and account {caller.service_account}, "
                "or that account was deleted",
            )
        proven = SpiffeId(self._own.trust_domain, caller.namespace, caller.service_account)
        if identity.spiffe != proven:
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{proven} asked for a Pod that is {identity.spiffe}")
        if identity.spiffe == self._own:
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{identity.spiffe} belongs to the control plane")
        return identity


def _address(request: IstioCertificateRequest) -> str:
    fields = request.metadata.fields
    return fields[ADDRESS_KEY].string_value if ADDRESS_KEY in fields else ""


async def _abort(context: Context, said: Once, code: grpc.StatusCode, message: str) -> NoReturn:
    if said.is_new(context.peer().rpartition(":")[0], code, message):  # who is refused goes on asking
        _log.warning("certificate refused", code=code.name, reason=message, peer=context.peer())
    await context.abort(code, message)
    raise AssertionError("abort returned")
