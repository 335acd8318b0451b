"""Why a request was refused, or would be: lines in the proxy's log, and a header for who may know.

The access log names the rule that refused a request (`%RESPONSE_CODE_DETAILS%`). A refused connection has a line of
JSON that names it. Requests and connections that an AUDIT policy
matches, and those that a policy on trial would refuse, get a line of JSON besides, on the proxy's own output when
the mesh has no access log. An AUDIT policy with the annotation `lateen.io/explain-denials: "true"` says who is told in
the answer itself: the header `x-lateen-reason` names the rule, and `x-lateen-allowing` the policies one of which
would have had to match.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/local_reply
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter
from envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from lateen.features.encoding import pack
from lateen.intent.security import ALLOW, AUDIT, CUSTOM, DENY, Security

HTTP_RBAC = "envoy.filters.http.rbac"
NETWORK_RBAC = "envoy.filters.network.rbac"
REFUSED_STATE = "lateen.refused"
"""The filter state of a connection that is refused: the name of the rule, or `none` when no rule allows it."""
DRY_RUN = "istio_dry_run_{}_"
"""Prefix of the counters and metadata of a policy on trial, by action in lower case."""
AUDITED = "istio_audit_"
EXPLAINED = "lateen_explain_"
REASON_HEADER = "x-lateen-reason"
ALLOWING_HEADER = "x-lateen-allowing"
OUTPUT = "/dev/stdout"

_OF_CONNECTIONS = {
    "time": "%START_TIME%",
    "source": "%DOWNSTREAM_PEER_URI_SAN%",
    "source_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "destination_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
}
_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQUEST_HEADER(:METHOD)%",
    "authority": "%REQUEST_HEADER(:AUTHORITY)%",
    "path": "%REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "source": "%DOWNSTREAM_PEER_URI_SAN%",
    "source_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "destination_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "request_id": "%REQUEST_HEADER(X-REQUEST-ID)%",
    "response_code": "%RESPONSE_CODE%",
}


def add_security_logs(manager: HttpConnectionManager, security: Security, file: str) -> None:
    """Adds the lines for audited requests and for policies on trial; `file` is the access log's, may be empty."""
    if security.of(AUDIT):
        _add_log(manager.access_log.add(), file, "audit", AUDITED, "allowed")
    for action in (CUSTOM, DENY, ALLOW):
        if security.of(action, dry_run=True):
            prefix = DRY_RUN.format(action.lower())
            _add_log(manager.access_log.add(), file, f"dry-run {action}", prefix, "denied")


def add_connection_logs(add: Callable[[], AccessLog], security: Security, file: str) -> None:
    """Adds the lines for connections: refused ones, audited ones, and those that a policy on trial would refuse."""
    if security.of(DENY) or security.of(ALLOW):
        refused = add()
        config = ExpressionFilter()
        config.expression = f"filter_state['{REFUSED_STATE}'] != ''"
        refused.filter.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
        pack(refused.filter.extension_filter.typed_config, config)
        rule = f"%FILTER_STATE({REFUSED_STATE}:PLAIN)%"
        _write(refused, file, {"security": "refused", "rule": rule, **_OF_CONNECTIONS})
    if security.of(AUDIT):
        _add_log(add(), file, "audit", AUDITED, "allowed", NETWORK_RBAC)
    for action in (CUSTOM, DENY, ALLOW):
        if security.of(action, dry_run=True):
            prefix = DRY_RUN.format(action.lower())
            _add_log(add(), file, f"dry-run {action}", prefix, "denied", NETWORK_RBAC)


def add_explanation(manager: HttpConnectionManager, security: Security) -> None:
    """Adds the headers that say why, for whom a policy names."""
    if not security.explains:
        return
    mapper = manager.local_reply_config.mappers.add()
    _when(mapper.filter, EXPLAINED, "allowed")
    reason = mapper.headers_to_add.add()
    reason.header.key = REASON_HEADER
    reason.header.value = "%RESPONSE_CODE_DETAILS%"
    if allowing := security.of(ALLOW):
        names = mapper.headers_to_add.add()
        names.header.key = ALLOWING_HEADER
        names.header.value = ", ".join(f"{each.policy.namespace}/{each.policy.name}" for each in allowing)


def _add_log(log: AccessLog, file: str, kind: str, prefix: str, result: str, by: str = HTTP_RBAC) -> None:
    _when(log.filter, prefix, result, by)
    rule = f"%DYNAMIC_METADATA({by}:{prefix}shadow_effective_policy_id)%"
    _write(log, file, {"security": kind, "rule": rule, **(_FIELDS if by == HTTP_RBAC else _OF_CONNECTIONS)})


def _write(log: AccessLog, file: str, fields: Mapping[str, str]) -> None:
    log.name = "envoy.access_loggers.file"
    config = FileAccessLog()
    config.path = file or OUTPUT
    config.log_format.json_format.update(fields)
    pack(log.typed_config, config)


def _when(target: AccessLogFilter, prefix: str, result: str, by: str = HTTP_RBAC) -> None:
    matcher = target.metadata_filter.matcher
    matcher.filter = by
    matcher.path.add().key = f"{prefix}shadow_engine_result"
    matcher.value.string_match.exact = result
    target.metadata_filter.match_if_key_not_found.value = False
