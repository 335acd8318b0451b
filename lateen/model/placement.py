"""Of which hosts the endpoints are in an order that depends on the client: on its place, or on its labels and node too.

A set that is quickly read: what is not in it certainly has one order for everybody. Read from indexes over the few
objects that can ask for an order, so endpoints that come and go change nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lateen.api.core.namespace import Namespace
from lateen.api.core.service import Service
from lateen.api.istio.destination_rule import DestinationRule, PortTrafficPolicy, TrafficPolicy
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import in_namespace, ref_of
from lateen.engine import Index, Q
from lateen.lib.ids import Ref
from lateen.model.distribution import ANNOTATION
from lateen.model.hosts import HostSet, host_set, resolve, service_host
from lateen.model.mesh import default_traffic_policy, domain, locality_setting, zone_aware_setting
from lateen.model.services import services_in
from lateen.model.sharing import aliases_of


class Placement(msgspec.Struct, frozen=True, cache_hash=True):
    """Hosts whose endpoints are ordered by the client's place (`placed`), and by its labels or node (`labelled`)."""

    placed: HostSet = HostSet()
    labelled: HostSet = HostSet()


def placement(q: Q) -> Placement:
    """The hosts whose order depends on the client."""
    cluster_domain = q(domain)
    zones, setting, (_, outlier) = q(zone_aware_setting), q(locality_setting), q(default_traffic_policy)
    ordered = zones is not None and zones.enabled
    everywhere = outlier is not None or ordered or (setting is not None and bool(setting.distribute))
    by_labels = any(each is not None and each.failover_priority for each in (zones, setting))
    rules = {
        asks: {resolve(each.spec.host, each.namespace, cluster_domain) for each in q.group(_RULES, asks)}
        for asks in ("place", "labels")
    }
    near = {service_host(each.name, each.namespace, cluster_domain) for each in q.group(_SERVICES, True)}
    near.update(host.lower() for each in q.group(_ENTRIES, True) for host in each.spec.hosts)
    for each in q.group(_NAMESPACES, True):
        near.update(q(services_in, each.name))
        near.update(host.lower() for found in in_namespace(q, ServiceEntry, each.name) for host in found.spec.hosts)
    placed = HostSet(whole=True) if everywhere else host_set(rules["place"] | rules["labels"])
    labelled = placed if by_labels else host_set(rules["labels"] | near)
    if not labelled.empty and not labelled.whole:
        labelled = msgspec.structs.replace(labelled, exact=labelled.exact | aliases_of(q, labelled))
    return Placement(placed, labelled)


def _asks(_key: Ref, found: DestinationRule) -> Iterable[str]:
    levels = [found.spec.traffic_policy, *(each.traffic_policy for each in found.spec.subsets)]
    policies = [part for each in levels if each is not None for part in (each, *each.port_level_settings)]
    return {each for policy in policies for each in _asked(policy)}


def _asked(policy: TrafficPolicy | PortTrafficPolicy) -> Iterable[str]:
    balancer = policy.load_balancer
    settings = (balancer.locality_lb_setting, balancer.zone_aware_lb_setting) if balancer is not None else ()
    said = [each for each in settings if each is not None]
    if any(each.failover_priority for each in said):
        yield "labels"
    elif said or policy.outlier_detection is not None:
        yield "place"


def _near(_key: Ref, found: Service) -> Iterable[bool]:
    spec = found.spec
    says = ANNOTATION in found.metadata.annotations or bool(spec.traffic_distribution)
    return [True] if says or spec.internal_traffic_policy == "Local" else []


def _annotated(_key: Ref, found: ServiceEntry | Namespace) -> Iterable[bool]:
    return [True] if ANNOTATION in found.metadata.annotations else []


_RULES: Index[str, DestinationRule] = Index(
    ref_of(DestinationRule, "", "").collection, _asks, "DestinationRule by what its order depends on"
)
_SERVICES: Index[bool, Service] = Index(ref_of(Service, "", "").collection, _near, "Service by near endpoints")
_ENTRIES: Index[bool, ServiceEntry] = Index(
    ref_of(ServiceEntry, "", "").collection, _annotated, "ServiceEntry by near endpoints"
)
_NAMESPACES: Index[bool, Namespace] = Index(
    ref_of(Namespace, "", "").collection, _annotated, "Namespace by near endpoints"
)
