"""Gateway: the ports, hosts and certificates of gateway proxies (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from lateen.api import rules
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, Struct, UInt32
from lateen.lib.names import is_address, is_host_pattern, is_label


class ServerPort(Struct, frozen=True):
    """The port a server listens on."""

    name: str
    number: UInt32
    protocol: str
    target_port: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.port("number", self.number)
        yield from rules.protocol("protocol", self.protocol)
        if not self.name:
            yield Problem("name", "the port has no name", "name it, such as http or https")


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

    def problems(self) -> Iterator[Problem]:
        given = [
            name
            for name, value in (
                ("credentialName", self.credential_name),
                ("credentialNames", self.credential_names),
                ("tlsCertificates", self.tls_certificates),
            )
            if value
        ]
        if len(given) > 1:
            yield Problem(given[-1], f"{' and '.join(given)} exclude each other", "keep one of them")
        low, high = (
            _VERSIONS.index(each or "TLS_AUTO") for each in (self.min_protocol_version, self.max_protocol_version)
        )
        if 0 < high < low:
            message = f"it is lower than minProtocolVersion ({self.min_protocol_version})"
            yield Problem("maxProtocolVersion", message, "raise it, or lower the other")
        yield from rules.no_duplicates(("cipherSuites",), self.cipher_suites, "cipher suite")
        for name, values, form, remedy in (
            ("verifyCertificateHash", self.verify_certificate_hash, _HASH, "write 64 hexadecimal digits"),
            ("verifyCertificateSpki", self.verify_certificate_spki, _SPKI, "write a SHA-256 hash in base64"),
        ):
            for index, value in enumerate(values):
                if not form.fullmatch(value):
                    yield Problem(at(name, index), f'"{value[:80]}" is not the hash of a certificate', remedy)

    def certificate_problems(self, place: str) -> Iterator[Problem]:
        """What the mode demands of certificates; `place` is where these settings are."""
        mode = self.mode or "SIMPLE"
        named = bool(self.credential_name or self.credential_names)
        if mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL"):
            for name, value in (
                ("credentialName", self.credential_name),
                ("credentialNames", self.credential_names),
                ("serverCertificate", self.server_certificate),
                ("privateKey", self.private_key),
                ("caCertificates", self.ca_certificates),
                ("tlsCertificates", self.tls_certificates),
            ):
                if value:
                    yield Problem(f"{place}.{name}", f"mode {mode} uses no {name}", "leave it out, or change the mode")
            return
        if named:
            return
        files = self.tls_certificates or (
            TLSCertificate(server_certificate=self.server_certificate, private_key=self.private_key),
        )
        for each in files:
            for name, value in (("serverCertificate", each.server_certificate), ("privateKey", each.private_key)):
                if not value:
                    yield Problem(place, f"mode {mode} needs a certificate: {name} is missing", "set credentialName")
        roots = self.ca_certificates or self.ca_cert_credential_name or any(each.ca_certificates for each in files)
        if mode in ("MUTUAL", "OPTIONAL_MUTUAL") and not roots:
            remedy = "set caCertificates, or credentialName"
            yield Problem(place, f"mode {mode} needs the roots of its clients", remedy)


class Server(Struct, frozen=True):
    """One port of a gateway: which hosts, which protocol, which TLS."""

    hosts: tuple[str, ...]
    port: ServerPort
    bind: str | None = None
    default_endpoint: str | None = None
    name: str | None = None
    tls: ServerTLSSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.hosts:
            yield Problem("hosts", "the server has no hosts", "name at least one; * means any")
        for index, each in enumerate(self.hosts):
            namespace, slash, name = each.rpartition("/")
            if slash and namespace not in ("*", ".") and not is_label(namespace):
                yield Problem(
                    at("hosts", index), f'"{namespace[:80]}" is no namespace', "write namespace/host, ./host or */host"
                )
            elif not is_host_pattern(name) and not is_address(name):
                yield Problem(
                    at("hosts", index), f'"{name[:80]}" is not a host', "write a name, or one with a * at its beginning"
                )
        if self.bind and not is_address(self.bind) and not self.bind.startswith("unix://"):
            yield Problem("bind", f'"{self.bind[:80]}" is no address', "write an IP address or unix://PATH")
        yield from self._tls_problems()

    def _tls_problems(self) -> Iterator[Problem]:
        protocol, tls = self.port.protocol.upper(), self.tls
        if protocol in rules.TLS_PROTOCOLS and tls is None:
            yield Problem("", f"a server of protocol {self.port.protocol} needs tls", "set tls.mode and a certificate")
        elif (
            tls is not None
            and protocol not in rules.TLS_PROTOCOLS
            and msgspec.structs.replace(tls, https_redirect=None) != ServerTLSSettings()
        ):
            yield Problem(
                "tls", f"protocol {self.port.protocol} has no TLS", "use HTTPS or TLS; only httpsRedirect is possible"
            )
        elif tls is not None and protocol == "TLS" and tls.https_redirect:
            yield Problem("tls.httpsRedirect", "only HTTP can be redirected", "leave it out")
        if tls is not None and protocol in rules.TLS_PROTOCOLS:
            yield from tls.certificate_problems("tls")


class GatewaySpec(Struct, frozen=True):
    """Servers that some gateway proxies run."""

    selector: Mapping[str, str] = {}
    servers: tuple[Server, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from rules.labels(("selector",), self.selector)
        if not self.servers:
            yield Problem("", "the gateway has no servers", "set servers")
        names = [each.port.name for each in self.servers]
        yield from rules.no_duplicates(("servers",), names, "the name of a port", "port.name")
        named = [each.name or f" {index}" for index, each in enumerate(self.servers)]
        yield from rules.no_duplicates(("servers",), named, "server", "name")


class Gateway(Object, frozen=True):
    """Ports at the edge of the mesh."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "Gateway"

    spec: GatewaySpec = GatewaySpec()


_VERSIONS = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
_HASH = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")
_SPKI = re.compile(r"[A-Za-z0-9+/]{43}=")
