"""Which clients see a host alike: what is made for one of them is made for all.

Most services, rules and VirtualServices are public, so that clients of every namespace get the same of them. `apart`
lists the few hosts of which a client may get something of its own: whatever is exported to its namespace by name,
rules and entries of its namespace, and VirtualServices that ask where a request comes from. All other hosts are
looked up for `anybody`, a client of no namespace; queries over a client and a host are called with `alike(q, client,
host)`, so the mesh has one memoised answer and not one for each namespace.

A client that a Sidecar scopes has its own view of everything.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lateen.api.core.service import Service
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.istio.traffic_rules import ClientMatch
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import in_namespace, ref_of
from lateen.engine import Index, Q
from lateen.lib.ids import Ref
from lateen.model.destination_rules import destination_rule
from lateen.model.hosts import HostSet, host_set, is_wildcard, resolve, service_host
from lateen.model.mesh import (
    default_destination_rule_export,
    default_service_export,
    default_virtual_service_export,
    domain,
)
from lateen.model.services import annotated_export, export_to
from lateen.model.visibility import Client, visible


def anybody(client: Client) -> Client:
    """The client of no namespace that stands for all that see the same."""
    return Client("", router=client.router)


def alike(q: Q, client: Client, host: str, *others: str) -> Client:
    """The client to look hosts up for: `anybody`, or the client itself when it may see something else of one."""
    if not client.namespace:
        return client
    own = q(apart, client)
    return client if host in own or any(each in own for each in others) else anybody(client)


def common(q: Q, client: Client) -> Client:
    """The client to list hosts for: `anybody` when this one sees all of them as others do."""
    return anybody(client) if client.namespace and q(apart, client).empty else client


def apart(q: Q, client: Client) -> HostSet:
    """The hosts of which a client may get something of its own."""
    if client.sidecar is not None or q(_private_by_default):
        return HostSet(whole=True)
    nobody, namespace, cluster_domain = anybody(client), client.namespace, q(domain)
    said: set[str] = set(q(_exported_to, namespace))
    if not client.router:
        said |= q(_asking_for_the_source)
    for each in in_namespace(q, DestinationRule, namespace):
        host = resolve(each.spec.host, namespace, cluster_domain)
        if is_wildcard(host) or q(destination_rule, client, host) != q(destination_rule, nobody, host):
            said.add(host)
    for entry in in_namespace(q, ServiceEntry, namespace):
        hosts = (host.lower() for host in entry.spec.hosts)
        said.update(host for host in hosts if q(visible, client, host) != q(visible, nobody, host))
    found = host_set(said)
    names = aliases_of(q, found)
    return msgspec.structs.replace(found, exact=found.exact | names) if names else found


def aliases_of(q: Q, hosts: HostSet) -> frozenset[str]:
    """The Services that stand for one of some hosts."""
    cluster_domain = q(domain)
    named = (alias for alias in q.groups(_BY_ALIAS) if alias in hosts)
    found = (each for alias in named for each in q.group(_BY_ALIAS, alias))
    return frozenset(service_host(each.name, each.namespace, cluster_domain) for each in found)


def _private_by_default(q: Q) -> bool:
    """True when the mesh exports a kind to some namespaces only, unless an object says otherwise."""
    said = (q(default_service_export), q(default_destination_rule_export), q(default_virtual_service_export))
    return any(each and "*" not in each for each in said)


def _exported_to(q: Q, namespace: str) -> frozenset[str]:
    """The hosts of all objects that are exported to a namespace by its name."""
    cluster_domain = q(domain)
    found = {service_host(each.name, each.namespace, cluster_domain) for each in q.group(_SERVICES, namespace)}
    found.update(host.lower() for each in q.group(_ENTRIES, namespace) for host in each.spec.hosts)
    found.update(resolve(each.spec.host, each.namespace, cluster_domain) for each in q.group(_RULES, namespace))
    found.update(_hosts(q.group(_VIRTUAL_SERVICES, namespace), cluster_domain))
    return frozenset(found)


def _asking_for_the_source(q: Q) -> frozenset[str]:
    return frozenset(_hosts(q.group(_ASKING, True), q(domain)))


def _hosts(found: Iterable[VirtualService], cluster_domain: str) -> Iterable[str]:
    return (resolve(host, each.namespace, cluster_domain) for each in found for host in each.spec.hosts)


def _by_name(said: Iterable[str], namespace: str) -> tuple[str, ...]:
    exported = export_to(said, namespace)
    return () if "*" in exported else exported


def _asks(_key: Ref, found: VirtualService) -> Iterable[bool]:
    """Whether a VirtualService may read differently in another namespace. Delegates may ask too."""
    matches: list[ClientMatch] = [match for rule in found.spec.http for match in rule.match]
    matches += [match for rule in (*found.spec.tls, *found.spec.tcp) for match in rule.match]
    delegates = any(rule.delegate is not None for rule in found.spec.http)
    return [True] if delegates or any(each.source_namespace for each in matches) else []


def _alias(_key: Ref, found: Service) -> Iterable[str]:
    alias = (found.spec.external_name or "").lower().rstrip(".")
    return [alias] if alias and found.spec.type == "ExternalName" else []


_SERVICE = ref_of(Service, "", "").collection
_VIRTUAL_SERVICE = ref_of(VirtualService, "", "").collection
_BY_ALIAS: Index[str, Service] = Index(_SERVICE, _alias, "Service by the name it stands for")
_SERVICES: Index[str, Service] = Index(
    _SERVICE,
    lambda key, found: _by_name(annotated_export(found.metadata.annotations, key.namespace), key.namespace),
    "Service by namespace it is exported to",
)
_ENTRIES: Index[str, ServiceEntry] = Index(
    ref_of(ServiceEntry, "", "").collection,
    lambda key, found: _by_name(found.spec.export_to, key.namespace),
    "ServiceEntry by namespace it is exported to",
)
_RULES: Index[str, DestinationRule] = Index(
    ref_of(DestinationRule, "", "").collection,
    lambda key, found: _by_name(found.spec.export_to, key.namespace),
    "DestinationRule by namespace it is exported to",
)
_VIRTUAL_SERVICES: Index[str, VirtualService] = Index(
    _VIRTUAL_SERVICE,
    lambda key, found: _by_name(found.spec.export_to, key.namespace),
    "VirtualService by namespace it is exported to",
)
_ASKING: Index[bool, VirtualService] = Index(_VIRTUAL_SERVICE, _asks, "VirtualService that asks for the source")
