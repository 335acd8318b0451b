"""Narrow questions that several checks ask: is there such a host, does a selector pick anything.

Workloads are Pods, WorkloadEntries, and the templates of Deployments and Jobs: a file with a Service and its
Deployment is right before the first Pod runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from lateen.api.core.config_map import ConfigMap
from lateen.api.core.deployment import Deployment
from lateen.api.core.job import Job
from lateen.api.core.pod import Pod, PodSpec
from lateen.api.core.secret import Secret
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.api.objects import everywhere, get, in_namespace, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.lib.suggest import nearest
from lateen.model.gateways import Conflict, gateway_plan
from lateen.model.hosts import covers, is_wildcard
from lateen.model.services import MeshService, all_hosts, candidates, service_for
from lateen.model.workloads import Labels


class Group(msgspec.Struct, frozen=True):
    """Workloads that are alike: a Pod, an entry, or all that a template makes. `ports` are (name, number)."""

    namespace: str
    name: str
    labels: Labels
    ports: tuple[tuple[str, int], ...]


def workloads(q: Q, namespace: str) -> tuple[Group, ...]:
    """All workloads of a namespace, running or to come."""
    groups = [
        _group(namespace, pod.name, pod.metadata.labels, pod.spec)
        for pod in in_namespace(q, Pod, namespace)
        if pod.status.phase not in ("Succeeded", "Failed")
    ]
    for owner in (*in_namespace(q, Deployment, namespace), *in_namespace(q, Job, namespace)):
        template = owner.spec.template
        groups.append(_group(namespace, owner.name, template.metadata.labels, template.spec))
    for entry in in_namespace(q, WorkloadEntry, namespace):
        labels = {**entry.metadata.labels, **entry.spec.labels}
        groups.append(Group(namespace, entry.name, _sorted(labels), tuple(sorted(entry.spec.ports.items()))))
    return tuple(groups)


def namespaces(q: Q) -> tuple[str, ...]:
    """The namespaces that have workloads, sorted."""
    found = {each.namespace for kind in (Pod, Deployment, Job) for each in everywhere(q, kind)}
    return tuple(sorted(found | {each.namespace for each in everywhere(q, WorkloadEntry)}))


def selected(q: Q, namespace: str, selector: Labels) -> tuple[Group, ...]:
    """The workloads of a namespace that have all labels of a selector."""
    wanted = dict(selector)
    return tuple(each for each in q(workloads, namespace) if selects(wanted, dict(each.labels)))


def selected_anywhere(q: Q, selector: Labels) -> tuple[Group, ...]:
    """The workloads of any namespace that have all labels of a selector."""
    return tuple(each for namespace in q(namespaces) for each in q(selected, namespace, selector))


def key(selector: Mapping[str, str]) -> Labels:
    """A selector as an argument of a query."""
    return _sorted(selector)


def nearest_labels(q: Q, namespace: str, selector: Mapping[str, str]) -> str:
    """A remedy for a selector that picks nothing: what workloads that fit otherwise have instead of one label."""
    for name in selector:
        rest = {other: value for other, value in selector.items() if other != name}
        fitting = q(selected, namespace, key(rest))
        values = sorted({found for each in fitting if (found := dict(each.labels).get(name))})
        if values:
            which = " and ".join(f"{other}: {value}" for other, value in rest.items())
            whose = f"workloads with {which}" if which else f"workloads of {namespace}"
            return f"{whose} have {name}: {', '.join(values[:5])}"
    return f"no workload of {namespace} comes near"


def known_host(q: Q, host: str, namespace: str) -> MeshService | None:
    """The service that clients of a namespace get for a full host name; wildcards of ServiceEntries count."""
    found = q(service_for, host, namespace)
    if found is None and not is_wildcard(host):
        for pattern in q(_wildcard_hosts):
            if covers(pattern, host) and (wild := q(service_for, pattern, namespace)) is not None:
                return wild
    return found


def unknown_host_remedy(q: Q, host: str, namespace: str) -> str:
    """What to do about a host that `known_host` does not know."""
    hidden = q(candidates, host)
    if hidden:
        return f"{hidden[0].ref.short} has it, but does not export it to namespace {namespace}"
    near = nearest(host, q(all_hosts))
    return f"did you mean {near}?" if near else "create a Service or a ServiceEntry for it"


def secret_keys(q: Q, namespace: str, name: str) -> tuple[str, ...] | None:
    """The keys of a Secret, or None when there is no such Secret."""
    found = get(q, Secret, namespace, name)
    return found.keys if found is not None else None


def config_map_keys(q: Q, namespace: str, name: str) -> tuple[str, ...] | None:
    """The keys of a ConfigMap, or None when there is no such ConfigMap."""
    found = get(q, ConfigMap, namespace, name)
    return tuple(sorted({*found.data, *found.binary_data})) if found is not None else None


def _wildcard_hosts(q: Q) -> tuple[str, ...]:
    return tuple(each for each in q(all_hosts) if is_wildcard(each))


def _group(namespace: str, name: str, labels: Mapping[str, str], spec: PodSpec) -> Group:
    ports = tuple((port.name or "", port.container_port) for container in spec.containers for port in container.ports)
    return Group(namespace, name, _sorted(labels), ports)


def _sorted(labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    return tuple(sorted(dict(labels).items()))


def gateway_losses(q: Q, ref: Ref) -> tuple[Conflict, ...]:
    """What the servers of a Gateway do not get on any of its workloads."""
    found = get(q, Gateway, ref.namespace, ref.name)
    groups = q(selected_anywhere, key(found.spec.selector)) if found is not None else ()
    places = dict.fromkeys((each.namespace, each.labels) for each in groups)
    plans = [q(gateway_plan, *place) for place in places]
    return tuple(dict.fromkeys(each for plan in plans for each in plan.conflicts if each.gateway == ref))
