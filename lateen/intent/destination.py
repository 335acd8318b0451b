"""From a destination of a rule to the cluster that stands for it.

A cluster is named `outbound|port|subset|host`. A destination without a port means the only port of its service;
if the service has several, or is not there, the port of the listener. Nothing here asks whether service or
subset exist: a cluster that is not there answers 503, and a finding on the object says why.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Destination
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from lateen.api.istio import http_route as api
from lateen.engine import Q
from lateen.intent.route import Destination
from lateen.model.endpoints import workload_port
from lateen.model.services import Resolution
from lateen.model.visibility import Client, visible


class WeightedRoute(Protocol):
    """A destination of an HTTP, TLS or TCP rule."""

    @property
    def destination(self) -> api.Destination: ...
    @property
    def weight(self) -> int | None: ...


T = TypeVar("T", bound=WeightedRoute)

BLACK_HOLE = "BlackHoleCluster"
"""The cluster without endpoints: what goes there ends there."""
PASSTHROUGH = "PassthroughCluster"
"""The cluster that goes where the client wanted to go."""

BY_NAME = "AllowAnyDynamicDNSCluster"
"""The cluster that goes where the host of a request leads."""


def cluster_name(host: str, port: int, subset: str = "") -> str:
    """The cluster of a service port."""
    return f"outbound|{port}|{subset}|{host}"


def destination(q: Q, client: Client, said: api.Destination, port: int, weight: int = 1) -> Destination:
    """The Destination that a rule (with full host names) means, for a listener on `port`."""
    host = said.host
    number = said.port.number if said.port is not None else None
    if not number:
        number = q(only_port, client, host) or port
    subset = said.subset or ""
    return Destination(cluster_name(host, number, subset), host, number, subset, weight)


def only_port(q: Q, client: Client, host: str) -> int:
    """The number of the only port of a service, 0 when it has several or a client can't see it."""
    found = q(visible, client, host)
    return found.ports[0].number if found is not None and len(found.ports) == 1 else 0


def dynamic_port(q: Q, client: Client, host: str, port: int) -> int:
    """The port to dial behind a service port whose host names are looked up on demand; 0 for any other service."""
    found = q(visible, client, host)
    declared = found.port(port) if found is not None and found.resolution is Resolution.DYNAMIC else None
    return workload_port(declared, {}) if declared is not None else 0


def destinations(q: Q, client: Client, routes: Sequence[WeightedRoute], port: int) -> tuple[Destination, ...]:
    """The Destinations of what `counted` left of a rule's `route`, in order."""
    return tuple(destination(q, client, each.destination, port, each.weight or 1) for each in routes)


def counted(routes: tuple[T, ...]) -> tuple[T, ...]:
    """The destinations that get any traffic: a single one gets all of it whatever its weight, of several those
    with a weight above zero."""
    return routes if len(routes) == 1 else tuple(each for each in routes if (each.weight or 0) > 0)
