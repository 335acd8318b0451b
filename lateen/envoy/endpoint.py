"""Endpoint assignments (EDS): one resource per cluster, joined from encoded localities.

The localities of a service port and subset are encoded once and shared by all clients that have no locality
setting. A readiness change encodes the localities of one port again, and changes the assignments of that port's
clusters and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3.address_pb2 import Address
from envoy.config.core.v3.health_check_pb2 import HEALTHY
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from lateen.api.core.pod import Pod
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.virtual_host import field
from lateen.intent.cluster import OutboundCluster, Transport, outbound_cluster, outbound_of, sharing
from lateen.intent.inbound import peers
from lateen.intent.locality import Group, Whereabouts, by_place, by_preference, by_zone, preference_of
from lateen.intent.scope import MeshGateway, Scope
from lateen.lib.ids import OWN_CLUSTER, Ref
from lateen.lib.names import UNIX_PREFIX
from lateen.model.endpoints import Endpoint, endpoints
from lateen.model.hosts import is_address
from lateen.model.services import Resolution
from lateen.model.visibility import Client, client_of
from lateen.model.workloads import Labels, Locality

MATCH_METADATA = "envoy.transport_socket_match"
ISTIO_METADATA = "istio"
CLUSTER_ID = "Kubernetes"
_ENDPOINTS = 2
"""The number of the field `ClusterLoadAssignment.endpoints`."""


def endpoint_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """The assignment of a cluster for a proxy; None when the cluster has none or isn't there."""
    if name == OWN_CLUSTER:
        return q(own_assignment, scope)
    ordinary = outbound_of(name) or name
    client = sharing(q, q(client_of, scope.namespace, scope.labels, scope.router), ordinary)
    locality, labels, node = q(_facets, client, ordinary)
    where = Whereabouts(
        scope.locality if locality else Locality(), scope.labels if labels else (), scope.node if node else ""
    )
    return q(assignment, client, name, ordinary, where, scope.capabilities.mesh_gateway)


def own_assignment(q: Q, scope: Scope) -> Resource:
    """The proxies that are like this one, as endpoints: those of the first service that it serves, else the Pods with
    its labels. Zone-aware balancing compares their zones with those of the endpoints."""
    message = ClusterLoadAssignment()
    message.cluster_name = OWN_CLUSTER
    for group in by_zone(scope.locality, q(peers, scope)):
        message.endpoints.append(locality_endpoints(group, Transport.PLAIN))
    return resource(OWN_CLUSTER, message.SerializeToString())


def assignment(
    q: Q, client: Client, name: str, ordinary: str, where: Whereabouts, gateway: MeshGateway | None = None
) -> Resource | None:
    """The assignment of a cluster for a client; `ordinary` is the cluster whose endpoints it has, `where` is empty as
    far as it doesn't matter. Through a `gateway` go those whose clients are in another network than Pods."""
    cluster = q(outbound_cluster, client, ordinary)
    if cluster is None or cluster.resolution is not Resolution.ENDPOINTS:
        return None
    head = ClusterLoadAssignment()
    head.cluster_name = name
    preference = preference_of(q, cluster)
    found = members(q, cluster)
    if cluster.node_local:
        found = tuple(each for each in found if each.node == where.node)
    if gateway is None and preference is None and not cluster.node_local:
        secured = cluster.transport is Transport.AUTO
        body = q(shared_localities, cluster.source, cluster.source_host, cluster.source_port, cluster.labels, secured)
    else:
        listed = found if gateway is None else through(gateway, found, cluster.transport)
        groups = by_place(listed) if preference is None else by_preference(preference, where, listed)
        body = encoded(groups, cluster.transport)
    entries = [each.source for each in found if each.source is not None and each.source.kind == WorkloadEntry.KIND]
    return resource(name, head.SerializeToString() + body, (*cluster.origins, *entries))


