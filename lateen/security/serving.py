"""The control plane's own certificate, renewed while it serves.

gRPC asks for the certificate before every handshake, so a renewal at half life touches no open stream. There are
two kinds of ports: those that require a client certificate (xDS, and renewals of certificates) and those that
have none (first certificates, by token): Python's gRPC cannot ask for a certificate without requiring it.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Final

import grpc
from cryptography import x509

from lateen.lib.keypair import new_request
from lateen.lib.signing import SERVER_NAMES
from lateen.lib.spiffe import control_plane_id
from lateen.security.ca import CertificateAuthority
from lateen.security.peer import utc_now

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
"""Options every gRPC server of the control plane needs: proxies ping every 30 s (gRPC would hang up on them), and
a second server on the same port must fail instead of taking half the connections. A connection has few streams and
small headers, and ten seconds for its handshake."""

SMALL_MESSAGES: tuple[tuple[str, int], ...] = (("grpc.max_receive_message_length", 64 << 10),)
"""For servers that callers without a certificate reach: a request for one has a few kilobytes."""

SHORT_CONNECTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
)
"""For a server that strangers reach over the network: asking for a certificate takes one call, and a call whose
message does not come ends with its connection."""

_AGE_SHARE, _GRACE_SHARE = 0.4, 0.05
_GRACE_MS: Final = 30_000


def renewed_connections(validity_s: float) -> tuple[tuple[str, int], ...]:
    """Options by which a connection ends before the certificate that opened it, which may be half over by then: its
    caller comes back with the next one. Neither does a stream outlive its certificate, nor is a new one refused on a
    connection that has. gRPC varies the age by a tenth."""
    age_ms, grace_ms = (round(validity_s * share * 1000) for share in (_AGE_SHARE, _GRACE_SHARE))
    return (("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", min(_GRACE_MS, grace_ms)))


_CONNECTIONS: Final = (256, 16_384)
_OTHER_FILES: Final = 6_000


def connection_limit(open_files: int, share: int = 1) -> tuple[str, int]:
    """The option that bounds the connections of a port: what the process's limit leaves when everything else that it
    has open is counted, divided by `share`."""
    least, most = _CONNECTIONS
    free = max(open_files - _OTHER_FILES, open_files // 2) // share
    return ("grpc.max_allowed_incoming_connections", max(least, min(most, free)))


class ServingCertificate:
    """One certificate for all servers of this process; ports share it."""

    def __init__(
        self,
        ca: Callable[[], CertificateAuthority],
        trust_domain: Callable[[], str],
        names: tuple[str, ...] = SERVER_NAMES,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._ca = ca
        self._trust_domain = trust_domain
        self._made_for: tuple[CertificateAuthority, str] | None = None
        self._names = names
        self._now = now
        self._renew_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._key = self._chain = b""
        self._generation = 0
        self._lock = threading.Lock()

    def current(self) -> tuple[bytes, bytes, int]:
        """Key, chain (both PEM) and which issue of them this is; renewed first when half of its life is over, or the
        CA, or what it trusts, is another."""
        with self._lock:  # handshakes ask from gRPC's threads
            now = self._now()
            ca, domain = self._ca(), self._trust_domain()
            if now >= self._renew_at or self._made_for != (ca, domain):
                key, csr = new_request()
                chain = ca.issue_serving(csr, control_plane_id(domain), self._names)
                self._made_for = (ca, domain)
                leaf = x509.load_pem_x509_certificate(chain[0].encode())
                self._key, self._chain = key.encode(), "".join(chain[:-1]).encode()
                self._renew_at = now + (leaf.not_valid_after_utc - now) / 2
                self._generation += 1
            return (self._key, self._chain, self._generation)

    def credentials(self, *, require_client_certificate: bool) -> grpc.ServerCredentials:
        """Credentials for one port of a gRPC server (`server.add_secure_port(address, credentials)`)."""
        served = 0

        def configuration() -> grpc.ServerCertificateConfiguration:
            nonlocal served
            key, chain, served = self.current()
            roots = self._ca().trust_pem.encode() if require_client_certificate else None
            return grpc.ssl_server_certificate_configuration([(key, chain)], roots)

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            return configuration() if self.current()[2] != served else None

        return grpc.dynamic_ssl_server_credentials(
            configuration(),
            fetch,  # pyright: ignore[reportArgumentType] (None means no change; the stubs do not know)
            require_client_certificate,
        )
