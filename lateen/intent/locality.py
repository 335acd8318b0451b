"""Which endpoints a client prefers by where they are: failover by locality or labels, or a distribution by weight.

Failover needs outlier detection (nothing else would notice that the near endpoints are bad); a distribution does
not. Only clusters with such a setting depend on the client's locality; all others are shared.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from lateen.api.istio.destination_rule import LocalityLoadBalancerSetting
from lateen.engine import Q
from lateen.intent.cluster import OutboundCluster
from lateen.model.endpoints import Endpoint
from lateen.model.mesh import locality_setting
from lateen.model.workloads import Labels, Locality

REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
SUBZONE = "topology.istio.io/subzone"


class Group(msgspec.Struct, frozen=True):
    """Endpoints of one locality that take traffic together: priority 0 first, by weight within a priority."""

    locality: Locality
    priority: int
    weight: int
    endpoints: tuple[Endpoint, ...]


def setting_of(q: Q, cluster: OutboundCluster) -> LocalityLoadBalancerSetting | None:
    """The locality setting in force for a cluster, or None when where endpoints are doesn't matter."""
    balancer = cluster.policy.load_balancer
    said = balancer.locality_lb_setting if balancer is not None else None
    setting = said if said is not None else q(locality_setting)
    if setting is None:
        # Outlier detection alone turns failover on.
        return LocalityLoadBalancerSetting() if cluster.policy.outlier_detection is not None else None
    if setting.enabled is False:
        return None
    if not setting.distribute and cluster.policy.outlier_detection is None:
        return None
    return setting


def by_place(endpoints: Iterable[Endpoint]) -> tuple[Group, ...]:
    """Endpoints grouped by locality, all of the same priority."""
    grouped: dict[Locality, list[Endpoint]] = {}
    for each in endpoints:
        grouped.setdefault(each.locality, []).append(each)
    return tuple(
        Group(place, 0, sum(each.weight for each in members), tuple(members)) for place, members in grouped.items()
    )


def by_setting(
    setting: LocalityLoadBalancerSetting, client: Locality, labels: Labels, endpoints: tuple[Endpoint, ...]
) -> tuple[Group, ...]:
    """Endpoints grouped by locality and priority for a client at a locality with those labels."""
    for each in setting.distribute:
        if _covers(each.from_ or "", client):
            return _distributed(each.to, by_place(endpoints))
    if setting.distribute:
        return by_place(endpoints)
    if setting.failover_priority:
        ranked = [(_label_rank(setting.failover_priority, client, labels, each), each) for each in endpoints]
    else:
        targets = {each.from_ or "": each.to or "" for each in setting.failover}
        ranked = [(_place_rank(client, each.locality, targets), each) for each in endpoints]
    priorities = {rank: number for number, rank in enumerate(sorted({rank for rank, _ in ranked}))}
    groups: list[Group] = []
    for rank, number in priorities.items():
        members = by_place(each for own, each in ranked if own == rank)
        groups += [msgspec.structs.replace(group, priority=number) for group in members]
    return tuple(groups)


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


def _label_rank(wanted: tuple[str, ...], client: Locality, labels: Labels, endpoint: Endpoint) -> int:
    """How many of the labels, counted from the first, do not match: the first mismatch ends the count."""
    own = _places(client) | dict(labels)
    theirs = _places(endpoint.locality) | dict(endpoint.labels)
    for index, each in enumerate(wanted):
        key, _, value = each.partition("=")
        if theirs.get(key, "") != (value or own.get(key, "")):
            return len(wanted) - index
    return 0


def _places(place: Locality) -> dict[str, str]:
    return {REGION: place.region, ZONE: place.zone, SUBZONE: place.subzone}