def through(gateway: MeshGateway, found: Iterable[Endpoint], transport: Transport) -> tuple[Endpoint, ...]:
    """Endpoints as a client sees them that reaches Pods by a gateway alone: all Pods that take mutual TLS are one
    endpoint there, with the weight of them all. The others cannot be reached."""
    secured = transport in (Transport.AUTO, Transport.MESH)
    inside = [each for each in found if each.source is not None and each.source.kind == Pod.KIND]
    outside = tuple(each for each in found if each not in inside)
    pods = [each for each in inside if secured and (each.tls or transport is Transport.MESH)]
    if not pods:
        return outside
    weight = sum(max(each.weight, 1) for each in pods)
    at_gateway = Endpoint(
        address=gateway.host, port=gateway.port, locality=pods[0].locality, weight=weight, tls=True, source=None
    )
    return (*outside, at_gateway)


def shared_localities(q: Q, ref: Ref, host: str, port: int, labels: Labels, secured: bool) -> bytes:
    """The encoded localities of a service port and subset; `secured` says which endpoints take mutual TLS."""
    found = _selected(q(endpoints, ref, host, port), labels)
    return encoded(by_place(each for each in found if _reachable(each)), Transport.AUTO if secured else Transport.PLAIN)


def members(q: Q, cluster: OutboundCluster) -> tuple[Endpoint, ...]:
    """The endpoints of a cluster, of its subset's labels."""
    found = _selected(q(endpoints, cluster.source, cluster.source_host, cluster.source_port), cluster.labels)
    if cluster.resolution is Resolution.ENDPOINTS:
        return tuple(each for each in found if _reachable(each))
    return found


def encoded(groups: tuple[Group, ...], transport: Transport) -> bytes:
    """The `endpoints` fields of an assignment, encoded."""
    return b"".join(field(_ENDPOINTS, locality_endpoints(each, transport).SerializeToString()) for each in groups)


def locality_endpoints(group: Group, transport: Transport) -> LocalityLbEndpoints:
    """One locality as a message."""
    message = LocalityLbEndpoints()
    place = group.locality
    message.locality.region = place.region
    message.locality.zone = place.zone
    message.locality.sub_zone = place.subzone
    message.load_balancing_weight.value = max(group.weight, 1)
    message.priority = group.priority
    for each in group.endpoints:
        _set_endpoint(message.lb_endpoints.add(), each, transport)
    return message


def set_address(address: Address, host: str, port: int) -> None:
    """Writes an IP or name with a port, or `unix://PATH`."""
    if host.startswith(UNIX_PREFIX):
        address.pipe.path = host.removeprefix(UNIX_PREFIX)
    else:
        address.socket_address.address = host
        address.socket_address.port_value = port


def _set_endpoint(message: LbEndpoint, endpoint: Endpoint, transport: Transport) -> None:
    set_address(message.endpoint.address, endpoint.address, endpoint.port)
    message.health_status = HEALTHY
    message.load_balancing_weight.value = max(endpoint.weight, 1)
    if endpoint.workload:
        parts = (
            endpoint.workload,
            endpoint.namespace,
            endpoint.canonical_name,
            endpoint.canonical_revision,
            CLUSTER_ID,
        )
        message.metadata.filter_metadata[ISTIO_METADATA].fields["workload"].string_value = ";".join(parts)
    if endpoint.tls and transport is Transport.AUTO:
        message.metadata.filter_metadata[MATCH_METADATA].fields["tlsMode"].string_value = "istio"


def _facets(q: Q, client: Client, name: str) -> tuple[bool, bool, bool]:
    """Whether a cluster's assignment depends on the client's locality, on its labels, and on its node."""
    cluster = q(outbound_cluster, client, name)
    if cluster is None:
        return False, False, False
    preference = preference_of(q, cluster)
    if preference is None:
        return False, False, cluster.node_local
    return True, bool(preference.labels), cluster.node_local or preference.by_node


def _selected(found: tuple[Endpoint, ...], labels: Labels) -> tuple[Endpoint, ...]:
    return tuple(each for each in found if set(labels) <= set(each.labels)) if labels else found


def _reachable(endpoint: Endpoint) -> bool:
    return endpoint.address.startswith(UNIX_PREFIX) or is_address(endpoint.address)
