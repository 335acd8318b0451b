"""Counts of requests per service in the proxy that sends them: what is compared before and after a change.

Three counters, each with one tag: all requests, those answered with 4xx, and those that failed (5xx, or a gRPC status
that is the server's fault). The tag names the cluster and the VirtualService of the route, so faults and direct
answers count too, which no upstream ever sees. Nothing that a client sends is in a name, and `MAX_COUNTERS` bounds
them.

`stats_scope` is newer than the message classes, so it is written as bytes (field 6; `max_counters` 1, `prefix` 5).

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/access_loggers/stats/v3/stats.proto
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    GrpcStatusFilter,
    OrFilter,
    StatusCodeFilter,
)
from envoy.extensions.access_loggers.stats.v3.stats_pb2 import Config
from google.protobuf.wrappers_pb2 import UInt32Value

from lateen.envoy.virtual_host import METADATA, field
from lateen.features.encoding import pack
from lateen.lib.request_counts import CLIENT_ERRORS, PREFIX, REQUESTS, SERVER_ERRORS, TAG

LOGGER: Final = "envoy.access_loggers.stats"
MAX_COUNTERS: Final = 1_000
"""Services and VirtualServices that one listener tells apart."""
_SERVICE: Final = f"%UPSTREAM_CLUSTER_RAW%%METADATA(ROUTE:{METADATA}:config)%"
_FAULTS: Final = (
    GrpcStatusFilter.UNKNOWN,
    GrpcStatusFilter.DEADLINE_EXCEEDED,
    GrpcStatusFilter.UNIMPLEMENTED,
    GrpcStatusFilter.INTERNAL,
    GrpcStatusFilter.UNAVAILABLE,
    GrpcStatusFilter.DATA_LOSS,
)


def add_request_counts(add: Callable[[], AccessLog]) -> None:
    """Adds the counters to a connection manager."""
    _add(add(), REQUESTS)
    client = _add(add(), CLIENT_ERRORS)
    client.and_filter.CopyFrom(
        AndFilter(filters=[_status(ComparisonFilter.GE, 400), _status(ComparisonFilter.LE, 499)])
    )
    server = _add(add(), SERVER_ERRORS)
    server.or_filter.CopyFrom(OrFilter(filters=[_status(ComparisonFilter.GE, 500), _failed_grpc()]))


def _add(log: AccessLog, name: str) -> AccessLogFilter:
    config = Config()
    counter = config.counters.add()
    counter.stat.name = name
    counter.stat.tags.add(name=TAG, value_format=_SERVICE)
    counter.value_fixed.value = 1
    scope = field(1, UInt32Value(value=MAX_COUNTERS).SerializeToString()) + field(5, PREFIX.encode())
    config.MergeFromString(field(6, scope))
    log.name = LOGGER
    pack(log.typed_config, config)
    return log.filter


def _failed_grpc() -> AccessLogFilter:
    """A gRPC request that failed. The filter of statuses alone would take a plain 200 for UNKNOWN."""
    grpc = AccessLogFilter()
    header = grpc.header_filter.header
    header.name = "content-type"
    header.string_match.prefix = "application/grpc"
    status = AccessLogFilter(grpc_status_filter=GrpcStatusFilter(statuses=_FAULTS))
    return AccessLogFilter(and_filter=AndFilter(filters=[grpc, status]))


def _status(op: ComparisonFilter.Op, code: int) -> AccessLogFilter:
    found = AccessLogFilter(status_code_filter=StatusCodeFilter())
    comparison = found.status_code_filter.comparison
    comparison.op = op
    comparison.value.default_value = code
    comparison.value.runtime_key = "lateen.no_such_key"
    return found
