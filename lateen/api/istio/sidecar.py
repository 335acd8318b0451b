"""Sidecar: what sidecars accept and what they can reach (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.destination_rule import ConnectionPoolSettings
from lateen.api.istio.gateway import ServerTLSSettings
from lateen.api.istio.http_route import Destination
from lateen.api.istio.selectors import WorkloadSelector
from lateen.api.problems import NO_EFFECT, Problem, at, warning
from lateen.api.struct import Object, Struct, UInt32
from lateen.lib.findings import Level
from lateen.lib.names import UNIX_PREFIX, is_address, is_host, is_host_pattern, is_label


class SidecarPort(Struct, frozen=True):
    """A port of a sidecar listener; number 0 for a Unix socket."""

    name: str | None = None
    number: UInt32 | None = None
    protocol: str | None = None
    target_port: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.number:
            yield from rules.port("number", self.number)
        if self.protocol:
            yield from rules.protocol("protocol", self.protocol, (*rules.PROTOCOLS, "HTTP_PROXY"))
        if self.name and not is_label(self.name):
            yield Problem("name", f'"{self.name[:80]}" is no name of a port', "use lower-case letters, digits and '-'")
        if self.target_port:
            yield Problem("targetPort", "ports of Sidecars have no target", "leave it out; defaultEndpoint says it")


class IstioEgressListener(Struct, frozen=True):
    """What a workload can reach through one port."""

    hosts: tuple[str, ...]
    bind: str | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    port: SidecarPort | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.hosts:
            yield Problem("hosts", "the listener has no hosts", "name at least one; */* means all")
        for index, each in enumerate(self.hosts):
            namespace, slash, name = each.rpartition("/")
            own = namespace.removeprefix("~") or namespace
            if not slash or not (own in ("*", ".", "~") or is_label(own)):
                yield Problem(
                    at("hosts", index), f'"{each[:80]}" is not namespace/host', "write ./*, */* or namespace/host"
                )
            elif not is_host_pattern(name) and not (own == "~" and name == "*"):
                yield Problem(
                    at("hosts", index), f'"{name[:80]}" is not a host', "write a name, or one with a * at its beginning"
                )
        yield from _covered(self.hosts)
        yield from self._place_problems()

    def _place_problems(self) -> Iterator[Problem]:
        socket = (self.bind or "").startswith(UNIX_PREFIX)
        if self.port is None:
            if socket:
                yield Problem("bind", "a Unix socket needs a port with a protocol", "set port: {protocol: HTTP}")
        elif not self.port.number and not socket:
            remedy = "set number; 0 is for bind: unix:///PATH"
            yield Problem("port", "the port has no number", remedy)
        elif self.port.number and socket:
            yield Problem("port.number", "a Unix socket has no number", "leave it out, or bind an IP address")
        if socket and self.capture_mode == "IPTABLES":
            yield Problem("captureMode", "connections to a Unix socket are not captured", "leave it out")
        yield from _address("bind", self.bind, sockets=True)


class IstioIngressListener(Struct, frozen=True):
    """One port that a sidecar accepts traffic on."""

    port: SidecarPort
    bind: str | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: str | None = None
    tls: ServerTLSSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.port.number:
            yield Problem("port", "the port has no number", "set number")
        yield from _address("bind", self.bind, sockets=False)
        yield from self._endpoint_problems()
        if self.bind and self.capture_mode != "NONE":
            message = "bind has no effect: connections are captured, whatever address of the workload they are for"
            yield Problem("bind", message, "set captureMode: NONE, or leave it out", Level.INFO, NO_EFFECT)
        if self.tls is not None:
            yield from _tls(self.tls)
        http = (self.port.protocol or "HTTP").upper() in rules.HTTP_PROTOCOLS
        if self.connection_pool is not None and self.connection_pool.http is not None and not http:
            message = f"protocol {self.port.protocol} is not HTTP: these limits have no effect"
            yield warning("connectionPool.http", message, "leave them out, or change the protocol")

    def _endpoint_problems(self) -> Iterator[Problem]:
        said = self.default_endpoint or ""
        path = said.removeprefix(UNIX_PREFIX)
        host, _, port = said.rpartition(":")
        number = self.port.number or 0
        number = self.port.number or 0
        if path != said:
            if not _is_socket(path):
                yield Problem(
                    "defaultEndpoint", f'"{path[:80]}" is no whole path', "write unix:///PATH or unix://@NAME"
                )
        elif said and host not in _OWN_ADDRESSES:
            remedy = "write 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///PATH"
            yield Problem("defaultEndpoint", f'"{said[:80]}" is not possible', remedy)
        elif said and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            yield Problem("defaultEndpoint", f'"{port[:20]}" is not a port', "ports are 1 to 65535")
        elif self.capture_mode == "NONE" and self.bind in _LOOPBACK and int(port or number) == number:
            remedy = "give defaultEndpoint another port, or unix:///PATH"
            yield Problem("defaultEndpoint", "the proxy would call itself: it listens there", remedy)


class OutboundTrafficPolicy(Struct, frozen=True):
    """What becomes of traffic to hosts the mesh does not know."""

    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.mode is None:
            yield warning("", "without a mode it is REGISTRY_ONLY", "say mode: REGISTRY_ONLY or ALLOW_ANY")
        if (proxy := self.egress_proxy) is None:
            return
        if self.mode != "ALLOW_ANY":
            yield Problem("egressProxy", "only mode ALLOW_ANY has an egress proxy", "set mode: ALLOW_ANY")
        if not is_host(proxy.host) or "." not in proxy.host:
            message = f'"{proxy.host[:80]}" is no full host name'
            yield Problem("egressProxy.host", message, "write NAME.NAMESPACE.svc.DOMAIN")
        if proxy.port is None:
            yield Problem("egressProxy", "the port is missing", "set port.number")


class SidecarSpec(Struct, frozen=True):
    """What some sidecars accept and what they can reach."""

    egress: tuple[IstioEgressListener, ...] = ()
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: tuple[IstioIngressListener, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None

    def problems(self) -> Iterator[Problem]:
        if self.workload_selector is not None and not self.workload_selector.labels:
            message = "without labels it is for every workload of the namespace"
            yield warning("workloadSelector", message, "set labels, or leave it out")
        if not (self.egress or self.ingress or self.outbound_traffic_policy or self.inbound_connection_pool):
            remedy = "set egress, ingress, outboundTrafficPolicy or inboundConnectionPool"
            yield Problem("", "the Sidecar says nothing", remedy)
        catch_all = [index for index, each in enumerate(self.egress) if each.port is None]
        for index in catch_all[1:]:
            yield Problem(at("egress", index), "a second listener without a port", "merge it with the first")
        if len(catch_all) == 1 and catch_all[0] != len(self.egress) - 1:
            message = "the listener without a port must be the last one"
            yield Problem(at("egress", catch_all[0]), message, "move it down")
        ported = [(index, each) for index, each in enumerate(self.egress) if each.port is not None]
        yield from _twice("egress", [(index, each.port.number or each.bind) for index, each in ported if each.port])
        yield from _twice("ingress", [(index, each.port.number) for index, each in enumerate(self.ingress)])


class Sidecar(Object, frozen=True):
    """What sidecars accept and what they can reach."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "Sidecar"

    spec: SidecarSpec = SidecarSpec()


