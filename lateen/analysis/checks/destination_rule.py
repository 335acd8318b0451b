"""Checks of DestinationRules."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, known_host, nearest_labels, selected, unknown_host_remedy
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import get, selects
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.hosts import covers, is_wildcard, resolve
from lateen.model.mesh import domain
from lateen.model.services import all_hosts
from lateen.model.workloads import Labels


@check("IST0174", Level.WARNING, "A DestinationRule is for a host that is not there", DestinationRule)
def unknown_host(q: Q, subject: DestinationRule) -> Iterator[Said]:
    """There is no Service and no ServiceEntry for the host (or, for a wildcard, for any host it covers), so the
    policy applies to nothing.

        host: reviews.defualt.svc.cluster.local

    Correct the name; a short name means a service in the DestinationRule's own namespace.
    """
    host = resolve(subject.spec.host, subject.namespace, q(domain))
    if is_wildcard(host):
        if not q(_covers_something, host):
            yield Said("spec.host", f"{host} covers no host of the mesh", "correct it, or create a ServiceEntry")
    elif q(known_host, host, subject.namespace) is None:
        remedy = unknown_host_remedy(q, host, subject.namespace)
        yield Said("spec.host", f"there is no service {host}", remedy)


@check("IST0173", Level.WARNING, "A subset selects no workload", DestinationRule)
def empty_subset(q: Q, subject: DestinationRule) -> Iterator[Said]:
    """No workload behind the host has the labels of a subset. Requests that are routed to it are answered with
    503.

        subsets:
        - name: v2
          labels: {version: v2}   # and every Pod says version: v1

    Correct the labels, or deploy the version.
    """
    host = resolve(subject.spec.host, subject.namespace, q(domain))
    service = q(known_host, host, subject.namespace)
    if service is None or is_wildcard(host):
        return
    for index, subset in enumerate(subject.spec.subsets):
        wanted = {**dict(service.selector), **subset.labels}
        path = at("spec", "subsets", index, "labels")
        if not subset.labels:
            continue
        if service.selector:
            if not q(selected, service.namespace, key(wanted)):
                remedy = nearest_labels(q, service.namespace, wanted)
                yield Said(path, f"no workload of {host} is in subset {subset.name}", remedy)
        elif service.ref.kind == ServiceEntry.KIND and not q(
            _has_endpoint, service.namespace, service.name, key(wanted)
        ):
            yield Said(path, f"no endpoint of {host} is in subset {subset.name}", "give endpoints these labels")


@check("LTN0101", Level.WARNING, "A selector picks no workload", DestinationRule)
def selects_nothing(q: Q, subject: DestinationRule) -> Iterator[Said]:
    """No workload of the namespace has all labels of the `workloadSelector`, so the rule applies to no client.

    Correct the labels, or leave the selector out to mean every client.
    """
    selector = subject.spec.workload_selector
    if selector is not None and not q(selected, subject.namespace, key(selector.match_labels)):
        remedy = nearest_labels(q, subject.namespace, selector.match_labels)
        yield Said("spec.workloadSelector", "no workload has these labels", remedy)


def _covers_something(q: Q, pattern: str) -> bool:
    return any(covers(pattern, host) for host in q(all_hosts))


def _has_endpoint(q: Q, namespace: str, name: str, labels: Labels) -> bool:
    """True when an inline endpoint of a ServiceEntry has those labels, or its endpoints are not inline."""
    entry = get(q, ServiceEntry, namespace, name)
    endpoints = entry.spec.endpoints if entry is not None else ()
    return not endpoints or any(selects(dict(labels), each.labels) for each in endpoints)
