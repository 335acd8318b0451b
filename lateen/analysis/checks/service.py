"""Checks of Services."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.core.pod import Pod
from lateen.api.core.service import Service
from lateen.api.istio.workload_entry import GROUP_ANNOTATION, WorkloadEntry
from lateen.api.objects import everywhere, get
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.distribution import ANNOTATION, KNOWN
from lateen.model.protocols import Protocol, port_protocol
from lateen.model.workloads import TEMPLATES_ANNOTATION, pod_workload, selected_pods


@check("LTN0104", Level.WARNING, "A Service selects no workload", Service)
def selects_nothing(q: Q, subject: Service) -> Iterator[Said]:
    """No workload of the namespace has all labels of the Service's selector. Requests to it are answered with 503.

        selector: {app: review}   # and the Pods say app: reviews

    Correct the labels, or deploy the workload.
    """
    selector = subject.spec.selector
    if selector and subject.spec.type != "ExternalName" and not q(selected, subject.namespace, key(selector)):
        remedy = nearest_labels(q, subject.namespace, selector)
        yield Said("spec.selector", "no workload has these labels", remedy)


@check("LTN0105", Level.WARNING, "A Service names a port that its workloads do not have", Service)
def unknown_target_port(q: Q, subject: Service) -> Iterator[Said]:
    """`targetPort` is a name, and no container of the selected workloads has a port of that name.

        targetPort: htpp

    Correct the name, or give the container's port that name.
    """
    groups = q(selected, subject.namespace, key(subject.spec.selector)) if subject.spec.selector else ()
    names = {name for each in groups for name, _ in each.ports if name}
    for index, port in enumerate(subject.spec.ports):
        target = port.target_port
        if groups and isinstance(target, str) and not target.isdecimal() and target not in names:
            remedy = f"they have {', '.join(sorted(names)) or 'no named ports'}"
            path = at("spec", "ports", index, "targetPort")
            yield Said(path, f"no selected workload has a port named {target}", remedy)


@check("LTN0223", Level.WARNING, "A traffic distribution that nobody knows", Service)
def unknown_distribution(q: Q, subject: Service) -> Iterator[Said]:
    """The annotation `networking.istio.io/traffic-distribution` of a Service has a value that means nothing, so all
    endpoints are alike.

        annotations: {networking.istio.io/traffic-distribution: PreferNear}

    Use `PreferSameZone` or `PreferSameNode`, or the field `spec.trafficDistribution`, which counts before it.
    """
    said = subject.metadata.annotations.get(ANNOTATION)
    if said is not None and subject.spec.traffic_distribution is None and said.lower() not in KNOWN:
        yield Said(at("metadata", "annotations", ANNOTATION), f'"{said[:40]}" means nothing', "use PreferSameZone")


@check("LTN0272", Level.INFO, "Machines do not reach a Service", Service)
def beyond_machines(q: Q, subject: Service) -> Iterator[Said]:
    """Machines outside of the Pods have joined the mesh. On the local platform they reach Pods by mutual TLS through
    the ingress gateway alone, so a Pod without a sidecar gets no calls from them, and a headless Service none either:
    its clients call Pods by their addresses.

    Give the Pods a sidecar, or machines a Service with an address of its own for the same Pods.
    """
    selector = subject.spec.selector
    if not selector or not q(_machines):
        return
    if subject.spec.cluster_ip == "None":
        yield Said("spec.clusterIP", "machines do not reach a headless Service", "give them one with an address")
        return
    for name in q(selected_pods, subject.namespace, key(selector)):
        found, pod = q(pod_workload, subject.namespace, name), get(q, Pod, subject.namespace, name)
        gateway = pod is not None and "gateway" in pod.metadata.annotations.get(TEMPLATES_ANNOTATION, "").split(",")
        if found is not None and not found.tls and not gateway:
            message = f"machines do not reach Pod {name}: it has no sidecar"
            yield Said("spec.selector", message, "give it one, or call it from Pods")
            return


@check("IST0118", Level.INFO, "The name of a port does not say its protocol", Service)
def port_name_says_nothing(q: Q, subject: Service) -> Iterator[Said]:
    """The protocol of a port is told by `appProtocol` or by the beginning of its name (`http`, `http-web`, `grpc`,
    `tcp-db`). When neither says it, proxies look at the first bytes of each connection: that costs a little time,
    and protocols in which the server speaks first stall.

        ports:
        - {name: web, port: 80}

    Name it `http-web`, or set `appProtocol: http`.
    """
    if subject.spec.type == "ExternalName":
        return
    for index, port in enumerate(subject.spec.ports):
        said = port_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol or "TCP")
        if said is Protocol.AUTO and (port.protocol or "TCP") == "TCP":
            name = f"port {port.name or port.port}"
            remedy = "name it like http-... or tcp-..., or set appProtocol"
            yield Said(at("spec", "ports", index), f"{name} does not say its protocol", remedy)


def _machines(q: Q) -> bool:
    """True when machines have joined the mesh."""
    return any(GROUP_ANNOTATION in each.metadata.annotations for each in everywhere(q, WorkloadEntry))
