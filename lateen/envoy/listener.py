"""Listeners (LDS) of a proxy, by name."""

from __future__ import annotations

from lateen.engine import Q
from lateen.envoy.gateway_listener import gateway_listener, gateway_listener_names
from lateen.envoy.inbound_listener import VIRTUAL_INBOUND, opened_listener, opened_listener_names, virtual_inbound
from lateen.envoy.outbound_listener import VIRTUAL_OUTBOUND, outbound_resource, virtual_outbound
from lateen.envoy.resource import Resource
from lateen.envoy.sharing import MESH, OWN, listener_shares
from lateen.intent.outbound import listener_labels, listener_names, own_listener_names
from lateen.intent.scope import Scope
from lateen.model.sharing import anybody, common
from lateen.model.visibility import client_of


def listener_resource_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """All listeners of a proxy."""
    if scope.router:
        return q(gateway_listener_names, scope)
    client = q(client_of, scope.namespace, scope.labels, False)
    outbound = q(own_listener_names if scope.on_demand else listener_names, client)
    return (VIRTUAL_OUTBOUND, VIRTUAL_INBOUND, *q(opened_listener_names, scope), *outbound)


def listener_names_at(q: Q, scope: Scope, level: int) -> tuple[str, ...]:
    """The listeners of a level."""
    if level == OWN:
        return q(gateway_listener_names, scope) if scope.router else (VIRTUAL_INBOUND, *q(opened_listener_names, scope))
    if scope.router:
        return ()
    client = q(client_of, scope.namespace, scope.labels, False)
    outbound = own_listener_names if scope.on_demand else listener_names
    if level == MESH:
        return q(outbound, client)
    alone = q(listener_shares, scope).levels[MESH] == scope
    return (VIRTUAL_OUTBOUND, *(q(outbound, client) if alone else ()))


def listener_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """A listener of a proxy by name, or None when it has none of that name."""
    if scope.router:
        return q(gateway_listener, scope, name)
    if name == VIRTUAL_INBOUND:
        return q(virtual_inbound, scope)
    if name.startswith("inbound_"):
        return q(opened_listener, scope, name)
    client = q(client_of, scope.namespace, scope.labels, False)
    if name == VIRTUAL_OUTBOUND:
        return q(virtual_outbound, client if client.sidecar is not None else anybody(client), scope.on_demand)
    labels = listener_labels(q, client, name, scope.labels) if scope.labels else ()
    return q(outbound_resource, common(q, client), labels, name, scope.on_demand, scope.capabilities.counts)
