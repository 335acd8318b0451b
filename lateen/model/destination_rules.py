"""Which DestinationRule counts for a client and a host, and what several of them make together.

Looked up in the client's namespace, then the service's, then the root namespace; the first that has a rule for the
host wins wholly, and within a namespace the most specific host. Rules of one namespace for the same host and the
same `exportTo` are one rule: subsets united by name (the older wins), the traffic policy of the oldest that has
one. A rule with a `workloadSelector` counts only for the clients it picks, before those without.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lateen.api.istio.destination_rule import DestinationRule, PortTrafficPolicy, Subset, TrafficPolicy
from lateen.api.objects import get, in_namespace
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.hosts import covers, is_wildcard, resolve, specificity
from lateen.model.mesh import default_destination_rule_export, domain, root_namespace
from lateen.model.services import EVERYWHERE, export_to
from lateen.model.visibility import Client, visible


class Rule(msgspec.Struct, frozen=True):
    """One or several DestinationRules as one. `host` is the full host or wildcard they are for."""

    host: str
    exported_to: tuple[str, ...]
    selecting: str
    """The name of the object, for a rule with a workloadSelector; else empty."""
    policy: TrafficPolicy | None
    subsets: tuple[Subset, ...]
    refs: tuple[Ref, ...]

    def subset(self, name: str) -> Subset | None:
        """The subset of that name, or None."""
        return next((each for each in self.subsets if each.name == name), None)


class _Table(msgspec.Struct, frozen=True):
    """The rules of a namespace: by exact host, and wildcards from the most specific on."""

    exact: Mapping[str, tuple[Rule, ...]] = {}
    wild: tuple[Rule, ...] = ()


def destination_rule(q: Q, client: Client, host: str) -> Rule | None:
    """The rule that counts for a client and a full host name, or None."""
    root = q(root_namespace)
    service = q(visible, client, host)
    local = [
        each
        for each in _matching(q(_table, client.namespace), host)
        if (not each.selecting or each.selecting in client.rules)
        and (client.namespace != root or each.selecting or each.exported_to == (root,))
    ]
    if local:
        selecting = [each for each in local if each.selecting]
        plain = next((each for each in local if not each.selecting), None)
        if not selecting:
            return plain
        if plain is None or plain.host != selecting[0].host:
            return min(local, key=lambda each: specificity(each.host))
        return _merge(selecting[0], plain)
    for namespace in dict.fromkeys((service.namespace if service is not None else root, root)):
        for each in _matching(q(_table, namespace), host):
            if not each.selecting and ("*" in each.exported_to or client.namespace in each.exported_to):
                return each
    return None


def named_by(q: Q, ref: Ref) -> tuple[Ref, ...]:
    """The rules that are one rule with that one, the oldest first, itself included; empty when there is no such."""
    own = get(q, DestinationRule, ref.namespace, ref.name)
    if own is None:
        return ()
    host = resolve(own.spec.host, ref.namespace, q(domain))
    return next((each for each in q(_same_host, ref.namespace, host) if ref in each), ())


def _same_host(q: Q, namespace: str, host: str) -> tuple[tuple[Ref, ...], ...]:
    table = q(_table, namespace)
    rules = table.wild if is_wildcard(host) else table.exact.get(host, ())
    return tuple(each.refs for each in rules if each.host == host)


def port_policy(policy: TrafficPolicy | None, port: int) -> TrafficPolicy | PortTrafficPolicy | None:
    """The part of a traffic policy for a port: its port-level settings replace the rest wholly."""
    if policy is None:
        return None
    level = next((each for each in policy.port_level_settings if each.port and each.port.number == port), None)
    return level if level is not None else policy


def _matching(table: _Table, host: str) -> list[Rule]:
    return [*table.exact.get(host, ()), *(each for each in table.wild if covers(each.host, host))]


def _table(q: Q, namespace: str) -> _Table:
    cluster_domain = q(domain)
    default = export_to(q(default_destination_rule_export), namespace) or EVERYWHERE
    rules: dict[tuple[str, tuple[str, ...], str], Rule] = {}
    found = in_namespace(q, DestinationRule, namespace)
    for each in sorted(found, key=lambda each: (each.metadata.creation_timestamp or "9999", each.name)):
        spec = each.spec
        selecting = each.name if spec.workload_selector is not None else ""
        rule = Rule(
            resolve(spec.host, namespace, cluster_domain),
            export_to(spec.export_to, namespace) or default,
            selecting,
            spec.traffic_policy,
            _named_once(spec.subsets),
            (each.ref,),
        )
        key = (rule.host, rule.exported_to, selecting)
        rules[key] = _merge(rules[key], rule) if key in rules else rule
    exact: dict[str, tuple[Rule, ...]] = {}
    for rule in rules.values():
        if not is_wildcard(rule.host):
            exact[rule.host] = (*exact.get(rule.host, ()), rule)
    wild = sorted((each for each in rules.values() if is_wildcard(each.host)), key=lambda each: specificity(each.host))
    return _Table(exact, tuple(wild))


def _merge(first: Rule, second: Rule) -> Rule:
    return msgspec.structs.replace(
        first,
        policy=first.policy if first.policy is not None else second.policy,
        subsets=_named_once((*first.subsets, *second.subsets)),
        refs=(*first.refs, *second.refs),
    )


def _named_once(subsets: tuple[Subset, ...]) -> tuple[Subset, ...]:
    named: dict[str, Subset] = {}
    for each in subsets:
        named.setdefault(each.name, each)
    return tuple(named.values())
