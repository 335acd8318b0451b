"""Virtual hosts one by one (VHDS), for proxies that ask for what their workload calls.

A virtual host is named `TABLE/HOST`, as is the message in it: Envoy removes by that name. It says which clusters it
sends to, so that they are there before it, and which other hosts a wildcard of its hides from the proxy's questions.
A name that nobody has gets a virtual host too: a request without an answer would wait for ever.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/other_features/vhds
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import VirtualHost

from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.route import routed_for, sidecar_routes, unknown_routes
from lateen.envoy.virtual_host import encoded_virtual_host
from lateen.intent.on_demand import (
    SEPARATOR,
    asking,
    below,
    find_host,
    hosting,
    spare_wildcard,
    split_name,
    table_host,
    without_port,
)
from lateen.intent.route_table import ServiceHost, unknown_requests
from lateen.intent.scope import Scope
from lateen.model.hosts import is_wildcard
from lateen.model.visibility import Client, client_of
from lateen.model.workloads import Labels


def virtual_host_names(_q: Q, _scope: Scope) -> tuple[str, ...]:
    """None: virtual hosts are given to those who ask."""
    return ()


def virtual_host_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """A virtual host by its name; None for the name of something else."""
    if (parts := split_name(name)) is None:
        return None
    port, host = parts
    client = hosting(q, q(client_of, scope.namespace, scope.labels, scope.router), host)
    entry = q(table_host, client, host, port)
    if entry is not None:
        hidden = q(below, client, entry) if any(map(is_wildcard, entry.domains)) else ()
        if (found := q(known_host, *routed_for(q, client, scope.labels, entry), entry, hidden)) is not None:
            return found
    return q(unknown_host, q(unknown_requests, client, port), port, host)


def canonical_name(q: Q, scope: Scope, asked: str) -> str:
    """The name of the virtual host that answers to a name that was asked for."""
    if (parts := split_name(asked)) is None:
        return asked
    port, host = parts[0], without_port(parts[1])
    client = q(client_of, scope.namespace, scope.labels, scope.router)
    found = q(find_host, asking(q, client, host), port, host) or q(spare_wildcard, client, port, host)
    return f"{port}{SEPARATOR}{found or host}"


def known_host(q: Q, client: Client, labels: Labels, entry: ServiceHost, hidden: tuple[str, ...]) -> Resource | None:
    """The virtual host of a service, or of a name of a VirtualService; None for a name without routes. `hidden` are the
    hosts that a wildcard of it keeps the proxy from asking for."""
    found = q(sidecar_routes, client, labels, entry.host, entry.port, entry.virtual_service)
    if not found.body:
        return None
    name = f"{entry.port}{SEPARATOR}{entry.host}"
    body = encoded_virtual_host(name, entry.domains, found.body)
    together = tuple(f"{entry.port}{SEPARATOR}{each}" for each in hidden)
    return resource(name, body, found.origins, found.clusters, together)


def unknown_host(q: Q, cluster: str, port: int, host: str) -> Resource:
    """The virtual host for a name nobody knows, whose requests go to a cluster."""
    name = f"{port}{SEPARATOR}{host}"
    return resource(name, encoded_virtual_host(name, (host,), q(unknown_routes, cluster)))


def refusing(made: Resource) -> Resource:
    """In place of a virtual host that Envoy does not take: the same names, answered with 500."""
    host = VirtualHost.FromString(made.body)
    del host.routes[:]
    route = host.routes.add()
    route.match.prefix = "/"
    route.direct_response.status = 500
    return resource(
        made.name, VirtualHost(name=host.name, domains=host.domains, routes=host.routes).SerializeToString()
    )
