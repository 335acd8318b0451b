"""Which endpoints a client prefers by where they are: failover by locality or labels, shares, or zones by their size.

Failover needs outlier detection (nothing else would notice that the near endpoints are bad); a distribution does
not, and neither do zone-aware balancing and the `trafficDistribution` of a Service: there the endpoints that are not
ready are gone. Only clusters with such a preference depend on where the client is; all others are shared.

Zone-aware balancing leaves the choice among the zones of the client's region to Envoy, which compares how many
endpoints each zone has with how many clients: the latter are the endpoints of the proxy's own cluster
(`lateen.envoy.endpoint`). Other regions come after.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting and
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from lateen.api.istio.load_balancer import Distribute, Failover
from lateen.engine import Q
from lateen.intent.cluster import OutboundCluster
from lateen.model.endpoints import Endpoint
from lateen.model.mesh import locality_setting, zone_aware_setting
from lateen.model.workloads import Labels, Locality

REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
SUBZONE = "topology.istio.io/subzone"
NETWORK = "topology.istio.io/network"
HOSTNAME = "kubernetes.io/hostname"
MIN_CLUSTER_SIZE: Final = 6
"""How many endpoints zone-aware balancing takes, unless told otherwise."""

_NEAR: Final = {"zone": (REGION, ZONE), "node": (REGION, ZONE, HOSTNAME)}
"""The labels that decide the order for each `trafficDistribution`."""


class Whereabouts(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a client is and what it is labelled; empty where it doesn't matter."""

    locality: Locality = Locality()
    labels: Labels = ()
    node: str = ""


class Preference(msgspec.Struct, frozen=True):
    """What is preferred. Without shares and labels it is the nearer places. `zones`: the least number of endpoints in
    the client's region that zone-aware balancing begins with; 0: it is off."""

    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    labels: tuple[str, ...] = ()
    zones: int = 0

    @property
    def weighted(self) -> bool:
        """True when the groups have weights that count."""
        return not self.zones

    @property
    def by_node(self) -> bool:
        """True when the client's node decides anything."""
        return HOSTNAME in self.labels


class Group(msgspec.Struct, frozen=True):
    """Endpoints of one locality that take traffic together: priority 0 first, by weight within a priority."""

    locality: Locality
    priority: int
    weight: int
    endpoints: tuple[Endpoint, ...]


def preference_of(q: Q, cluster: OutboundCluster) -> Preference | None:
    """The preference in force for a cluster, or None when where endpoints are doesn't matter.

    The DestinationRule counts before the Service, which counts before the mesh.
    """
    balancer, detects = cluster.policy.load_balancer, cluster.policy.outlier_detection is not None
    zones = balancer.zone_aware_lb_setting if balancer is not None else None
    setting = balancer.locality_lb_setting if balancer is not None else None
    if zones is None and setting is None:
        if cluster.distribution:
            return Preference(labels=_NEAR[cluster.distribution])
        zones, setting = q(zone_aware_setting), q(locality_setting)
    if zones is not None and zones.enabled:
        return Preference((), zones.failover, zones.failover_priority, zones.min_cluster_size or MIN_CLUSTER_SIZE)
    if setting is None:
        # Outlier detection alone turns failover on.
        return Preference() if detects else None
    if setting.enabled is False or not (setting.distribute or detects):
        return None
    return Preference(setting.distribute, setting.failover, setting.failover_priority)


def by_place(endpoints: Iterable[Endpoint]) -> tuple[Group, ...]:
    """Endpoints grouped by locality, all of the same priority."""
    grouped: dict[Locality, list[Endpoint]] = {}
    for each in endpoints:
        grouped.setdefault(each.locality, []).append(each)
    return tuple(
        Group(place, 0, sum(each.weight for each in members), tuple(members)) for place, members in grouped.items()
    )


def by_zone(client: Locality, endpoints: Iterable[Endpoint]) -> tuple[Group, ...]:
    """Endpoints grouped by region and zone; the client's own zone is called what the client's place is."""
    return by_place(msgspec.structs.replace(each, locality=_zone(client, each.locality)) for each in endpoints)


def by_preference(preference: Preference, client: Whereabouts, endpoints: tuple[Endpoint, ...]) -> tuple[Group, ...]:
    """Endpoints grouped by locality and priority for a client."""
    for each in preference.distribute:
        if _covers(each.from_ or "", client.locality):
            return _distributed(each.to, by_place(endpoints))
    if preference.distribute:
        return by_place(endpoints)
    ranked = [(_rank(preference, client, each), each) for each in endpoints]
    priorities = {rank: number for number, rank in enumerate(sorted({rank for rank, _ in ranked}))}
    groups: list[Group] = []
    for rank, number in priorities.items():
        alike = (each for own, each in ranked if own == rank)
        members = by_zone(client.locality, alike) if preference.zones else by_place(alike)
        groups += [msgspec.structs.replace(group, priority=number) for group in members]
    return tuple(groups)


def _rank(preference: Preference, client: Whereabouts, endpoint: Endpoint) -> tuple[int, ...]:
    """Where an endpoint stands, the least first."""
    targets = {each.from_ or "": each.to or "" for each in preference.failover}
    by_labels = _label_rank(preference.labels, client, endpoint)
    if preference.zones:
        if endpoint.locality.region == client.locality.region:
            return (0, 0, 0)
        return (1, by_labels, _place_rank(client.locality, endpoint.locality, targets))
    if preference.labels:
        return (by_labels, _place_rank(client.locality, endpoint.locality, targets) if targets else 0)
    return (_place_rank(client.locality, endpoint.locality, targets),)


def _zone(client: Locality, place: Locality) -> Locality:
    near = (place.region, place.zone) == (client.region, client.zone)
    return client if near else Locality(place.region, place.zone)


def _distributed(to: Mapping[str, int], groups: tuple[Group, ...]) -> tuple[Group, ...]:
    found: list[Group] = []
    for pattern, percent in to.items():
        members = [each for each in groups if _covers(pattern, each.locality)]
        total = sum(each.weight for each in members)
        for each in members:
            share = max(1, round(percent * 100 * each.weight / total)) if percent else 0
            if share:
                found.append(msgspec.structs.replace(each, weight=share))
    return tuple(found)


def _covers(pattern: str, place: Locality) -> bool:
    """`region/zone/subzone` where `*` and missing parts cover everything."""
    said = pattern.split("/")
    have = (place.region, place.zone, place.subzone)
    return all(part in ("*", own) for part, own in zip(said, have, strict=False))


def _place_rank(client: Locality, place: Locality, targets: dict[str, str]) -> int:
    if place.region != client.region:
        wanted = targets.get(client.region)
        return 3 if wanted is None or wanted == place.region else 4
    if place.zone != client.zone:
        return 2
    return 1 if place.subzone != client.subzone else 0


def _label_rank(wanted: tuple[str, ...], client: Whereabouts, endpoint: Endpoint) -> int:
    """How many of the labels, counted from the first, do not match: the first mismatch ends the count."""
    own = dict(client.labels) | _places(client.locality, client.node)
    theirs = dict(endpoint.labels) | _places(endpoint.locality, endpoint.node)
    if endpoint.network:
        theirs[NETWORK] = endpoint.network
    for index, each in enumerate(wanted):
        key, _, value = each.partition("=")
        if theirs.get(key, "") != (value or own.get(key, "")):
            return len(wanted) - index
    return 0


def _places(place: Locality, node: str) -> dict[str, str]:
    return {REGION: place.region, ZONE: place.zone, SUBZONE: place.subzone, HOSTNAME: node}
