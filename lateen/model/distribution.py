"""What a Service says about which of its endpoints a client gets: near ones, those of its node, the same ones.

`trafficDistribution` (the field, the annotation of the Service or ServiceEntry, that of the namespace) prefers
endpoints of the client's zone or node while there are any. `internalTrafficPolicy: Local` gives the endpoints of the
client's node only, and nobody when there are none. `sessionAffinity: ClientIP` lets a client stay with its endpoint.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lateen.api.core.namespace import Namespace
from lateen.api.core.service import Service
from lateen.api.istio.destination_rule import DestinationRule, TrafficPolicy
from lateen.api.istio.load_balancer import LoadBalancerSettings
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import get, ref_of
from lateen.engine import Index, Q
from lateen.lib.ids import Ref

ANNOTATION = "networking.istio.io/traffic-distribution"
HOSTNAME = "kubernetes.io/hostname"
KNOWN = {"preferclose": "zone", "prefersamezone": "zone", "prefersamenode": "node"}
"""Values of the field and the annotation in lower case: what is to be the same. `PreferClose` is the older name."""


def distribution(q: Q, namespace: str, said: str | None, annotations: Mapping[str, str]) -> str:
    """`zone`, `node`, or empty for no preference."""
    if said is None and ANNOTATION not in annotations:
        return q(_namespace_distribution, namespace)
    return KNOWN.get((said or annotations[ANNOTATION]).lower(), "")


def nodes_matter(q: Q) -> bool:
    """True when any object asks for endpoints of the client's node."""
    return bool(
        q.group(_SERVICES, True) or q.group(_ENTRIES, True) or q.group(_NAMESPACES, True) or q.group(_RULES, True)
    )


def _namespace_distribution(q: Q, namespace: str) -> str:
    found = get(q, Namespace, "", namespace)
    return KNOWN.get(found.metadata.annotations.get(ANNOTATION, "").lower(), "") if found is not None else ""


def _annotated(annotations: Mapping[str, str]) -> bool:
    return KNOWN.get(annotations.get(ANNOTATION, "").lower()) == "node"


def _service(_: Ref, value: Service) -> Iterable[bool]:
    spec = value.spec
    local = spec.internal_traffic_policy == "Local" or spec.traffic_distribution == "PreferSameNode"
    return [True] if local or _annotated(value.metadata.annotations) else []


def _other(_: Ref, value: ServiceEntry | Namespace) -> Iterable[bool]:
    return [True] if _annotated(value.metadata.annotations) else []


def _rule(_: Ref, value: DestinationRule) -> Iterable[bool]:
    policies = [value.spec.traffic_policy, *(each.traffic_policy for each in value.spec.subsets)]
    balancers = [each for policy in policies if policy is not None for each in _balancers(policy)]
    return [True] if any(_by_hostname(each) for each in balancers) else []


def _balancers(policy: TrafficPolicy) -> Iterable[LoadBalancerSettings]:
    every = (policy.load_balancer, *(each.load_balancer for each in policy.port_level_settings))
    return (each for each in every if each is not None)


def _by_hostname(balancer: LoadBalancerSettings) -> bool:
    settings = (balancer.locality_lb_setting, balancer.zone_aware_lb_setting)
    return any(each.partition("=")[0] == HOSTNAME for said in settings if said for each in said.failover_priority)


_SERVICES: Index[bool, Service] = Index(ref_of(Service, "", "").collection, _service, "Service by need of nodes")
_ENTRIES: Index[bool, ServiceEntry] = Index(
    ref_of(ServiceEntry, "", "").collection, _other, "ServiceEntry by need of nodes"
)
_NAMESPACES: Index[bool, Namespace] = Index(ref_of(Namespace, "", "").collection, _other, "Namespace by need of nodes")
_RULES: Index[bool, DestinationRule] = Index(
    ref_of(DestinationRule, "", "").collection, _rule, "DestinationRule by need of nodes"
)
