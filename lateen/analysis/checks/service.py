"""Checks of Services."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.core.service import Service
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.distribution import ANNOTATION, KNOWN
from lateen.model.protocols import Protocol, port_protocol


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
