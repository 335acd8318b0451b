"""Hash policy: requests that are alike in one part (a header, a cookie, a query parameter, the client's address)
go to the same endpoint, as long as the endpoints stay the same.

The DestinationRule of the destination decides it (`trafficPolicy.loadBalancer.consistentHash`); the route has to
say which part of a request is looked at, and the cluster hashes it.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route

from lateen.api.istio.load_balancer import ConsistentHashLB
from lateen.engine import Q
from lateen.features.encoding import set_seconds
from lateen.features.feature import Feature, Rule
from lateen.intent.policy import effective_policy
from lateen.intent.route import Hash, HashPolicy, HashSource
from lateen.model.destination_rules import destination_rule
from lateen.model.visibility import Client, visible


def intent(q: Q, rule: Rule) -> HashPolicy | None:
    """What the DestinationRules of all destinations look at, or None when none hashes."""
    parts = [
        part
        for each in rule.destinations
        if (part := q(destination_hash, rule.client, each.host, each.port, each.subset)) is not None
    ]
    return HashPolicy(tuple(dict.fromkeys(parts))) if parts else None


def destination_hash(q: Q, client: Client, host: str, port: int, subset: str) -> Hash | None:
    """The part of a request that decides the endpoint at a destination, or None."""
    service = q(visible, client, host)
    sticky = service is not None and service.sticky
    balancer = effective_policy(q, q(destination_rule, client, host), subset, port, sticky=sticky).load_balancer
    return _hash(balancer.consistent_hash) if balancer is not None else None


def _hash(said: ConsistentHashLB | None) -> Hash | None:
    if said is None:
        return None
    if said.http_header_name:
        return Hash(HashSource.HEADER, said.http_header_name)
    if (cookie := said.http_cookie) is not None:
        attributes = tuple((each.name, each.value or "") for each in cookie.attributes)
        ttl_s = cookie.ttl.seconds if cookie.ttl is not None else None
        return Hash(HashSource.COOKIE, cookie.name, cookie.path or "", ttl_s, attributes)
    if said.http_query_parameter_name:
        return Hash(HashSource.QUERY, said.http_query_parameter_name)
    return Hash(HashSource.SOURCE_IP) if said.use_source_ip else None


def envoy(slot: HashPolicy, route: Route) -> None:
    """Writes what is hashed on a route that forwards."""
    for part in slot.parts:
        policy = route.route.hash_policy.add()
        match part.source:
            case HashSource.HEADER:
                policy.header.header_name = part.name
            case HashSource.QUERY:
                policy.query_parameter.name = part.name
            case HashSource.SOURCE_IP:
                policy.connection_properties.source_ip = True
            case HashSource.COOKIE:
                policy.cookie.name = part.name
                policy.cookie.path = part.path
                if part.ttl_s is not None:
                    set_seconds(policy.cookie.ttl, part.ttl_s)
                for name, value in part.attributes:
                    attribute = policy.cookie.attributes.add()
                    attribute.name = name
                    attribute.value = value


def words(slot: HashPolicy) -> str:
    """For people."""
    parts = " and ".join(f"{each.source} {each.name}".rstrip() for each in slot.parts)
    return f"Requests with the same {parts} go to the same endpoint."


FEATURE = Feature("hash_policy", intent, envoy, words)
