"""TLS contexts: mutual TLS of the mesh on both sides, TLS that a DestinationRule asks for, TLS of gateways.

Inside the mesh the client says by ALPN what is inside (`istio-http/1.1`, `istio-h2`, `istio`), so a server that
takes plain and mutual TLS on one port picks its filter chain from the ClientHello. Behind the names of the mesh the
client offers the plain ones, which the server picks, so both ends agree on the codec.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/transport_sockets/tls/v3/tls.proto
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.extensions.transport_sockets.quic.v3.quic_transport_pb2 import QuicDownstreamTransport
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    SubjectAltNameMatcher,
    TlsParameters,
)
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext

from lateen.api.istio.destination_rule import ClientTLSSettings
from lateen.api.istio.gateway import ServerTLSSettings
from lateen.api.rules import CIPHER_SUITES
from lateen.envoy.sources import (
    CA_SUFFIX,
    CERTIFICATE,
    FILE_AUTHORITY_PREFIX,
    FILE_CERTIFICATE_PREFIX,
    TRUST,
    add_credential,
    add_files,
    add_own_secret,
)
from lateen.features.encoding import pack
from lateen.model.mesh import TlsBounds

TLS = "envoy.transport_sockets.tls"
RAW = "envoy.transport_sockets.raw_buffer"
QUIC = "envoy.transport_sockets.quic"

ALPN_HTTP1 = ("istio-http/1.1", "istio", "http/1.1")
ALPN_HTTP2 = ("istio-h2", "istio", "h2")
ALPN_EITHER = ("istio-http/1.1", "istio")
"""No name the server would pick: it looks at the first bytes instead."""
ALPN_TCP = ("istio-peer-exchange", "istio")

SERVER_ALPN_HTTP = ("h2", "http/1.1")
ALPN_HTTP3 = ("h3",)
MESH_HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
MESH_TCP_ALPN = ("istio-peer-exchange", "istio")
MESH_ALPN = (*MESH_TCP_ALPN, *MESH_HTTP_ALPN)

OS_TRUST = "/etc/ssl/certs/ca-certificates.crt"
"""The machine's own certificate authorities (Debian's path): what SIMPLE trusts when told nothing else."""


def mesh_client(peers: Iterable[str], sni: str, alpn: Iterable[str], bounds: TlsBounds) -> UpstreamTlsContext:
    """The client's side of mutual TLS: own certificate, and only `peers` (URI names) may answer; none: anybody
    with a certificate of the mesh."""
    context = UpstreamTlsContext.FromString(_mesh_client(tuple(alpn), bounds))
    context.sni = sni
    common = context.common_tls_context
    for peer in peers:
        _add_name(common.combined_validation_context.default_validation_context, exact=peer)
    return context


@lru_cache(64)
def _mesh_client(alpn: tuple[str, ...], bounds: TlsBounds) -> bytes:
    """What such contexts have in common, encoded: there is one in every cluster."""
    context = UpstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(alpn)
    _set_bounds(common.tls_params, bounds)
    _own_certificate(common)
    return context.SerializeToString()


def mesh_server(trust_domains: Iterable[str], alpn: Iterable[str], bounds: TlsBounds) -> DownstreamTlsContext:
    """The server's side of mutual TLS: the client shows a certificate of one of the trust domains."""
    context = DownstreamTlsContext()
    context.require_client_certificate.value = True
    common = context.common_tls_context
    common.alpn_protocols.extend(alpn)
    _set_bounds(common.tls_params, bounds)
    _own_certificate(common)
    for domain in trust_domains:
        _add_name(common.combined_validation_context.default_validation_context, prefix=f"spiffe://{domain}/")
    return context


def origination(
    settings: ClientTLSSettings,
    sni: str,
    names: Iterable[str],
    alpn: Iterable[str],
    bounds: TlsBounds,
    *,
    by_control_plane: bool,
) -> UpstreamTlsContext:
    """TLS as a DestinationRule asks for it (SIMPLE, MUTUAL).

    One of `names` must be in the server's certificate (none: the cluster checks the request's host, or nobody does).
    `by_control_plane`: the proxy may fetch `credentialName` (gateways, and sidecars picked by a workloadSelector).
    """
    context = UpstreamTlsContext()
    context.sni = sni
    common = context.common_tls_context
    common.alpn_protocols.extend(alpn)
    _set_bounds(common.tls_params, bounds)
    credential = settings.credential_name if by_control_plane else None
    if settings.mode == "MUTUAL" and credential:
        add_credential(common.tls_certificate_sds_secret_configs.add(), credential)
    elif settings.mode == "MUTUAL":
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = settings.client_certificate or ""
        certificate.private_key.filename = settings.private_key or ""
    if settings.insecure_skip_verify:
        return context
    if credential:
        combined = common.combined_validation_context
        add_credential(combined.validation_context_sds_secret_config, credential + CA_SUFFIX)
        validation = combined.default_validation_context
        validation.SetInParent()
    else:
        validation = common.validation_context
        validation.trusted_ca.filename = settings.ca_certificates or OS_TRUST
        if settings.ca_crl:
            validation.crl.filename = settings.ca_crl
    for name in names:
        _add_name(validation, exact=name)
    return context


