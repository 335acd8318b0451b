"""Workloads: what runs behind an address, made from a Pod or a WorkloadEntry.

Translation reads a Pod only through `pod_workload`: a projection without status conditions, so a readiness
change re-runs nothing that merely asks who a Pod is.

`tls` says that a proxy answers mutual TLS in front of the workload. It is taken from the label
`security.istio.io/tlsMode` or the annotation `sidecar.istio.io/status` that an injector leaves; gateways don't.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lateen.api.core.node import Node
from lateen.api.core.pod import Pod
from lateen.api.istio.workload_entry import GROUP_ANNOTATION, WorkloadEntry
from lateen.api.objects import get, in_namespace, selects
from lateen.engine import Q
from lateen.lib.ids import LOCALITY_LABELS, Ref

TLS_MODE_LABEL = "security.istio.io/tlsMode"
INJECTED_ANNOTATION = "sidecar.istio.io/status"
TEMPLATES_ANNOTATION = "inject.istio.io/templates"
DISCOVERY_ANNOTATION = "lateen.io/discovery"
"""On a Pod: `ON_DEMAND` or `EAGER`, in place of what the mesh says."""
CANONICAL_NAME_LABEL = "service.istio.io/canonical-name"
CANONICAL_REVISION_LABEL = "service.istio.io/canonical-revision"

Labels = tuple[tuple[str, str], ...]
"""Labels as a sorted tuple, to be part of a key."""


class Locality(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """Where something runs; empty parts are unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    def __str__(self) -> str:
        return "/".join(each for each in (self.region, self.zone, self.subzone) if each)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Who is behind an address. `ports` maps container port (or WorkloadEntry port) names to numbers."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    labels: Labels = ()
    service_account: str = "default"
    tls: bool = False
    locality: Locality = Locality()
    ports: tuple[tuple[str, int], ...] = ()
    weight: int = 1
    network: str = ""
    node: str = ""
    workload: str = ""
    """The name of what made it: a Deployment, for a Pod of one."""
    ref: Ref

    @property
    def canonical_name(self) -> str:
        """The canonical service of telemetry."""
        labels = dict(self.labels)
        return (
            labels.get(CANONICAL_NAME_LABEL)
            or labels.get("app.kubernetes.io/name")
            or labels.get("app")
            or self.workload
        )

    @property
    def canonical_revision(self) -> str:
        """The canonical revision of telemetry."""
        labels = dict(self.labels)
        return (
            labels.get(CANONICAL_REVISION_LABEL)
            or labels.get("app.kubernetes.io/version")
            or labels.get("version")
            or "latest"
        )


def labels_of(pairs: Labels) -> dict[str, str]:
    """Labels as a mapping again."""
    return dict(pairs)


def pod_workload(q: Q, namespace: str, name: str) -> Workload | None:
    """The workload in a Pod, or None when there is no such Pod."""
    pod = get(q, Pod, namespace, name)
    if pod is None:
        return None
    labels = pod.metadata.labels
    addresses = tuple(each.ip for each in pod.status.pod_ips) or ((pod.status.pod_ip,) if pod.status.pod_ip else ())
    return Workload(
        namespace=namespace,
        name=name,
        addresses=addresses,
        labels=tuple(sorted(labels.items())),
        service_account=pod.spec.service_account_name or "default",
        tls=_takes_mutual_tls(pod),
        locality=_labelled_locality(labels) or q(node_locality, pod.spec.node_name or ""),
        ports=tuple(
            (port.name, port.container_port)
            for container in pod.spec.containers
            for port in container.ports
            if port.name
        ),
        network=labels.get("topology.istio.io/network", ""),
        node=pod.spec.node_name or "",
        workload=_workload_name(pod),
        ref=pod.ref,
    )


def pod_account(q: Q, namespace: str, name: str) -> str:
    """The service account of a Pod."""
    workload = q(pod_workload, namespace, name)
    return workload.service_account if workload is not None else "default"


def pod_discovery(q: Q, namespace: str, name: str) -> str:
    """What a Pod says about how its proxy learns of the mesh; empty when it says nothing."""
    pod = get(q, Pod, namespace, name)
    return pod.metadata.annotations.get(DISCOVERY_ANNOTATION, "") if pod is not None else ""


