"""Gateway: the ports, hosts and certificates of gateway proxies (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from lateen.api import rules
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Meta, Object, Struct, UInt32
from lateen.lib.names import is_address, is_host_pattern, is_label
from lateen.lib.suggest import did_you_mean


class ServerPort(Struct, frozen=True):
    """The port a server listens on."""

    name: str
    number: UInt32
    protocol: str
    target_port: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.target_port:
            yield Problem(
                "targetPort",
                "a Gateway has no target port",
                "leave it out: the Service in front says where port.number leads",
            )
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

    @property
    def effective_mode(self) -> str:
        """The mode; without a word PASSTHROUGH, as in Istio."""
        return self.mode or "PASSTHROUGH"

    @property
    def only_redirects(self) -> bool:
        """True when nothing is said but perhaps that clients are sent to HTTPS."""
        return msgspec.structs.replace(self, https_redirect=None, mode=None) == ServerTLSSettings() and self.passes

    @property
    def passes(self) -> bool:
        """True when TLS does not end at the gateway."""
        return self.effective_mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH")

    def problems(self) -> Iterator[Problem]:
        sources = [
            name
            for name, value in (
                ("credentialName", self.credential_name),
                ("credentialNames", self.credential_names),
                ("serverCertificate", self.server_certificate or self.private_key),
                ("tlsCertificates", self.tls_certificates),
            )
            if value
        ]
        if len(sources) > 1 and self.mode != "ISTIO_MUTUAL":
            yield Problem(sources[-1], f"{' and '.join(sources)} exclude each other", "keep one of them")
        yield from self._version_problems()
        for name, values, form, remedy in (
            ("verifyCertificateHash", self.verify_certificate_hash, _HASH, "write 64 hexadecimal digits"),
            ("verifyCertificateSpki", self.verify_certificate_spki, _SPKI, "write a SHA-256 hash in base64"),
        ):
            for index, value in enumerate(values):
                if not form.fullmatch(value):
                    yield Problem(at(name, index), f'"{value[:80]}" is not the hash of a certificate', remedy)

    def _version_problems(self) -> Iterator[Problem]:
        least, most = (
            _VERSIONS.index(each or "TLS_AUTO") for each in (self.min_protocol_version, self.max_protocol_version)
        )
        if 0 < most < (least or _VERSIONS.index("TLSV1_2")):
            low = self.min_protocol_version if least else "TLSV1_2, the default"
            yield Problem(
                "maxProtocolVersion", f"it is lower than minProtocolVersion ({low})", "raise it, or lower both"
            )
        if least in (1, 2) and not self.cipher_suites:
            yield warning(
                "minProtocolVersion",
                f"no cipher suite that is on by default works with {self.min_protocol_version}",
                "list some in cipherSuites, such as ECDHE-RSA-AES128-SHA",
            )
        for index, each in enumerate(self.cipher_suites):
            if each not in rules.CIPHER_SUITES:
                message = f'"{each[:80]}" is not a cipher suite that can be chosen, and is left out'
                yield warning(at("cipherSuites", index), message, did_you_mean(each, rules.CIPHER_SUITES))
            elif each in self.cipher_suites[:index]:
                yield warning(at("cipherSuites", index), f"{each} is there twice", "keep one")

    def certificate_problems(self, place: str) -> Iterator[Problem]:
        """What the mode demands of certificates, and what it has no use for; `place` is where these settings are."""
        mode = self.effective_mode
        named = bool(self.credential_name or self.credential_names)
        yield from self._useless(place)
        if self.passes or mode == "ISTIO_MUTUAL":
            return
        if self.ca_crl and mode == "SIMPLE":
            yield Problem(
                f"{place}.caCrl", "mode SIMPLE checks no certificates of clients", "use MUTUAL, or leave it out"
            )
        elif self.ca_crl and (named or self.ca_cert_credential_name):
            remedy = "put the list into the Secret as ca.crl"
            yield warning(f"{place}.caCrl", "with roots from a Secret this file has no effect", remedy)
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
        if mode != "SIMPLE" and not roots:
            remedy = "set caCertificates, or credentialName"
            yield Problem(place, f"mode {mode} needs the roots of its clients", remedy)

    def _useless(self, place: str) -> Iterator[Problem]:
        """Fields that the mode has no use for."""
        mode = self.effective_mode
        certificates = (
            ("credentialName", self.credential_name),
            ("credentialNames", self.credential_names),
            ("serverCertificate", self.server_certificate),
            ("privateKey", self.private_key),
            ("tlsCertificates", self.tls_certificates),
        )
        roots = (("caCertificates", self.ca_certificates), ("caCertCredentialName", self.ca_cert_credential_name))
        checks = (
            ("caCrl", self.ca_crl if mode != "SIMPLE" else None),
            ("subjectAltNames", self.subject_alt_names),
            ("verifyCertificateSpki", self.verify_certificate_spki),
            ("verifyCertificateHash", self.verify_certificate_hash),
            ("insecureSkipVerify", self.insecure_skip_verify),
        )
        if mode == "ISTIO_MUTUAL":
            for name, value in (*certificates, *roots):
                if value:
                    yield Problem(f"{place}.{name}", f"mode {mode} uses no {name}", "leave it out, or change the mode")
            useless = (checks[0], checks[-1])
        elif mode == "SIMPLE":
            useless = (*roots, *checks)
        elif self.passes:
            useless = (*certificates, *roots, *checks)
        else:
            useless = ()
        said = f"mode {mode}" if self.mode else "without mode (which means PASSTHROUGH) the server"
        for name, value in useless:
            if value:
                remedy = "leave it out, or set mode MUTUAL" if mode == "SIMPLE" else "leave it out, or set mode SIMPLE"
                yield warning(f"{place}.{name}", f"{said} uses no {name}", remedy)


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
        by_name = self.port.protocol.upper() in rules.TLS_PROTOCOLS
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
            elif by_name and name.startswith("*") and name[1:2] not in ("", "."):
                message = f'"{name[:80]}" cannot be the server name of TLS'
                yield Problem(at("hosts", index), message, f"write *.{name.partition('.')[2]}, or each name")
        yield from self._bind_problems()
        yield from self._tls_problems()
        if self.default_endpoint:
            yield warning(
                "defaultEndpoint",
                "it is refused: what comes from outside could reach ports of the gateway's own machine by it",
                "name the application in a VirtualService of the gateway",
            )

    def _bind_problems(self) -> Iterator[Problem]:
        bind = self.bind or ""
        if not bind.startswith(_UNIX):
            yield from rules.port("port.number", self.port.number)
            if bind and not is_address(bind):
                yield Problem("bind", f'"{bind[:80]}" is no address', "write an IP address or unix://PATH")
            return
        path = bind.removeprefix(_UNIX)
        if not path.startswith(("/", "@")) or len(path) < 2:
            yield Problem(
                "bind", f'"{bind[:80]}" is no socket', "write unix:///PATH, or unix://@NAME for an abstract one"
            )
        if self.port.number:
            yield Problem("port.number", f"a socket has no port, and this says {self.port.number}", "write 0")

    def _tls_problems(self) -> Iterator[Problem]:
        protocol, tls = self.port.protocol.upper(), self.tls
        if protocol in rules.TLS_PROTOCOLS and tls is None:
            yield Problem("", f"a server of protocol {self.port.protocol} needs tls", "set tls.mode and a certificate")
        elif (
            tls is not None
            and protocol not in rules.TLS_PROTOCOLS
            and (protocol not in rules.HTTP_PROTOCOLS or not tls.only_redirects)
        ):
            yield Problem(
                "tls", f"protocol {self.port.protocol} has no TLS", "use HTTPS or TLS; only httpsRedirect is possible"
            )
        elif tls is not None and tls.https_redirect and protocol not in rules.HTTP_PROTOCOLS:
            yield warning("tls.httpsRedirect", "only plain HTTP is redirected", "put it on the server of protocol HTTP")
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

    def problems(self) -> Iterator[Problem]:
        if self.name and not is_label(self.name):
            yield Problem("metadata.name", f'"{self.name[:80]}" cannot name a Gateway', "use letters, digits and '-'")


_VERSIONS = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
_UNIX = "unix://"
_HASH = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")
_SPKI = re.compile(r"[A-Za-z0-9+/]{43}=")
