"""A small mesh language for tests of the server: objects that are clusters, virtual hosts and listeners outright.

`Toy` objects of kind Cluster, Host and Port become clusters (with one endpoint), virtual hosts of route table
"web", and one HTTP listener; everything a toy can be wrong about, Envoy finds out.
"""

from __future__ import annotations

import msgspec
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from lateen.engine import Index, Q
from lateen.envoy.resource import Resource, ResourceType, resource
from lateen.intent.scope import Proxy, Scope
from lateen.lib.ids import Ref
from tests.envoy.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE

TABLE = "web"


class Toy(msgspec.Struct, frozen=True):
    """`port` of a Cluster is where its endpoint listens, of a Port where Envoy does; `regex` is a Host's path."""

    kind: str
    name: str
    port: int = 0
    cluster: str = ""
    regex: str = "/.*"
    timeout_s: int = 1

    @property
    def ref(self) -> Ref:
        return toy_ref(self.kind, self.name)


def toy_ref(kind: str, name: str) -> Ref:
    return Ref("toys", kind, "", name)


_INDEXES = {
    kind: Index[None, Toy](("toys", kind), lambda _k, _v: (None,), kind) for kind in ("Cluster", "Host", "Port")
}


def _all(q: Q, kind: str) -> tuple[Toy, ...]:
    return q.group(_INDEXES[kind], None)


def scope_of(q: Q, proxy: Proxy) -> Scope:
    return Scope(kind=proxy.kind, namespace=proxy.namespace)


def cluster_names(q: Q, scope: Scope) -> tuple[str, ...]:
    return tuple(each.name for each in _all(q, "Cluster"))


def cluster(q: Q, scope: Scope, name: str) -> Resource | None:
    toy: Toy | None = q.read(toy_ref("Cluster", name))
    if toy is None:
        return None
    made = Cluster(name=name, type=Cluster.EDS)
    made.connect_timeout.seconds = toy.timeout_s
    made.eds_cluster_config.eds_config.ads.SetInParent()
    return resource(name, made.SerializeToString(), (toy.ref,))


def endpoints(q: Q, scope: Scope, name: str) -> Resource | None:
    toy: Toy | None = q.read(toy_ref("Cluster", name))
    if toy is None:
        return None
    made = ClusterLoadAssignment(cluster_name=name)
    where = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    where.address, where.port_value = "127.0.0.1", toy.port
    return resource(name, made.SerializeToString(), (toy.ref,))


def listener_names(q: Q, scope: Scope) -> tuple[str, ...]:
    return tuple(each.name for each in _all(q, "Port"))


def listener(q: Q, scope: Scope, name: str) -> Resource | None:
    toy: Toy | None = q.read(toy_ref("Port", name))
    if toy is None:
        return None
    manager = HttpConnectionManager(stat_prefix="web")
    manager.rds.route_config_name = TABLE
    manager.rds.config_source.ads.SetInParent()
    manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(Router())
    made = Listener(name=name)
    made.address.socket_address.address = "127.0.0.1"
    made.address.socket_address.port_value = toy.port
    made.filter_chains.add().filters.add(name="hcm").typed_config.Pack(manager)
    return resource(name, made.SerializeToString(), (toy.ref,))


def table_names(q: Q, scope: Scope) -> tuple[str, ...]:
    return (TABLE,)


def table(q: Q, scope: Scope, name: str) -> Resource | None:
    if name != TABLE:
        return None
    hosts = _all(q, "Host")
    made = RouteConfiguration(name=name)
    for toy in hosts:
        route = made.virtual_hosts.add(name=toy.name, domains=[toy.name]).routes.add()
        route.match.safe_regex.regex = toy.regex
        if toy.cluster:
            route.route.cluster = toy.cluster
        else:
            route.direct_response.status = 200
            route.direct_response.body.inline_string = toy.name
    return resource(name, made.SerializeToString(), tuple(toy.ref for toy in hosts))


TOYS = (
    ResourceType(CLUSTER, "CDS", True, cluster_names, cluster),
    ResourceType(ENDPOINT, "EDS", False, cluster_names, endpoints),
    ResourceType(LISTENER, "LDS", True, listener_names, listener),
    ResourceType(ROUTE, "RDS", False, table_names, table),
)
