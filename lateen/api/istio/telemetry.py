"""Telemetry: access logs, metrics and traces (telemetry.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference
from lateen.api.problems import Problem
from lateen.api.struct import Meta, NonEmpty, Object, PercentValue, PositiveDuration, Struct


class AccessLogFilter(Struct, frozen=True):
    """A CEL expression that picks what is logged."""

    expression: str | None = None


class LogSelector(Struct, frozen=True):
    """Which side of a connection logs."""

    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None


class ProviderRef(Struct, frozen=True):
    """A provider declared in the mesh configuration."""

    name: NonEmpty


class AccessLogging(Struct, frozen=True):
    """Which requests are logged, and where to."""

    disabled: bool | None = None
    filter: AccessLogFilter | None = None
    match: LogSelector | None = None
    providers: tuple[ProviderRef, ...] = ()


class MetricSelector(Struct, frozen=True):
    """Which metrics, on which side."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("metric", "customMetric"),)

    custom_metric: NonEmpty | None = None
    metric: (
        Literal[
            "ALL_METRICS",
            "REQUEST_COUNT",
            "REQUEST_DURATION",
            "REQUEST_SIZE",
            "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS",
            "TCP_CLOSED_CONNECTIONS",
            "TCP_SENT_BYTES",
            "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES",
            "GRPC_RESPONSE_MESSAGES",
        ]
        | None
    ) = None
    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None


class TagOverride(Struct, frozen=True):
    """A label set by a CEL expression, or removed."""

    operation: Literal["UPSERT", "REMOVE"] | None = None
    value: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.operation == "REMOVE" and self.value is not None:
            yield Problem("value", "a label that is removed has no value", "leave it out")
        if self.operation in (None, "UPSERT") and not self.value:
            yield Problem("", "the value of the label is missing", "set value")


class MetricsOverrides(Struct, frozen=True):
    """A change of some metrics."""

    disabled: bool | None = None
    match: MetricSelector | None = None
    tag_overrides: Mapping[str, TagOverride] = {}


class Metrics(Struct, frozen=True):
    """Changes of the metrics for some providers."""

    overrides: tuple[MetricsOverrides, ...] = ()
    providers: tuple[ProviderRef, ...] = ()
    reporting_interval: PositiveDuration | None = None


class EnvironmentTag(Struct, frozen=True):
    """A tag from an environment variable of the proxy."""

    name: NonEmpty
    default_value: str | None = None


class FormatterTag(Struct, frozen=True):
    """A tag by an access log format string."""

    value: NonEmpty


class HeaderTag(Struct, frozen=True):
    """A tag from a request header."""

    name: NonEmpty
    default_value: str | None = None


class LiteralTag(Struct, frozen=True):
    """A tag with a fixed value."""

    value: NonEmpty


class CustomTag(Struct, frozen=True):
    """One more tag of a span."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("literal", "environment", "header", "formatter"),)

    environment: EnvironmentTag | None = None
    formatter: FormatterTag | None = None
    header: HeaderTag | None = None
    literal: LiteralTag | None = None


class TracingSelector(Struct, frozen=True):
    """Which side of a connection traces."""

    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None


class Tracing(Struct, frozen=True):
    """How requests are sampled and what spans say."""

    custom_tags: Mapping[str, CustomTag] = {}
    disable_context_propagation: bool | None = None
    disable_span_reporting: bool | None = None
    enable_istio_tags: bool | None = None
    match: TracingSelector | None = None
    providers: tuple[ProviderRef, ...] = ()
    random_sampling_percentage: PercentValue | None = None
    use_request_id_for_trace_sampling: bool | None = None

    def problems(self) -> Iterator[Problem]:
        if len(self.providers) > 1:
            yield Problem("providers", "traces go to one provider", "keep one")


class TelemetrySpec(Struct, frozen=True):
    """What is told about the traffic of some workloads: logs, metrics, traces."""

    access_logging: tuple[AccessLogging, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    selector: PolicySelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    tracing: tuple[Tracing, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.selector, self.target_ref, self.target_refs)


class Telemetry(Object, frozen=True):
    """Logs, metrics and traces of some workloads."""

    GROUP: ClassVar[str] = "telemetry.istio.io"
    KIND: ClassVar[str] = "Telemetry"

    spec: TelemetrySpec = TelemetrySpec()
