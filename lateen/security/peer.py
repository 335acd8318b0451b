"""Who a certificate speaks for: the identity the CA writes and everybody else reads.

`spiffe` is the only part anything is authorised by. The others describe the workload behind it; they are as
trustworthy as the CA, and empty where a certificate does not have them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec
from cryptography import x509

from lateen.lib.peer import decode, encode
from lateen.lib.spiffe import SpiffeId, parse_spiffe

_DESCRIPTION = x509.ObjectIdentifier("2.5.4.13")


class PeerIdentity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workload as its certificate describes it (see `lateen.lib.peer` for the fields)."""

    spiffe: SpiffeId
    pod: str = ""
    uid: str = ""
    workload: str = ""
    type: str = ""
    service: str = ""
    revision: str = ""
    cluster: str = ""
    network: str = ""

    @property
    def trust_domain(self) -> str:
        return self.spiffe.trust_domain

    @property
    def namespace(self) -> str:
        return self.spiffe.namespace

    @property
    def service_account(self) -> str:
        return self.spiffe.service_account


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class AuthContext(Protocol):
    """The part of grpc.aio.ServicerContext read here."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


def subject_of(identity: PeerIdentity) -> x509.Name:
    """The Subject of this identity's certificate. ValueError when a value does not fit."""
    values: dict[str, str] = msgspec.structs.asdict(identity)
    del values["spiffe"]
    return x509.Name([x509.NameAttribute(_DESCRIPTION, text) for text in encode(values)])


def parse_peer(certificate: str | bytes | x509.Certificate) -> PeerIdentity:
    """The identity in a certificate (PEM or parsed; its signature is the caller's concern). ValueError when it is no
    workload certificate: exactly one URI name, of SPIFFE form."""
    if isinstance(certificate, str):
        certificate = certificate.encode()
    if isinstance(certificate, bytes):
        certificate = x509.load_pem_x509_certificate(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate has no subject alternative names") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ValueError(f"the certificate has {len(uris)} URI names, a workload certificate has one")
    spiffe = parse_spiffe(uris[0])
    texts = [each.value for each in certificate.subject.get_attributes_for_oid(_DESCRIPTION)]
    return PeerIdentity(spiffe=spiffe, **decode(text for text in texts if isinstance(text, str)))


def peer_of(
    context: AuthContext,
    *,
    trust_domain: Callable[[], str] | None = None,
    revoked: Callable[[x509.Certificate], bool] = lambda _: False,
    now: Callable[[], dt.datetime] = utc_now,
) -> PeerIdentity | None:
    """The identity of a gRPC caller by its client certificate, which the TLS layer has verified when the connection
    was opened; None without one, when it is no workload's, has ended since, is revoked, or is of another trust domain
    (a root may be shared)."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        peer = parse_peer(certificate)
    except ValueError:
        return None
    foreign = trust_domain is not None and peer.trust_domain != trust_domain()
    return None if foreign or certificate.not_valid_after_utc <= now() or revoked(certificate) else peer