_OWN_ADDRESSES = ("", "127.0.0.1", "0.0.0.0", "[::1]", "[::]")  # noqa: S104 (compared, not bound)
_LOOPBACK = ("127.0.0.1", "::1")
_MODES = (None, "SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")
_NO_CREDENTIALS = "sidecars get no certificates of Secrets for their own ports"


def _is_socket(path: str) -> bool:
    return (path.startswith("@") and len(path) > 1) or (path.startswith("/") and not path.endswith("/"))


def _address(place: str, said: str | None, *, sockets: bool) -> Iterator[Problem]:
    if not said or is_address(said):
        return
    path = said.removeprefix(UNIX_PREFIX)
    if path == said or not sockets:
        yield Problem(place, f'"{said[:80]}" is no address', f"write an IP address{' or unix:///PATH' * sockets}")
    elif not _is_socket(path):
        yield Problem(place, f'"{path[:80]}" is no whole path', "write unix:///PATH or unix://@NAME")


def _tls(tls: ServerTLSSettings) -> Iterator[Problem]:
    if tls.mode not in _MODES:
        yield Problem("tls.mode", f"a sidecar cannot do {tls.mode}", "use SIMPLE, MUTUAL or OPTIONAL_MUTUAL")
    else:
        yield from tls.certificate_problems("tls")
    files = "name files: serverCertificate, privateKey, caCertificates"
    for name, said, message, remedy in (
        (
            "subjectAltNames",
            tls.subject_alt_names,
            "a sidecar does not check clients' names",
            "leave it out",
        ),
        ("httpsRedirect", tls.https_redirect, "a sidecar does not redirect", "leave it out"),
        ("credentialName", tls.credential_name, _NO_CREDENTIALS, files),
        ("credentialNames", tls.credential_names, _NO_CREDENTIALS, files),
        ("caCertCredentialName", tls.ca_cert_credential_name, _NO_CREDENTIALS, files),
    ):
        if said:
            yield Problem(f"tls.{name}", message, remedy)


def _covered(hosts: Sequence[str]) -> Iterator[Problem]:
    """Hosts that another one of the same listener has already; exclusions are compared among themselves."""
    for index, each in enumerate(hosts):
        namespace, _, name = each.rpartition("/")
        wider = [f"{namespace}/*", *([] if namespace.startswith("~") else ["*/*", f"*/{name}"])]
        before = next((said for said in wider if said != each and said in hosts), each if each in hosts[:index] else "")
        if before:
            yield warning(at("hosts", index), f"{before} has it already", "leave it out")


def _twice(listeners: str, taken: Sequence[tuple[int, int | str | None]]) -> Iterator[Problem]:
    seen: set[int | str | None] = set()
    for index, place in taken:
        if place and place in seen:
            what = f"port {place}" if isinstance(place, int) else place
            yield Problem(at(listeners, index), f"{what} has a listener already", "merge the two")
        seen.add(place)
