"""Virtual hosts as Envoy's: routes of the intent in, encoded fragments out.

A virtual host is the largest thing that is built as messages. Its routes are encoded once (`routes` fragments);
names, which depend on the table it stands in, are put before them as bytes: repeated and separate fields of a
protobuf message concatenate, in the order of their numbers byte for byte what protobuf itself writes.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as pb

from lateen.envoy.matchers import set_match
from lateen.features import FEATURES
from lateen.intent.route import RouteIntent, Routes
from lateen.lib.ids import Ref

METADATA = "istio"
"""Where a route says which object it comes from, as Istio's proxies and consoles know it."""


def encoded_routes(routes: Routes) -> bytes:
    """Everything of a VirtualHost message but name and domains."""
    host = pb.VirtualHost()
    for each in routes.routes:
        set_route(host.routes.add(), each)
    if routes.https_only:
        host.require_tls = pb.VirtualHost.ALL
    host.include_request_attempt_count = True
    return host.SerializeToString(deterministic=True)


def encoded_virtual_host(name: str, domains: tuple[str, ...], routes: bytes) -> bytes:
    """A whole VirtualHost message."""
    host = pb.VirtualHost()
    host.name = name
    host.domains.extend(domains)
    return host.SerializeToString() + routes


def field(number: int, body: bytes) -> bytes:
    """A message as a field of the message around it: tag, length, bytes. Field numbers up to 15."""
    head = bytearray([number << 3 | 2])
    length = len(body)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def set_route(target: pb.Route, route: RouteIntent) -> None:
    """Writes one route: match, destinations, and what each feature has to say."""
    target.name = route.name
    set_match(target.match, route.match)
    if len(route.destinations) == 1:
        target.route.cluster = route.destinations[0].cluster
    else:
        for each in route.destinations:
            cluster = target.route.weighted_clusters.clusters.add()
            cluster.name = each.cluster
            cluster.weight.value = each.weight
    for feature in FEATURES:
        slot = getattr(route, feature.name)
        if slot is not None:
            feature.envoy(slot, target)
    if route.operation:
        target.decorator.operation = route.operation
    target.stat_prefix = route.stat_prefix
    if route.source is not None:
        target.metadata.filter_metadata[METADATA].fields["config"].string_value = config_path(route.source)


def config_path(ref: Ref) -> str:
    """An object as Istio writes it into metadata."""
    kind = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in ref.kind).lstrip("-")
    return f"/apis/{ref.group}/v1/namespaces/{ref.namespace}/{kind}/{ref.name}"
