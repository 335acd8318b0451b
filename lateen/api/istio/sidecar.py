"""Sidecar: what sidecars accept and what they can reach (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lateen.api.istio.destination_rule import ConnectionPoolSettings
from lateen.api.istio.gateway import ServerTLSSettings
from lateen.api.istio.selectors import WorkloadSelector
from lateen.api.istio.virtual_service import Destination
from lateen.api.struct import Object, Struct, UInt32


class SidecarPort(Struct, frozen=True):
    """A port of a sidecar listener."""

    name: str | None = None
    number: UInt32 | None = None
    protocol: str | None = None
    target_port: UInt32 | None = None


class IstioEgressListener(Struct, frozen=True):
    """What a workload can reach through one port."""

    hosts: tuple[str, ...]
    bind: str | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    port: SidecarPort | None = None


class IstioIngressListener(Struct, frozen=True):
    """One port that a sidecar accepts traffic on."""

    port: SidecarPort
    bind: str | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: str | None = None
    tls: ServerTLSSettings | None = None


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


class Sidecar(Object, frozen=True):
    """What sidecars accept and what they can reach."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "Sidecar"

    spec: SidecarSpec = SidecarSpec()