def termination(
    settings: ServerTLSSettings,
    trust_domains: Iterable[str],
    mesh: TlsBounds,
    outer: TlsBounds,
    *,
    alpn: tuple[str, ...],
) -> DownstreamTlsContext:
    """TLS that ends at a gateway. Certificates come from Secrets (`credentialName`) or from files of the gateway.

    MUTUAL wants a client certificate, OPTIONAL_MUTUAL takes one, ISTIO_MUTUAL wants one of the mesh.
    """
    if settings.mode == "ISTIO_MUTUAL":
        context = mesh_server(() if settings.subject_alt_names else trust_domains, alpn, mesh)
        common = context.common_tls_context
        _narrow(common.tls_params, settings)
        _check_client(common.combined_validation_context.default_validation_context, settings)
        return context
    context = DownstreamTlsContext()
    context.require_client_certificate.value = settings.mode == "MUTUAL"
    common = context.common_tls_context
    common.alpn_protocols.extend(alpn)
    _set_bounds(common.tls_params, outer)
    _narrow(common.tls_params, settings)
    names = settings.credential_names or ((settings.credential_name,) if settings.credential_name else ())
    for name in names:
        add_credential(common.tls_certificate_sds_secret_configs.add(), name)
    if not names:
        for chain, key in certificate_files(settings):
            add_files(common.tls_certificate_sds_secret_configs.add(), FILE_CERTIFICATE_PREFIX, chain, key)
    if settings.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
        authority = settings.ca_cert_credential_name or (names[0] if names else None)
        combined = common.combined_validation_context
        if authority:
            add_credential(combined.validation_context_sds_secret_config, authority + CA_SUFFIX)
        else:
            files = authority_files(settings)
            add_files(combined.validation_context_sds_secret_config, FILE_AUTHORITY_PREFIX, *files)
        _check_client(combined.default_validation_context, settings)
    return context


def _narrow(parameters: TlsParameters, settings: ServerTLSSettings) -> None:
    """What a server says of versions and ciphers counts before the mesh configuration."""
    least, most = parameters.tls_minimum_protocol_version, parameters.tls_maximum_protocol_version
    parameters.tls_minimum_protocol_version = _version(settings.min_protocol_version, least)
    parameters.tls_maximum_protocol_version = _version(settings.max_protocol_version, most)
    if settings.cipher_suites:
        del parameters.cipher_suites[:]
        parameters.cipher_suites.extend(each for each in dict.fromkeys(settings.cipher_suites) if each in CIPHER_SUITES)


def _check_client(validation: CertificateValidationContext, settings: ServerTLSSettings) -> None:
    validation.SetInParent()
    for name in settings.subject_alt_names:
        _add_name(validation, exact=name)
    validation.verify_certificate_spki.extend(settings.verify_certificate_spki)
    validation.verify_certificate_hash.extend(settings.verify_certificate_hash)
    if settings.insecure_skip_verify:
        validation.trust_chain_verification = CertificateValidationContext.ACCEPT_UNTRUSTED


def certificate_files(settings: ServerTLSSettings) -> list[tuple[str, str]]:
    """The files of a server's certificates with their keys."""
    found = [(each.server_certificate or "", each.private_key or "") for each in settings.tls_certificates]
    return found or [(settings.server_certificate or "", settings.private_key or "")]


def authority_files(settings: ServerTLSSettings) -> tuple[str, str]:
    """The files with a server's roots for clients, and with what they revoked (may be empty)."""
    own = (each.ca_certificates for each in settings.tls_certificates if each.ca_certificates)
    return settings.ca_certificates or next(own, ""), settings.ca_crl or ""


def _set_bounds(parameters: TlsParameters, bounds: TlsBounds) -> None:
    """TLS 1.2 to 1.3, unless the mesh configuration says otherwise."""
    parameters.tls_minimum_protocol_version = _version(bounds.minimum, TlsParameters.TLSv1_2)
    parameters.tls_maximum_protocol_version = TlsParameters.TLSv1_3
    parameters.cipher_suites.extend(bounds.cipher_suites)
    parameters.ecdh_curves.extend(bounds.curves)


def _version(said: str | None, default: TlsParameters.TlsProtocol) -> TlsParameters.TlsProtocol:
    return _VERSIONS.get(said or "", default)


_VERSIONS = {
    "TLSV1_0": TlsParameters.TLSv1_0,
    "TLSV1_1": TlsParameters.TLSv1_1,
    "TLSV1_2": TlsParameters.TLSv1_2,
    "TLSV1_3": TlsParameters.TLSv1_3,
}


def set_socket(socket: TransportSocket, context: UpstreamTlsContext | DownstreamTlsContext | None) -> None:
    """Writes a TLS context, or none for plain bytes, as a transport socket."""
    if context is None:
        socket.name = RAW
        pack(socket.typed_config, RawBuffer())
    else:
        socket.name = TLS
        pack(socket.typed_config, context)


def set_quic_socket(socket: TransportSocket, context: DownstreamTlsContext) -> None:
    """Writes a TLS context as the transport socket of a UDP listener."""
    transport = QuicDownstreamTransport()
    transport.downstream_tls_context.CopyFrom(context)
    socket.name = QUIC
    pack(socket.typed_config, transport)


def _own_certificate(common: CommonTlsContext) -> None:
    add_own_secret(common.tls_certificate_sds_secret_configs.add(), CERTIFICATE)
    combined = common.combined_validation_context
    combined.default_validation_context.SetInParent()
    add_own_secret(combined.validation_context_sds_secret_config, TRUST)


def _add_name(validation: CertificateValidationContext, *, exact: str = "", prefix: str = "") -> None:
    matcher = validation.match_typed_subject_alt_names.add()
    matcher.san_type = SubjectAltNameMatcher.URI if "://" in exact + prefix else SubjectAltNameMatcher.DNS
    if exact:
        matcher.matcher.exact = exact
    else:
        matcher.matcher.prefix = prefix
