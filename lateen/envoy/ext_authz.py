"""External authorizers: the filters that ask them, over gRPC or HTTP, about requests or connections.

An RBAC filter in shadow mode before each marks what its policies match; the authorizer is asked about nothing
else. Every authorizer has marks of its own, so several on one workload don't get in each other's way.

The time limit, when the mesh configuration sets none, is `DEFAULT_TIMEOUT_S`: a request must not hang for as long
as an authorizer does. An authorizer that does not answer refuses the request, unless it may fail open.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/http/ext_authz/v3/ext_authz.proto
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import config_source_pb2
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz as HttpExtAuthz
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import HttpService
from envoy.extensions.filters.network.ext_authz.v3.ext_authz_pb2 import ExtAuthz as NetworkExtAuthz
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from envoy.type.matcher.v3.string_pb2 import ListStringMatcher
from envoy.type.v3.http_status_pb2 import HttpStatus, StatusCode

from lateen.api.mesh.ext_authz import ExtAuthzRequestBody, ExtGrpc, ExtHttp
from lateen.envoy.rbac import write_text
from lateen.features.encoding import set_seconds
from lateen.intent.authorization import NamedRule
from lateen.intent.predicate import pattern
from lateen.intent.security import Authorizer
from lateen.lib.durations import Duration

HTTP_NAME = "envoy.filters.http.ext_authz"
NETWORK_NAME = "envoy.filters.network.ext_authz"
DEFAULT_TIMEOUT_S = 5.0
MARK = "istio-ext-authz"
FAILED = 403
"""The status of a request whose authorizer does not answer, unless its settings name another."""


def mark_prefix(authorizer: str) -> str:
    """The prefix of the metadata keys that an authorizer's marks are under."""
    return f"istio_ext_authz_{authorizer}_"


def marked(rules: Iterable[NamedRule]) -> tuple[NamedRule, ...]:
    """Rules under names that say an authorizer is asked."""
    return tuple(NamedRule(f"{MARK}-{each.name}", each.meaning) for each in rules)


def http_ext_authz(authorizer: Authorizer) -> HttpExtAuthz:
    """The filter that asks about requests. The authorizer must be reachable."""
    config = HttpExtAuthz()
    settings = authorizer.settings
    if settings is None or not authorizer.cluster:
        raise ValueError(f"the authorizer {authorizer.name} cannot be reached")
    said = settings.grpc or settings.http
    assert said is not None
    config.transport_api_version = config_source_pb2.V3
    config.failure_mode_allow = said.fail_open
    config.clear_route_cache = said.clear_route_cache
    code = StatusCode.Name(StatusCode.ValueType(_status(said.status_on_error)))
    config.status_on_error.MergeFrom(HttpStatus(code=code))
    _write_mark(config.filter_enabled_metadata, "envoy.filters.http.rbac", authorizer.name)
    _write_body(config, said.include_request_body_in_check)
    if settings.grpc is not None:
        _write_grpc(config.grpc_service, authorizer, settings.grpc)
    if settings.http is not None:
        _write_http(config, authorizer, settings.http)
    return config


def network_ext_authz(authorizer: Authorizer) -> NetworkExtAuthz | None:
    """The filter that asks about connections; None for an authorizer that only understands requests."""
    grpc = authorizer.settings.grpc if authorizer.settings is not None else None
    if grpc is None or not authorizer.cluster:
        return None
    config = NetworkExtAuthz()
    config.stat_prefix = "tcp."
    config.transport_api_version = config_source_pb2.V3
    config.failure_mode_allow = grpc.fail_open
    _write_grpc(config.grpc_service, authorizer, grpc)
    _write_mark(config.filter_enabled_metadata, "envoy.filters.network.rbac", authorizer.name)
    return config


def _status(said: str) -> int:
    return int(said) if said.isdecimal() and int(said) in StatusCode.values() else FAILED


def _timeout_s(said: Duration | None) -> float:
    return said.seconds if said is not None else DEFAULT_TIMEOUT_S


def _write_mark(target: MetadataMatcher, rbac: str, name: str) -> None:
    target.filter = rbac
    target.path.add().key = f"{mark_prefix(name)}shadow_effective_policy_id"
    target.value.string_match.prefix = MARK


def _write_body(config: HttpExtAuthz, body: ExtAuthzRequestBody | None) -> None:
    if body is None:
        return
    config.with_request_body.max_request_bytes = body.max_request_bytes or 1024
    config.with_request_body.allow_partial_message = body.allow_partial_message
    config.with_request_body.pack_as_bytes = body.pack_as_bytes


def _write_grpc(service: GrpcService, authorizer: Authorizer, said: ExtGrpc) -> None:
    service.envoy_grpc.cluster_name = authorizer.cluster
    service.envoy_grpc.authority = authorizer.host
    set_seconds(service.timeout, _timeout_s(said.timeout))


def _write_http(config: HttpExtAuthz, authorizer: Authorizer, said: ExtHttp) -> None:
    service: HttpService = config.http_service
    service.server_uri.uri = f"http://{authorizer.host}"
    service.server_uri.cluster = authorizer.cluster
    set_seconds(service.server_uri.timeout, _timeout_s(said.timeout))
    service.path_prefix = said.path_prefix
    _write_names(config.allowed_headers, (*said.include_request_headers_in_check, *said.include_headers_in_check))
    for name, value in sorted(said.include_additional_headers_in_check.items()):
        header = service.authorization_request.headers_to_add.add()
        header.key = name
        header.value = value
    answer = service.authorization_response
    _write_names(answer.allowed_upstream_headers, said.headers_to_upstream_on_allow)
    _write_names(answer.allowed_client_headers, said.headers_to_downstream_on_deny)
    _write_names(answer.allowed_client_headers_on_success, said.headers_to_downstream_on_allow)


def _write_names(target: ListStringMatcher, names: Iterable[str]) -> None:
    for each in dict.fromkeys(names):
        write_text(target.patterns.add(), pattern(each, ignore_case=True))
