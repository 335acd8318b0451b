"""WorkloadEntry: one workload outside of Pods (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from lateen.api import rules
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, Port, Struct, UInt32
from lateen.lib.names import is_address, is_host

GROUP_ANNOTATION = "istio.io/autoRegistrationGroup"
"""The WorkloadGroup that an entry was registered by."""
PROBED_ANNOTATION = "proxy.istio.io/health-checks-enabled"
"""`"true"`: the entry takes traffic while its condition `Healthy` is true."""
HEALTHY = "Healthy"


class WorkloadEntrySpec(Struct, frozen=True):
    """One workload outside of Pods: its address, labels, ports."""

    address: Annotated[str, Meta(max_length=256)] | None = None
    labels: Annotated[Mapping[str, str], Meta(max_length=256)] = {}
    locality: Annotated[str, Meta(max_length=2048)] | None = None
    network: Annotated[str, Meta(max_length=2048)] | None = None
    ports: Annotated[Mapping[str, Port], Meta(max_length=128)] = {}
    service_account: Annotated[str, Meta(max_length=253)] | None = None
    weight: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.address and not self.network:
            yield Problem("", '"address" is missing', "set it; only an entry with a network can be without")
        yield from address_problems(self.address or "", self.ports, self.labels)


class WorkloadEntryCondition(Struct, frozen=True):
    """What is true of an entry: `Healthy` is what its own probe says."""

    type: str
    status: str


class WorkloadEntryStatus(Struct, frozen=True):
    """The part of an entry's status that translation reads."""

    conditions: tuple[WorkloadEntryCondition, ...] = ()


class WorkloadEntry(Object, frozen=True):
    """A workload outside of Pods."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "WorkloadEntry"

    spec: WorkloadEntrySpec
    status: WorkloadEntryStatus = WorkloadEntryStatus()

    @property
    def healthy(self) -> bool:
        """True when nobody probes it, or its probe succeeds."""
        if self.metadata.annotations.get(PROBED_ANNOTATION) != "true":
            return True
        return any(each.type == HEALTHY and each.status == "True" for each in self.status.conditions)


_PORT_NAME = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")


def address_problems(address: str, ports: Mapping[str, int], labels: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the address, ports and labels of an entry or of the template of one."""
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if not path.startswith(("/", "@")):
            yield Problem("address", "a socket needs its whole path", "write unix:///PATH, or unix://@NAME")
        if path.endswith("/"):
            yield Problem("address", "a directory is no socket", "name a socket")
        if ports:
            yield Problem("ports", "a socket has no ports", "leave them out")
    elif address and not is_address(address) and not is_host(address):
        yield Problem("address", f'"{address[:80]}" is no address', "write an IP address or a host name")
    for name in ports:
        if len(name) >= 63 or not _PORT_NAME.fullmatch(name):
            yield Problem(
                at("ports", name), f'"{name[:80]}" cannot be the name of a port', "use letters, digits and '-'"
            )
    yield from rules.labels(("labels",), labels)
