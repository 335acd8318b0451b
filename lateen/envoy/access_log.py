"""The access log of the proxies: one line per request or connection, in Istio's text format or as JSON.

Source: https://istio.io/latest/docs/tasks/observability/logs/access-log/
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog as Message
from envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from google.protobuf.struct_pb2 import Struct

from lateen.features.encoding import pack
from lateen.model.mesh import AccessLog

FILE_LOGGER = "envoy.access_loggers.file"

_FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQUEST_HEADER(:METHOD)%",
    "path": "%REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESPONSE_HEADER(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQUEST_HEADER(X-FORWARDED-FOR)%",
    "user_agent": "%REQUEST_HEADER(USER-AGENT)%",
    "request_id": "%REQUEST_HEADER(X-REQUEST-ID)%",
    "authority": "%REQUEST_HEADER(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
_QUOTED = frozenset(
    {
        "upstream_transport_failure_reason",
        "x_forwarded_for",
        "user_agent",
        "request_id",
        "authority",
        "upstream_host",
    }
)


def default_text() -> str:
    """Istio's text format: request line, outcome, sizes and times, then who talked to whom."""
    parts = ["[%START_TIME%]"]
    names = list(_FIELDS)
    request = " ".join(_FIELDS[each] for each in ("method", "path", "protocol"))
    parts.append(f'"{request}"')
    parts += [f'"{_FIELDS[each]}"' if each in _QUOTED else _FIELDS[each] for each in names[4:]]
    return " ".join(parts) + "\n"


def add_access_log(add: Callable[[], Message], settings: AccessLog, *, unanswered_only: bool = False) -> None:
    """Adds the log to a listener or filter; nothing without a file. `unanswered_only`: just connections that no
    filter chain took."""
    if not settings.file:
        return
    message = add()
    message.name = FILE_LOGGER
    if unanswered_only:
        message.filter.response_flag_filter.flags.append("NR")
    log = FileAccessLog()
    log.path = settings.file
    if settings.json:
        log.log_format.json_format.CopyFrom(_json_format(settings.format))
    else:
        log.log_format.text_format_source.inline_string = settings.format or default_text()
    pack(message.typed_config, log)


def _json_format(said: str) -> Struct:
    """The fields of a JSON format as written, or the default ones when it isn't an object of texts."""
    try:
        fields = msgspec.json.decode(said, type=dict[str, str]) if said else _FIELDS
    except msgspec.MsgspecError:
        fields = _FIELDS
    written = Struct()
    written.update(fields)
    return written
