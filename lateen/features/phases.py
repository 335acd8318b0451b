"""The HTTP filters of a listener, in the order of their phases.

Each filter is there without doing anything until a route says so, so a change of a rule never changes a listener.
"""

from __future__ import annotations

from functools import cache

from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.features import FEATURES
from lateen.features.encoding import pack
from lateen.features.feature import Direction, HttpFilter, Phase

ROUTER = HttpFilter("envoy.filters.http.router", Router, frozenset(Direction))


@cache
def http_filters(direction: Direction) -> tuple[bytes, ...]:
    """The serialised `HttpFilter` messages of connection managers in that direction, the router last."""
    found = [(each.phase, each.filter) for each in FEATURES if each.phase is not None and each.filter is not None]
    found.append((Phase.ROUTER, ROUTER))
    chosen = [each for _, each in sorted(found, key=lambda item: item[0]) if direction in each.directions]
    return tuple(_encoded(each) for each in chosen)


def _encoded(each: HttpFilter) -> bytes:
    message = hcm.HttpFilter()
    message.name = each.name
    pack(message.typed_config, each.config())
    return message.SerializeToString(deterministic=True)
