"""ServiceEntry: hosts that no Service stands for (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from lateen.api.istio.selectors import WorkloadSelector
from lateen.api.istio.workload_entry import WorkloadEntrySpec
from lateen.api.struct import Meta, Object, Port, Struct


class ServiceEntryPort(Struct, frozen=True):
    """A port of the hosts."""

    name: Annotated[str, Meta(max_length=256)]
    number: Port
    protocol: Annotated[str, Meta(max_length=256)] | None = None
    target_port: Port | None = None


class ServiceEntrySpec(Struct, frozen=True):
    """Hosts that the registry of services does not have."""

    hosts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
    addresses: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=256)] = ()
    endpoints: Annotated[tuple[WorkloadEntrySpec, ...], Meta(max_length=4096)] = ()
    export_to: tuple[str, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] | None = None
    ports: Annotated[tuple[ServiceEntryPort, ...], Meta(max_length=256)] = ()
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] | None = None
    subject_alt_names: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None


class ServiceEntryAddress(Struct, frozen=True):
    """An address that was given to a host without one; `host` is empty when it is for all of them."""

    value: str
    host: str | None = None


class ServiceEntryStatus(Struct, frozen=True):
    """The part of the status that translation reads."""

    addresses: tuple[ServiceEntryAddress, ...] = ()


class ServiceEntry(Object, frozen=True):
    """Hosts outside of the registry of services."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "ServiceEntry"

    spec: ServiceEntrySpec
    status: ServiceEntryStatus = ServiceEntryStatus()
