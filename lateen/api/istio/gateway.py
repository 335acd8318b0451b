"""Gateway: the ports, hosts and certificates of gateway proxies (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.struct import Meta, Object, Struct, UInt32


class ServerPort(Struct, frozen=True):
    """The port a server listens on."""

    name: str
    number: UInt32
    protocol: str
    target_port: UInt32 | None = None


class TLSCertificate(Struct, frozen=True):
    """A certificate with its key, by file names."""

    ca_certificates: str | None = None
    private_key: str | None = None
    server_certificate: str | None = None


class ServerTLSSettings(Struct, frozen=True):
    """The TLS a server speaks."""

    ca_cert_credential_name: str | None = None
    ca_certificates: str | None = None
    ca_crl: str | None = None
    cipher_suites: tuple[str, ...] = ()
    credential_name: str | None = None
    credential_names: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)] = ()
    https_redirect: bool | None = None
    insecure_skip_verify: bool | None = None
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = None
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = None
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] | None = (
        None
    )
    private_key: str | None = None
    server_certificate: str | None = None
    subject_alt_names: tuple[str, ...] = ()
    tls_certificates: Annotated[tuple[TLSCertificate, ...], Meta(min_length=1, max_length=2)] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()


class Server(Struct, frozen=True):
    """One port of a gateway: which hosts, which protocol, which TLS."""

    hosts: tuple[str, ...]
    port: ServerPort
    bind: str | None = None
    default_endpoint: str | None = None
    name: str | None = None
    tls: ServerTLSSettings | None = None


class GatewaySpec(Struct, frozen=True):
    """Servers that some gateway proxies run."""

    selector: Mapping[str, str] = {}
    servers: tuple[Server, ...] = ()


class Gateway(Object, frozen=True):
    """Ports at the edge of the mesh."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "Gateway"

    spec: GatewaySpec = GatewaySpec()
