"""Checks of ServiceEntries."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.conflicts import losses
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.analysis.overlaps import taken
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.endpoints import reachable
from lateen.model.protocols import parse_protocol
from lateen.model.services import Resolution, entry_service
from lateen.model.workloads import entry_workload, selected_entries


@check("LTN0101", Level.WARNING, "A selector picks no workload", ServiceEntry)
def selects_nothing(q: Q, subject: ServiceEntry) -> Iterator[Said]:
    """No Pod and no WorkloadEntry of the namespace has all labels of the `workloadSelector`, so the hosts have no
    endpoints. Requests to them are answered with 503.

    Correct the labels, or create the workloads.
    """
    selector = subject.spec.workload_selector
    if selector is not None and selector.labels and not q(selected, subject.namespace, key(selector.labels)):
        remedy = nearest_labels(q, subject.namespace, selector.labels)
        yield Said("spec.workloadSelector", "no workload has these labels", remedy)


@check("IST0134", Level.WARNING, "A TCP port without an address takes every connection", ServiceEntry)
def address_needed(q: Q, subject: ServiceEntry) -> Iterator[Said]:
    """With resolution NONE, no addresses, and a port whose protocol is plain TCP, nothing tells connections to these
    hosts from any other connection to the port: all of them are taken for this entry.

        hosts: [db.example.com]
        ports: [{number: 3306, name: tcp, protocol: TCP}]

    Set `addresses`, use resolution DNS or STATIC (the hosts then get addresses of their own), or for TLS say
    protocol TLS, which tells hosts apart by server name.
    """
    if subject.spec.addresses or (subject.spec.resolution or "NONE") != "NONE":
        return
    for index, port in enumerate(subject.spec.ports):
        protocol = parse_protocol(port.protocol or "")
        if protocol.is_tcp and not protocol.is_tls:
            message = f"every connection to port {port.number} is taken for {subject.spec.hosts[0]}"
            yield Said(at("spec", "ports", index), message, "set addresses, or resolution DNS")


@check("LTN0263", Level.WARNING, "Several objects are for one host", ServiceEntry)
def overlapping_host(q: Q, subject: ServiceEntry) -> Iterator[Said]:
    """Another object is for the same host and counts for every client that sees both: a Service before a ServiceEntry,
    then the older before the younger. Of this object only `subjectAltNames` are used for that host.

        hosts: [reviews.default.svc.cluster.local]

    Remove the host from one of them, or keep them apart by `exportTo`.
    """
    for loss in losses(q, subject.ref).fields:
        yield Said(loss.path, f"{loss.winner.short} counts for this host, {loss.why}", "name the host in one object")


@check("LTN0264", Level.WARNING, "Addresses of several services overlap", ServiceEntry)
def overlapping_addresses(q: Q, subject: ServiceEntry) -> Iterator[Said]:
    """Another service claims the same address on the same port, and one of the two ports is not HTTP, so nothing but
    the address could tell connections to them apart. A port that is not HTTP comes before HTTP, the narrower range
    before the wider one; of equal ones the host that sorts first counts.

        hosts: [a.example], addresses: [10.1.2.3], ports: [{number: 3306, name: tcp, protocol: TCP}]
        hosts: [b.example], addresses: [10.1.2.3], ports: [{number: 3306, name: tcp, protocol: TCP}]

    Give each its own address, leave addresses out (resolution STATIC or DNS then makes one for each host), or use
    protocol TLS, which tells hosts apart by server name where they have no address.
    """
    for each in taken(q, subject.ref):
        winner = each.winner
        message = f"{winner.ref.short} ({winner.host}) gets connections to port {each.port} there: {each.why}"
        yield Said(at("spec", "addresses", each.index), message, "give each service an address of its own")


@check("LTN0265", Level.WARNING, "An endpoint cannot be used", ServiceEntry)
def unusable_endpoint(q: Q, subject: ServiceEntry) -> Iterator[Said]:
    """An endpoint has no address, or one that the entry's `resolution` can make nothing of: a host name where only
    addresses are used (STATIC), or a Unix socket where names are looked up (DNS). It is left out; the others count.

        kind: WorkloadEntry
        spec: {address: db.internal, labels: {app: db}}      # selected by an entry with resolution STATIC

    Write an address, or use resolution DNS.
    """
    spec = subject.spec
    made = q(entry_service, subject.namespace, subject.name, spec.hosts[0].lower()) if spec.hosts else None
    if made is None or made.resolution in (Resolution.PASSTHROUGH, Resolution.DYNAMIC):
        return
    for index, each in enumerate(spec.endpoints):
        if not reachable(made.resolution, each.address or ""):
            problem = f"{each.address} cannot be used with this resolution" if each.address else "it has no address"
            yield Said(at("spec", "endpoints", index), f"the endpoint is left out: {problem}", "write an address")
    for name in q(selected_entries, subject.namespace, made.selector) if made.selector else ():
        workload = q(entry_workload, subject.namespace, name)
        for address in (workload.addresses or ("",)) if workload is not None else ():
            if not reachable(made.resolution, address):
                problem = f"{address} cannot be used with this resolution" if address else "it has no address"
                yield Said("spec.workloadSelector", f"WorkloadEntry {name} is left out: {problem}", "write an address")


CHECKS = (selects_nothing, address_needed, overlapping_host, overlapping_addresses, unusable_endpoint)
