"""Checks of ServiceEntries."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.protocols import parse_protocol


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
