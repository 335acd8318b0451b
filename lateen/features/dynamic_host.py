"""Dynamic hosts: a request to a ServiceEntry with resolution DYNAMIC_DNS goes where its own host name leads.

The name is looked up when it is first asked for, without the port that a client may have put behind it: the port is
always the service's, or a request for an allowed name could reach any port of it. An authority that the rule writes
anew is the name that counts.

Source: https://istio.io/latest/docs/reference/config/networking/service-entry/#ServiceEntry-Resolution and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/set_filter_state
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2 import Config
from google.protobuf.any_pb2 import Any

from lateen.engine import Q
from lateen.features.encoding import pack
from lateen.features.feature import Direction, Feature, HttpFilter, Phase, Rule
from lateen.intent.destination import dynamic_port
from lateen.intent.route import DynamicHost

FILTER = "envoy.filters.http.set_filter_state"
HOST_STATE, PORT_STATE = "envoy.upstream.dynamic_host", "envoy.upstream.dynamic_port"
_OWN_NAME = r"%CEL(re.extract(request.host, '^([^:]*)(:[0-9]*)?$', '\\1'))%"
"""The request's host without a port."""


def intent(q: Q, rule: Rule) -> DynamicHost | None:
    """The ports of those destinations of a rule whose names are looked up on demand, None when there is none."""
    ports = tuple(q(dynamic_port, rule.client, each.host, each.port) for each in rule.destinations)
    if not any(ports):
        return None
    rewrite = rule.http.rewrite
    return DynamicHost(ports, (rewrite.authority or "") if rewrite is not None else "")


def envoy(slot: DynamicHost, route: Route) -> None:
    """Writes for each such destination which name and port it stands for."""
    if len(slot.ports) == 1:
        _write(route.typed_per_filter_config[FILTER], slot.ports[0], slot.name)
        return
    for cluster, port in zip(route.route.weighted_clusters.clusters, slot.ports, strict=True):
        if port:
            _write(cluster.typed_per_filter_config[FILTER], port, slot.name)


def name_its_host(route: Route, port: str) -> None:
    """Lets a route stand for the request's own host; `port` may have Envoy's substitutions."""
    _write(route.typed_per_filter_config[FILTER], port, "")


def _write(target: Any, port: int | str, name: str) -> None:
    config = Config()
    set_state(config.on_request_headers.add(), HOST_STATE, name or _OWN_NAME)
    set_state(config.on_request_headers.add(), PORT_STATE, str(port))
    pack(target, config)


def set_state(value: FilterStateValue, key: str, text: str) -> None:
    """Writes one value of filter state; `text` may have Envoy's substitutions."""
    value.object_key = key
    value.format_string.text_format_source.inline_string = text


def words(slot: DynamicHost) -> str:
    """For people."""
    ports = ", ".join(str(each) for each in dict.fromkeys(slot.ports) if each)
    return f"The name {slot.name or 'of the request'} is looked up when it is asked for; the port is {ports}."


FEATURE = Feature(
    "dynamic_host",
    intent,
    envoy,
    words,
    phase=Phase.DESTINATION,
    filter=HttpFilter(FILTER, Config, frozenset({Direction.OUTBOUND, Direction.GATEWAY})),
)
