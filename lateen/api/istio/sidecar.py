"""Sidecar: what sidecars accept and what they can reach (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.destination_rule import ConnectionPoolSettings
from lateen.api.istio.gateway import ServerTLSSettings
from lateen.api.istio.http_route import Destination
from lateen.api.istio.selectors import WorkloadSelector
from lateen.api.problems import Problem, at
from lateen.api.struct import Object, Struct, UInt32
from lateen.lib.names import is_address, is_host_pattern, is_label


class SidecarPort(Struct, frozen=True):
    """A port of a sidecar listener."""

    name: str | None = None
    number: UInt32 | None = None
    protocol: str | None = None
    target_port: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.number:
            yield Problem("", "the port has no number", "set number")
        else:
            yield from rules.port("number", self.number)
        if self.protocol:
            yield from rules.protocol("protocol", self.protocol)


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
        if self.port is None and self.bind:
            yield Problem("bind", "an address to listen on needs a port", "set port, or leave bind out")
        if self.capture_mode == "NONE" and self.port is None:
            yield Problem("captureMode", "without capture the listener needs a port", "set port")
        yield from _bind(self.bind)


class IstioIngressListener(Struct, frozen=True):
    """One port that a sidecar accepts traffic on."""

    port: SidecarPort
    bind: str | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: str | None = None
    tls: ServerTLSSettings | None = None

    def problems(self) -> Iterator[Problem]:
        yield from _bind(self.bind)
        if self.default_endpoint and not _ENDPOINT.fullmatch(self.default_endpoint):
            remedy = "write 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///PATH"
            yield Problem("defaultEndpoint", f'"{self.default_endpoint[:80]}" is not possible', remedy)
        if self.tls is not None:
            if self.tls.mode not in (None, "SIMPLE", "MUTUAL"):
                yield Problem("tls.mode", f"a sidecar cannot do {self.tls.mode}", "use SIMPLE or MUTUAL")
            else:
                yield from self.tls.certificate_problems("tls")


class OutboundTrafficPolicy(Struct, frozen=True):
    """What becomes of traffic to hosts the mesh does not know."""

    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] | None = None


class SidecarSpec(Struct, frozen=True):
    """What some sidecars accept and what they can reach."""

    egress: tuple[IstioEgressListener, ...] = ()
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: tuple[IstioIngressListener, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None

    def problems(self) -> Iterator[Problem]:
        if self.workload_selector is not None and not self.workload_selector.labels:
            yield Problem("workloadSelector", "the selector is empty", "leave it out to mean every workload")
        catch_all = [index for index, each in enumerate(self.egress) if each.port is None]
        for index in catch_all[1:]:
            yield Problem(at("egress", index), "a second listener without a port", "merge it with the first")
        for index in catch_all[:1]:
            if index != len(self.egress) - 1:
                yield Problem(at("egress", index), "the listener without a port must be the last one", "move it down")
        taken = [(each.bind or "", each.port.number) for each in self.egress if each.port is not None]
        yield from _twice("egress", taken)
        yield from _twice("ingress", [(each.bind or "", each.port.number) for each in self.ingress])


class Sidecar(Object, frozen=True):
    """What sidecars accept and what they can reach."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "Sidecar"

    spec: SidecarSpec = SidecarSpec()


_ENDPOINT = re.compile(r"(127\.0\.0\.1|0\.0\.0\.0|\[::1\]|\[::\]):[0-9]{1,5}|unix://(/|@).+")


def _bind(address: str | None) -> Iterator[Problem]:
    if address and not is_address(address) and not address.startswith("unix://"):
        yield Problem("bind", f'"{address[:80]}" is no address', "write an IP address or unix:///PATH")


def _twice(listeners: str, taken: Sequence[tuple[str, int | None]]) -> Iterator[Problem]:
    for index, each in enumerate(taken):
        if each in taken[:index]:
            yield Problem(at(listeners, index), f"port {each[1]} has a listener already", "merge the two")
