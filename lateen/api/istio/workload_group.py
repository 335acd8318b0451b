"""WorkloadGroup: what a group of WorkloadEntries has in common (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from lateen.api.istio.workload_entry import address_problems
from lateen.api.problems import Problem
from lateen.api.struct import Meta, NonEmpty, NonNegativeInt32, Object, Port, Struct, UInt32


class WorkloadGroupMetadata(Struct, frozen=True):
    """Labels and annotations of the entries of a group."""

    annotations: Annotated[Mapping[str, str], Meta(max_length=256)] = {}
    labels: Annotated[Mapping[str, str], Meta(max_length=256)] = {}


class ExecHealthCheckConfig(Struct, frozen=True):
    """A command that must end with 0."""

    command: tuple[NonEmpty, ...]


class GrpcHealthCheckConfig(Struct, frozen=True):
    """A gRPC health service that must say SERVING."""

    port: Port | None = None
    service: str | None = None


class HTTPHeader(Struct, frozen=True):
    """A header of a probe."""

    name: Annotated[str, Meta(pattern=r"^[-_A-Za-z0-9]+$")] | None = None
    value: str | None = None


class HTTPHealthCheckConfig(Struct, frozen=True):
    """A URL that must answer with 200 to 399."""

    port: Port
    host: str | None = None
    http_headers: tuple[HTTPHeader, ...] = ()
    path: str | None = None
    scheme: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.scheme not in (None, "", "HTTP", "HTTPS"):
            yield Problem("scheme", f'"{self.scheme[:40]}" is not a scheme of probes', "use HTTP or HTTPS")


class TCPHealthCheckConfig(Struct, frozen=True):
    """A port that must accept connections."""

    port: Port
    host: str | None = None


class ReadinessProbe(Struct, frozen=True):
    """How the readiness of an entry is found out."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("httpGet", "tcpSocket", "exec", "grpc"),)

    exec: ExecHealthCheckConfig | None = None
    failure_threshold: NonNegativeInt32 | None = None
    grpc: GrpcHealthCheckConfig | None = None
    http_get: HTTPHealthCheckConfig | None = None
    initial_delay_seconds: NonNegativeInt32 | None = None
    period_seconds: NonNegativeInt32 | None = None
    success_threshold: NonNegativeInt32 | None = None
    tcp_socket: TCPHealthCheckConfig | None = None
    timeout_seconds: NonNegativeInt32 | None = None


class WorkloadEntryTemplate(Struct, frozen=True):
    """The entry itself, without an address."""

    address: Annotated[str, Meta(max_length=256)] | None = None
    labels: Annotated[Mapping[str, str], Meta(max_length=256)] = {}
    locality: Annotated[str, Meta(max_length=2048)] | None = None
    network: Annotated[str, Meta(max_length=2048)] | None = None
    ports: Annotated[Mapping[str, Port], Meta(max_length=128)] = {}
    service_account: Annotated[str, Meta(max_length=253)] | None = None
    weight: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from address_problems(self.address or "", self.ports, self.labels)


class WorkloadGroupSpec(Struct, frozen=True):
    """What the WorkloadEntries of a group have in common."""

    template: WorkloadEntryTemplate
    metadata: WorkloadGroupMetadata | None = None
    probe: ReadinessProbe | None = None


class WorkloadGroup(Object, frozen=True):
    """What a group of WorkloadEntries has in common."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "WorkloadGroup"

    spec: WorkloadGroupSpec