def pod_ready(q: Q, namespace: str, name: str) -> bool:
    """True when the Pod's own Ready condition says so and it is not on its way out."""
    pod = get(q, Pod, namespace, name)
    if pod is None or pod.metadata.deletion_timestamp:
        return False
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)


def entry_workload(q: Q, namespace: str, name: str) -> Workload | None:
    """The workload that a WorkloadEntry describes, or None when there is no such entry."""
    entry = get(q, WorkloadEntry, namespace, name)
    if entry is None:
        return None
    spec = entry.spec
    labels = {**entry.metadata.labels, **spec.labels}
    return Workload(
        namespace=namespace,
        name=name,
        addresses=(spec.address,) if spec.address else (),
        labels=tuple(sorted(labels.items())),
        service_account=spec.service_account or "default",
        tls=labels.get(TLS_MODE_LABEL) == "istio",
        locality=parse_locality(spec.locality or ""),
        ports=tuple(sorted(spec.ports.items())),
        weight=spec.weight or 1,
        network=spec.network or "",
        workload=entry.metadata.annotations.get(GROUP_ANNOTATION, name),
        ref=entry.ref,
    )


def entry_healthy(q: Q, namespace: str, name: str) -> bool:
    """True when a WorkloadEntry may take traffic."""
    entry = get(q, WorkloadEntry, namespace, name)
    return entry is not None and entry.healthy


def selected_pods(q: Q, namespace: str, selector: Labels) -> tuple[str, ...]:
    """Names of the Pods in a namespace that have all labels of a selector; none for an empty selector."""
    wanted = dict(selector)
    return tuple(name for name, labels in q(_pod_labels, namespace) if wanted and selects(wanted, dict(labels)))


def selected_entries(q: Q, namespace: str, selector: Labels) -> tuple[str, ...]:
    """Names of the WorkloadEntries in a namespace that have all labels of a selector."""
    wanted = dict(selector)
    return tuple(name for name, labels in q(_entry_labels, namespace) if wanted and selects(wanted, dict(labels)))


def node_locality(q: Q, name: str) -> Locality:
    """Where a node is, by its well-known labels."""
    node = get(q, Node, "", name) if name else None
    if node is None:
        return Locality()
    labels = node.metadata.labels
    return Locality(
        labels.get("topology.kubernetes.io/region", ""),
        labels.get("topology.kubernetes.io/zone", ""),
        labels.get("topology.istio.io/subzone", ""),
    )


def parse_locality(text: str) -> Locality:
    """`region/zone/subzone`, each part optional."""
    parts = [*text.split("/"), "", "", ""]
    return Locality(parts[0], parts[1], parts[2])


def _takes_mutual_tls(pod: Pod) -> bool:
    """A gateway has a proxy too, but its ports are what Gateways say."""
    annotations = pod.metadata.annotations
    if "gateway" in annotations.get(TEMPLATES_ANNOTATION, "").split(","):
        return False
    mode = pod.metadata.labels.get(TLS_MODE_LABEL)
    return mode == "istio" if mode is not None else INJECTED_ANNOTATION in annotations


def _labelled_locality(labels: Mapping[str, str]) -> Locality | None:
    said = next((labels[each] for each in LOCALITY_LABELS if labels.get(each)), None)
    return parse_locality(said.replace(".", "/")) if said else None


def _workload_name(pod: Pod) -> str:
    said = pod.metadata.labels.get("service.istio.io/workload-name")
    if said:
        return said
    owner = next((each for each in pod.metadata.owner_references if each.controller), None)
    if owner is None:
        return pod.metadata.name
    template_hash = pod.metadata.labels.get("pod-template-hash")
    if owner.kind == "ReplicaSet" and template_hash:
        return owner.name.removesuffix(f"-{template_hash}")
    return owner.name


def _pod_labels(q: Q, namespace: str) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (pod.name, tuple(sorted(pod.metadata.labels.items())))
        for pod in in_namespace(q, Pod, namespace)
        if pod.status.phase not in ("Succeeded", "Failed")
    )


def _entry_labels(q: Q, namespace: str) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (entry.name, tuple(sorted({**entry.metadata.labels, **entry.spec.labels}.items())))
        for entry in in_namespace(q, WorkloadEntry, namespace)
    )
