"""What a feature is: one behaviour of a route, in three languages, in one file.

A feature reads a rule of the configuration into its slot of the intent (`intent`), puts a filled slot into
Envoy's route (`envoy`), and says it in one plain sentence (`words`). Some need an HTTP filter in the listener
to be there at all; without anything on the route such a filter does nothing. Filters stand in the order of
named phases, never of numbers in configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
from envoy.config.route.v3.route_components_pb2 import Route
from google.protobuf.message import Message

from lateen.api.istio.http_route import HTTPRoute
from lateen.engine import Q
from lateen.intent.route import Destination
from lateen.model.visibility import Client

S = TypeVar("S")


class Direction(enum.StrEnum):
    """Which listener a filter chain belongs to."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    GATEWAY = "gateway"


class Phase(enum.IntEnum):
    """Where an HTTP filter stands; requests pass from the first to the last."""

    FAULT = enum.auto()
    """First of the traffic filters: what is aborted costs nothing behind it."""
    CORS = enum.auto()
    """Answers preflights."""
    DESTINATION = enum.auto()
    """Says where a request goes whose host name decides that."""
    ROUTER = enum.auto()
    """Sends the request; nothing stands behind it."""


@dataclass(frozen=True)
class HttpFilter:
    """An HTTP filter with the configuration that does nothing, and the listeners it is in."""

    name: str
    config: Callable[[], Message]
    directions: frozenset[Direction]


class Rule(msgspec.Struct, frozen=True):
    """A rule of the configuration and where it is read.

    `client` is whom it is read for, `port` where the requests come in, `destinations` are those of `http.route`
    that get any traffic, one for each, in order. Host names in `http` are full.
    """

    http: HTTPRoute
    client: Client
    port: int
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True)
class Feature(Generic[S]):
    """One behaviour. `name` is the name of its slot in `RouteIntent`.

    `forwards`: it is about requests that are sent on, so its slot stays empty on a route that redirects or
    answers by itself. `phase` and `filter` are given together, or neither.
    """

    name: str
    intent: Callable[[Q, Rule], S | None]
    envoy: Callable[[S, Route], None]
    words: Callable[[S], str]
    forwards: bool = True
    phase: Phase | None = None
    filter: HttpFilter | None = None
