"""The security policies of one proxy, ready to be written: who may call, whose tokens count, who else is asked.

Rules are grouped by what Istio does with them, in its order: external authorizers (CUSTOM), DENY, ALLOW; AUDIT
decides nothing. With no ALLOW policy everything that was not denied passes; with one, only what a rule matches.
Policies with the annotation `istio.io/dry-run` are counted and logged, never enforced.

Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import msgspec

from lateen.engine import Q
from lateen.intent.authorization import Context, Meaning, NamedRule, rule_meaning, rule_name
from lateen.intent.cluster import outbound_names
from lateen.intent.destination import cluster_name
from lateen.intent.predicate import behind_socket
from lateen.lib.ids import Ref
from lateen.model.authorization import AttachedPolicy, ExtAuthz, authorization_policies, ext_authz, policy_refs
from lateen.model.hosts import resolve
from lateen.model.jwt_keys import key_set
from lateen.model.mesh import domain, root_namespace, trust_domains
from lateen.model.policy_attachment import Workloads
from lateen.model.request_authentication import AttachedRule, jwt_rules
from lateen.model.visibility import Client, client_of

ALLOW = "ALLOW"
DENY = "DENY"
AUDIT = "AUDIT"
CUSTOM = "CUSTOM"


class Issuer(msgspec.Struct, frozen=True):
    """Whose tokens count, with the keys that are known now."""

    attached: AttachedRule
    keys: str


class Authorizer(msgspec.Struct, frozen=True):
    """An external authorizer and what it is asked about. `cluster` is empty when the proxy cannot reach it:
    unknown to the mesh configuration, or a service the proxy does not see."""

    name: str
    policies: tuple[AttachedPolicy, ...]
    settings: ExtAuthz | None = None
    cluster: str = ""
    host: str = ""


class Security(msgspec.Struct, frozen=True, dict=True):
    """Everything that security policies say to one proxy."""

    policies: tuple[AttachedPolicy, ...] = ()
    authorizers: tuple[Authorizer, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    trust_domains: tuple[str, ...] = ()
    origins: tuple[Ref, ...] = ()
    port: int = 0

    def behind_socket(self, port: int) -> Security:
        """The same for connections to a Unix socket that stands for a port."""
        return msgspec.structs.replace(self, port=port)

    def of(self, action: str, *, dry_run: bool = False) -> tuple[AttachedPolicy, ...]:
        """The policies of an action, enforced ones or those on trial."""
        return tuple(each for each in self.policies if each.action == action and each.dry_run is dry_run)

    @property
    def explains(self) -> tuple[AttachedPolicy, ...]:
        """The policies whose callers are told why they are refused."""
        return tuple(each for each in self.policies if each.explain)

    def rules(self, policies: Iterable[AttachedPolicy], *, tcp: bool = False) -> tuple[NamedRule, ...]:
        """The rules of some policies that can match requests, or plain connections with `tcp`."""
        meant = self._on_connections if tcp else self._on_requests
        return tuple(rule for each in policies for rule in meant[each.policy.ref])

    @cached_property
    def _on_requests(self) -> dict[Ref, tuple[NamedRule, ...]]:
        return {each.policy.ref: tuple(self._rules(each, tcp=False)) for each in self.policies}

    @cached_property
    def _on_connections(self) -> dict[Ref, tuple[NamedRule, ...]]:
        return {each.policy.ref: tuple(self._rules(each, tcp=True)) for each in self.policies}

    def _rules(self, policy: AttachedPolicy, *, tcp: bool) -> Iterator[NamedRule]:
        context = Context(policy.policy.namespace, self.trust_domains)
        for index, rule in enumerate(policy.policy.spec.rules):
            meaning = rule_meaning(rule, context, tcp=tcp, restricts=policy.action in (DENY, CUSTOM))
            if meaning is not None and self.port:
                meaning = Meaning(behind_socket(meaning.caller, self.port), behind_socket(meaning.target, self.port))
            if meaning is not None:
                yield NamedRule(rule_name(policy.policy.ref, index), meaning)


def security(q: Q, workloads: Workloads) -> Security:
    """The security policies of proxies that stand for some workloads."""
    policies = q(authorization_policies, workloads)
    attached = q(jwt_rules, workloads)
    refs = (*policy_refs(policies), *(each.ref for each in attached))
    return Security(
        policies,
        _authorizers(q, workloads, policies),
        tuple(Issuer(each, key_set(q, each.rule)) for each in attached),
        q(trust_domains),
        tuple(dict.fromkeys(refs)),
    )


def _authorizers(q: Q, workloads: Workloads, policies: tuple[AttachedPolicy, ...]) -> tuple[Authorizer, ...]:
    asking: dict[str, list[AttachedPolicy]] = {}
    for each in policies:
        if each.action == CUSTOM and not each.dry_run:
            asking.setdefault(each.provider, []).append(each)
    client = q(client_of, workloads.namespace, workloads.labels, workloads.router) if asking else None
    return tuple(_authorizer(q, client, name, tuple(group)) for name, group in asking.items() if client is not None)


def _authorizer(q: Q, client: Client, name: str, policies: tuple[AttachedPolicy, ...]) -> Authorizer:
    settings = q(ext_authz, name)
    said = (settings.grpc or settings.http) if settings is not None else None
    if said is None:
        return Authorizer(name, policies)
    host = resolve(said.service.rpartition("/")[2], q(root_namespace), q(domain))
    cluster = cluster_name(host, said.port)
    reachable = cluster in q(outbound_names, client)
    return Authorizer(name, policies, settings, cluster if reachable else "", host)
