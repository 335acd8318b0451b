"""WorkloadEntry: one workload outside of Pods (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from lateen.api.struct import Meta, Object, Port, Struct, UInt32


class WorkloadEntrySpec(Struct, frozen=True):
    """One workload outside of Pods: its address, labels, ports."""

    address: Annotated[str, Meta(max_length=256)] | None = None
    labels: Annotated[Mapping[str, str], Meta(max_length=256)] = {}
    locality: Annotated[str, Meta(max_length=2048)] | None = None
    network: Annotated[str, Meta(max_length=2048)] | None = None
    ports: Annotated[Mapping[str, Port], Meta(max_length=128)] = {}
    service_account: Annotated[str, Meta(max_length=253)] | None = None
    weight: UInt32 | None = None


class WorkloadEntry(Object, frozen=True):
    """A workload outside of Pods."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "WorkloadEntry"

    spec: WorkloadEntrySpec
