"""The HTTP connection manager: what inbound, outbound and gateway listeners have in common and where they differ.

Outbound and gateway managers take their route table by RDS, inbound ones carry it. HTTP filters come from the
features, in the order of their phases. A gateway is the first hop: it uses the client's address and writes
`x-forwarded-client-cert` anew; an inbound manager appends who called to it.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto
"""

from __future__ import annotations

from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.grpc_web.v3.grpc_web_pb2 import GrpcWeb
from envoy.extensions.filters.http.on_demand.v3.on_demand_pb2 import OnDemand
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)

from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
from lateen.envoy.request_counts import add_request_counts
from lateen.envoy.security_filters import add_http_security
from lateen.envoy.sources import CLUSTER_TIMEOUT_S, set_ads
from lateen.features.encoding import pack
from lateen.features.feature import Direction
from lateen.features.phases import http_filters
from lateen.intent.security import Security
from lateen.model.mesh import access_log, path_normalization, trusted_proxies

MANAGER = "envoy.filters.network.http_connection_manager"
SERVER_NAME = "istio-envoy"
ON_DEMAND = "envoy.filters.http.on_demand"
CLIENT_TIMEOUT_S = 10
"""How long a client of a gateway may take for a handshake, and for the head of a request."""
STREAMS = 1000
"""How many requests at a time one HTTP/2 connection of a gateway's client may have; Envoy's own limit is 2^31."""
SILENCE_S = 3600
"""How long a request at a gateway may be without a byte in either direction; Envoy's own limit for idle connections."""


def http_manager(
    q: Q,
    direction: Direction,
    stat_prefix: str,
    table: str | RouteConfiguration,
    *,
    tls: bool = False,
    http3: bool = False,
    grpc_web: bool = False,
    security: Security | None = None,
    on_demand: bool = False,
    counts: bool = False,
) -> Filter:
    """A manager as a network filter; `table` is the name of a route table or the table itself.

    `tls`: the client's certificate is known here. `http3`: it is QUIC. `grpc_web`: browsers' gRPC-Web is turned into
    gRPC. `security`: the policies that requests are held to, before anything else is done with them. `on_demand`:
    virtual hosts and clusters that are not there are asked for. `counts`: the proxy counts its requests per service.
    """
    manager = HttpConnectionManager()
    manager.stat_prefix = stat_prefix
    if isinstance(table, str):
        manager.rds.route_config_name = table
        set_ads(manager.rds.config_source)
    else:
        manager.route_config.CopyFrom(table)
    if http3:
        manager.codec_type = HttpConnectionManager.HTTP3
        manager.http3_protocol_options.SetInParent()
    else:
        manager.codec_type = HttpConnectionManager.AUTO
    if on_demand:  # before all others: they would not see what the virtual host has for them
        manager.http_filters.append(_on_demand())
    if security is not None:
        add_http_security(manager, security, q(access_log).file, reroutes=direction is Direction.GATEWAY)
    if grpc_web:
        translated = manager.http_filters.add()
        translated.name = "envoy.filters.http.grpc_web"
        pack(translated.typed_config, GrpcWeb())
    for encoded in http_filters(direction):
        manager.http_filters.add().ParseFromString(encoded)
    manager.server_name = SERVER_NAME
    manager.stream_idle_timeout.SetInParent()  # long polls and idle streams are the application's affair
    if direction is Direction.GATEWAY:
        manager.request_headers_timeout.seconds = CLIENT_TIMEOUT_S
        manager.stream_idle_timeout.seconds = SILENCE_S
        manager.http2_protocol_options.max_concurrent_streams.value = STREAMS
    manager.use_remote_address.value = direction is Direction.GATEWAY
    _normalise(manager, q(path_normalization))
    manager.upgrade_configs.add().upgrade_type = "websocket"
    if direction is Direction.GATEWAY:
        manager.xff_num_trusted_hops = q(trusted_proxies)
        manager.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
        _set_client_details(manager)
    elif direction is Direction.INBOUND:
        manager.forward_client_cert_details = (
            HttpConnectionManager.APPEND_FORWARD if tls else HttpConnectionManager.SANITIZE
        )
        if tls:
            _set_client_details(manager)
    add_access_log(manager.access_log.add, q(access_log))
    if counts:
        add_request_counts(manager.access_log.add)
    message = Filter()
    message.name = MANAGER
    pack(message.typed_config, manager)
    return message


def _on_demand() -> HttpFilter:
    config = OnDemand()
    set_ads(config.odcds.source)
    config.odcds.timeout.seconds = CLUSTER_TIMEOUT_S
    message = HttpFilter()
    message.name = ON_DEMAND
    pack(message.typed_config, config)
    return message


def _set_client_details(manager: HttpConnectionManager) -> None:
    details = manager.set_current_client_cert_details
    details.subject.value = True
    details.uri = True
    details.dns = True


def _normalise(manager: HttpConnectionManager, how: str) -> None:
    if how == "NONE":
        return
    manager.normalize_path.value = True
    if how in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        manager.merge_slashes = True
    if how == "DECODE_AND_MERGE_SLASHES":
        manager.path_with_escaped_slashes_action = HttpConnectionManager.UNESCAPE_AND_FORWARD
