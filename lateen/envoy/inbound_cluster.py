"""Clusters that go where a connection was meant to go: out of the mesh, and in to the application.

Source: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/service_discovery#original-destination
"""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster

from lateen.engine import Q
from lateen.envoy.endpoint import ISTIO_METADATA
from lateen.envoy.resource import Resource, resource
from lateen.envoy.traffic_policy import HTTP_OPTIONS, http_options, set_connection_pool
from lateen.features.encoding import pack
from lateen.intent.destination import PASSTHROUGH
from lateen.intent.inbound import InboundPort
from lateen.model.mesh import connect_timeout_s
from lateen.model.protocols import Protocol

INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
INBOUND_SOURCE = "127.0.0.6"
"""Where the proxy dials its own application from; redirection lets this source through."""


def passthrough(q: Q) -> Resource:
    """To the address the application dialled."""
    return resource(PASSTHROUGH, _original(q, PASSTHROUGH).SerializeToString(deterministic=True))


def inbound_passthrough(q: Q) -> Resource:
    """To the port of the workload the client dialled."""
    cluster = _original(q, INBOUND_PASSTHROUGH)
    _dial_as_inbound(cluster)
    return resource(INBOUND_PASSTHROUGH, cluster.SerializeToString(deterministic=True))


def inbound_cluster(q: Q, port: InboundPort) -> Resource:
    """To the application behind a declared port."""
    name = f"inbound|{port.port}||"
    cluster = Cluster()
    cluster.name = name
    if port.endpoint:
        cluster.type = Cluster.STATIC
        cluster.load_assignment.cluster_name = name
        address = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
        if port.endpoint.startswith("unix:"):
            address.pipe.path = port.endpoint.removeprefix("unix:")
        else:
            host, _, number = port.endpoint.rpartition(":")
            address.socket_address.address = host.strip("[]")
            address.socket_address.port_value = int(number)
    else:
        cluster.type = Cluster.ORIGINAL_DST
        cluster.lb_policy = Cluster.CLUSTER_PROVIDED
        if port.rewritten_port:
            cluster.original_dst_lb_config.upstream_port_override.value = port.rewritten_port
        _dial_as_inbound(cluster)
    set_connection_pool(cluster, port.pool, q(connect_timeout_s), None)
    if not port.protocol.is_tcp:
        options = http_options(port.protocol, port.pool, None, upgrade=False, auto_sni=False, auto_san=False)
        pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)
    if port.host:
        metadata = cluster.metadata.filter_metadata[ISTIO_METADATA]
        service = metadata.fields["services"].list_value.values.add().struct_value
        service.fields["host"].string_value = port.host
        service.fields["name"].string_value = port.service
        service.fields["namespace"].string_value = port.namespace
    return resource(name, cluster.SerializeToString(deterministic=True), port.origins)


def _original(q: Q, name: str) -> Cluster:
    cluster = Cluster()
    cluster.name = name
    cluster.type = Cluster.ORIGINAL_DST
    cluster.lb_policy = Cluster.CLUSTER_PROVIDED
    set_connection_pool(cluster, None, q(connect_timeout_s), None)
    options = http_options(Protocol.AUTO, None, None, upgrade=False, auto_sni=False, auto_san=False)
    pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)
    return cluster


def _dial_as_inbound(cluster: Cluster) -> None:
    cluster.upstream_bind_config.source_address.address = INBOUND_SOURCE
    cluster.upstream_bind_config.source_address.port_value = 0
