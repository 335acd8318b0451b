"""What an object loses to others: which of its fields have no effect because another object decides, and which one.

Each kind has its own rule of who wins (`lateen/model`), and the answers here come from the same queries. A loss is
narrow: it is asked for one object and reads only its rivals, so a change of one VirtualService asks for the losses of
those that name the same host and of no others. `shadowed` says that nothing of the object is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from lateen.analysis.lookup import gateway_losses, key, namespaces, selected_anywhere
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.peer_authentication import PeerAuthentication
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.istio.sidecar import Sidecar
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import get, in_namespace
from lateen.api.problems import at
from lateen.api.struct import Object
from lateen.engine import Q
from lateen.intent.matching import route_match
from lateen.lib.ids import Ref
from lateen.model.destination_rules import named_by
from lateen.model.gateways import Conflict, server_hosts
from lateen.model.hosts import resolve
from lateen.model.mesh import domain
from lateen.model.services import candidates
from lateen.model.virtual_services import (
    MESH,
    Reader,
    contested,
    full_gateway,
    gateway_virtual_services,
    http_rules,
    mesh_rivals,
)
from lateen.model.visibility import Client, visible
from lateen.model.workloads import Labels


class Loss(msgspec.Struct, frozen=True):
    """One field that has no effect, the object that decides instead, and the rule by which it does."""

    path: str
    winner: Ref
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.winner.short} counts, {self.why}"


class Losses(msgspec.Struct, frozen=True):
    """All losses of an object. `shadowed`: no part of it has an effect any more."""

    fields: tuple[Loss, ...] = ()
    shadowed: bool = False


NONE = Losses()
OLDER = "being older"


def losses(q: Q, ref: Ref) -> Losses:
    """What an object loses to others."""
    rule = _RULES.get(ref.collection)
    return rule(q, ref) if rule is not None else NONE


def sidecar_losses(q: Q, ref: Ref) -> tuple[tuple[int, Loss], ...]:
    """The hosts of a VirtualService, by number, that follow another one in sidecars."""
    found = get(q, VirtualService, ref.namespace, ref.name)
    if found is None or (found.spec.gateways and MESH not in found.spec.gateways):
        return ()
    lost: list[tuple[int, Loss]] = []
    for index, host in enumerate(found.spec.hosts):
        loss = _on_sidecars(q, ref, resolve(host, ref.namespace, q(domain)), at("spec", "hosts", index))
        if loss is not None:
            lost.append((index, loss[0]))
    return tuple(lost)


def _virtual_service(q: Q, ref: Ref) -> Losses:
    found = get(q, VirtualService, ref.namespace, ref.name)
    if found is None or not found.spec.hosts:
        return NONE
    spec = found.spec
    hosts = [resolve(each, ref.namespace, q(domain)) for each in spec.hosts]
    lost: list[Loss] = []
    taken = 0
    readers = 0
    for gateway in spec.gateways or (MESH,):
        for index, host in enumerate(hosts):
            readers += 1
            path = at("spec", "hosts", index)
            if gateway == MESH:
                loss = _on_sidecars(q, ref, host, path)
            else:
                loss = _on_gateway(q, ref, host, path, full_gateway(gateway, ref.namespace))
            if loss is not None:
                found_loss, whole = loss
                lost.append(found_loss)
                taken += whole
    return Losses(tuple(lost), readers > 0 and taken == readers)


def _on_sidecars(q: Q, ref: Ref, host: str, path: str) -> tuple[Loss, bool] | None:
    """The loss of a host among sidecars and whether no client is left. VirtualServices are not merged there."""
    spaces = dict.fromkeys((ref.namespace, *q(namespaces)))
    ranked = {space: q(mesh_rivals, Client(space), host) for space in spaces} if q(contested, host) else {}
    seen = {space: each for space, each in ranked.items() if ref in each}
    lost = {space: each[0] for space, each in seen.items() if each[0] != ref}
    if not lost:
        return None
    winner = lost.get(ref.namespace) or next(iter(lost.values()))
    why = _rank_words(q, winner, ref)
    if len(lost) < len(seen):
        why += f", for clients in {', '.join(sorted(lost))}"
    return Loss(path, winner, why), len(lost) == len(seen)


def _rank_words(q: Q, winner: Ref, loser: Ref) -> str:
    first = get(q, VirtualService, winner.namespace, winner.name)
    second = get(q, VirtualService, loser.namespace, loser.name)
    if first is None or second is None:
        return OLDER
    if bool(first.spec.export_to) != bool(second.spec.export_to) or first.spec.export_to != second.spec.export_to:
        return "being exported more narrowly"
    if first.metadata.creation_timestamp != second.metadata.creation_timestamp:
        return OLDER
    return "coming first by name, as both are of one age"


def _on_gateway(q: Q, ref: Ref, host: str, path: str, gateway: str) -> tuple[Loss, bool] | None:
    """On a gateway all count one after another, so a rule is lost behind one that takes every request."""
    namespace, _, name = gateway.partition("/")
    there = get(q, Gateway, namespace, name)
    if there is None:
        return None
    groups = q(selected_anywhere, key(there.spec.selector))
    router = groups[0].namespace if groups else namespace
    port = there.spec.servers[0].port.number if there.spec.servers else 0
    for each in q(gateway_virtual_services, router, gateway):
        if each.ref == ref:
            return None
        if host in each.hosts:
            for number, bound in enumerate(q(http_rules, each.ref, Reader(gateway, router), port)):
                if any((match := route_match(said)) is not None and match.every for said in bound.matches):
                    why = f"its rule {number} takes every request for {host} before"
                    return Loss(path, each.ref, why), True
    return None


def _destination_rule(q: Q, ref: Ref) -> Losses:
    found = get(q, DestinationRule, ref.namespace, ref.name)
    if found is None:
        return NONE
    rivals = q(named_by, ref)
    older = [each for name in rivals[: rivals.index(ref)] if (each := _rule(q, name)) is not None]
    lost: list[Loss] = []
    parts = 0
    if found.spec.traffic_policy is not None:
        parts += 1
        winner = next((each for each in older if each.spec.traffic_policy is not None), None)
        if winner is not None:
            lost.append(Loss("spec.trafficPolicy", winner.ref, OLDER))
    for index, subset in enumerate(found.spec.subsets):
        parts += 1
        winner = next((each for each in older if any(own.name == subset.name for own in each.spec.subsets)), None)
        if winner is not None:
            lost.append(Loss(at("spec", "subsets", index), winner.ref, OLDER))
    return Losses(tuple(lost), parts > 0 and len(lost) == parts)


def _rule(q: Q, ref: Ref) -> DestinationRule | None:
    return get(q, DestinationRule, ref.namespace, ref.name)


def _service_entry(q: Q, ref: Ref) -> Losses:
    found = get(q, ServiceEntry, ref.namespace, ref.name)
    lost: list[Loss] = []
    for index, host in enumerate(found.spec.hosts if found is not None else ()):
        there = q(candidates, host.lower())
        if len(there) < 2:
            continue
        spaces = dict.fromkeys((ref.namespace, *q(namespaces)))
        winners = [q(visible, Client(space), host.lower()) for space in spaces]
        counting = [each.ref for each in winners if each is not None]
        if counting and ref not in counting:
            why = "a Service comes before a ServiceEntry" if counting[0].kind == "Service" else OLDER
            lost.append(Loss(at("spec", "hosts", index), counting[0], why))
    return Losses(tuple(lost), found is not None and len(lost) == len(found.spec.hosts))


def _gateway(q: Q, ref: Ref) -> Losses:
    found = get(q, Gateway, ref.namespace, ref.name)
    if found is None:
        return NONE
    lost: dict[str, Loss] = {}
    for each in q(gateway_losses, ref):
        path, why = (
            at("spec", "servers", each.index),
            f"it treats port {each.port} as another kind of traffic and {_first(each)}",
        )
        if each.host:
            hosts = [host for _, host in server_hosts(found.spec.servers[each.index].hosts, ref.namespace)]
            path = at("spec", "servers", each.index, "hosts", hosts.index(each.host))
            why = f"it has {each.host} on port {each.port} with other TLS settings and {_first(each)}"
        lost.setdefault(path, Loss(path, each.winner, why))
    whole = {each.index for each in q(gateway_losses, ref) if not each.host}
    shadowed = all(
        index in whole
        or all(at("spec", "servers", index, "hosts", inner) in lost for inner in range(len(server.hosts)))
        for index, server in enumerate(found.spec.servers)
    )
    return Losses(tuple(lost.values()), bool(lost) and shadowed)


def _first(conflict: Conflict) -> str:
    return "is older" if conflict.winner != conflict.gateway else "comes first"


def _selecting(kind: type[Sidecar] | type[PeerAuthentication]) -> Callable[[Q, Ref], Losses]:
    """Kinds of which one object counts for a workload: the oldest with its selector, the oldest without one."""

    def rule(q: Q, ref: Ref) -> Losses:
        ranked = q(_by_selector, kind, ref.namespace)
        for same in ranked.values():
            if ref in same and same[0] != ref:
                return Losses((Loss("spec", same[0], f"{OLDER} with the same selector"),), shadowed=True)
        return NONE

    return rule


def _by_selector(q: Q, kind: type[Object], namespace: str) -> Mapping[Labels, tuple[Ref, ...]]:
    found: dict[Labels, tuple[Ref, ...]] = {}
    for each in sorted(in_namespace(q, kind, namespace), key=lambda each: (_age(each), each.name)):
        labels = key(_labels(each))
        found[labels] = (*found.get(labels, ()), each.ref)
    return found


def _labels(each: Object) -> Mapping[str, str]:
    if isinstance(each, Sidecar):
        return each.spec.workload_selector.labels if each.spec.workload_selector is not None else {}
    if isinstance(each, PeerAuthentication):
        return each.spec.selector.match_labels if each.spec.selector is not None else {}
    return {}


def _age(each: Object) -> str:
    return each.metadata.creation_timestamp or "9999"


def _rules() -> Iterator[tuple[tuple[str, str], Callable[[Q, Ref], Losses]]]:
    table: tuple[tuple[type[Object], Callable[[Q, Ref], Losses]], ...] = (
        (VirtualService, _virtual_service),
        (DestinationRule, _destination_rule),
        (ServiceEntry, _service_entry),
        (Gateway, _gateway),
        (Sidecar, _selecting(Sidecar)),
        (PeerAuthentication, _selecting(PeerAuthentication)),
    )
    for kind, rule in table:
        yield (kind.GROUP, kind.KIND), rule


_RULES = dict(_rules())
