"""EndpointSlices: the addresses behind a Service, from the Pods its selector chooses.

Pods for which the named target ports resolve to the same numbers share a slice, up to 100 each. A Pod on its way
out stays listed as terminating, so clients drain instead of being cut off. Slices that somebody else wrote (by
their `managed-by` label) are left alone.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, Patch

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.lateen.dev"
LARGEST = 100


def reconcile(service: Json, pods: Sequence[Json], slices: Sequence[Json]) -> Outcome:
    """What to do for one Service, given the Pods and EndpointSlices of its namespace."""
    if d.terminating(service) or d.spec(service).get("type") == "ExternalName":
        return Outcome()
    selector = d.part(d.spec(service), "selector")
    if not selector:
        return Outcome()
    wanted = {d.name(each): each for each in _slices(service, pods, selector)}
    actions: list[Action] = []
    for each in slices:
        if d.labels(each).get(MANAGED_LABEL) != MANAGER or not d.owned_by(each, service):
            continue
        document = wanted.pop(d.name(each), None)
        if document is None:
            actions.append(Delete("EndpointSlice", d.key(each), d.uid(each)))
        elif any(each.get(field) != document[field] for field in ("endpoints", "ports")) or any(
            d.labels(each).get(name) != value for name, value in d.labels(document).items()
        ):
            change = {field: document[field] for field in ("endpoints", "ports")}
            labels = {"metadata": {"labels": dict(d.labels(document))}}
            actions.append(Patch("EndpointSlice", d.key(each), change | labels))
    actions += [Create(document) for document in wanted.values()]
    return Outcome(tuple(actions))


def selects(service: Json, labels: Mapping[str, str]) -> bool:
    """Whether a Pod with these labels is behind the Service."""
    selector = d.part(d.spec(service), "selector")
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def _slices(service: Json, pods: Sequence[Json], selector: Mapping[str, str]) -> list[Json]:
    groups: dict[str, tuple[list[Json], list[Json]]] = {}
    for pod in sorted(pods, key=d.name):
        chosen = all(d.labels(pod).get(name) == value for name, value in selector.items())
        if chosen and d.status(pod).get("podIP") and not d.finished(pod):
            ports = _ports(service, pod)
            groups.setdefault(d.digest(ports, 5), (ports, []))[1].append(_endpoint(service, pod))
    if not groups:
        ports = _ports(service, None)
        groups[d.digest(ports, 5)] = (ports, [])
    out: list[Json] = []
    for group, (ports, endpoints) in sorted(groups.items()):
        for start in range(0, max(1, len(endpoints)), LARGEST):
            suffix = group if start == 0 else f"{group}-{start // LARGEST}"
            out.append(_slice(service, suffix, ports, endpoints[start : start + LARGEST]))
    return out


def _slice(service: Json, suffix: str, ports: list[Json], endpoints: list[Json]) -> Json:
    labels = {**d.labels(service), SERVICE_LABEL: d.name(service), MANAGED_LABEL: MANAGER}
    if d.spec(service).get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{d.name(service)}-{suffix}",
            "namespace": d.namespace(service),
            "labels": labels,
            "ownerReferences": [d.owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def _ports(service: Json, pod: Json | None) -> list[Json]:
    """The Service's ports as this Pod has them; a port name that the Pod doesn't have is left out."""
    out: list[Json] = []
    for port in d.parts(d.spec(service), "ports"):
        protocol = port.get("protocol", "TCP")
        number = target_port(port, pod)
        if number is None:
            continue
        made: Json = {"name": port.get("name", ""), "port": number, "protocol": protocol}
        if port.get("appProtocol"):
            made["appProtocol"] = port["appProtocol"]
        out.append(made)
    return out


def target_port(port: Json, pod: Json | None) -> int | None:
    """The number behind a Service port in that Pod; None when the Pod has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    if target.isdecimal():
        return int(target)
    protocol = port.get("protocol", "TCP")
    containers = d.parts(d.spec(pod), "containers") if pod else []
    return next(
        (
            each["containerPort"]
            for container in containers
            for each in d.parts(container, "ports")
            if each.get("name") == target and each.get("protocol", "TCP") == protocol
        ),
        None,
    )


def _endpoint(service: Json, pod: Json) -> Json:
    serving, terminating = d.ready(pod), d.terminating(pod)
    anyway = bool(d.spec(service).get("publishNotReadyAddresses"))
    endpoint: Json = {
        "addresses": [d.status(pod)["podIP"]],
        "conditions": {
            "ready": anyway or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "nodeName": d.spec(pod).get("nodeName", ""),
        "targetRef": {"kind": "Pod", "name": d.name(pod), "namespace": d.namespace(pod), "uid": d.uid(pod)},
    }
    if d.spec(pod).get("hostname") and d.spec(pod).get("subdomain") == d.name(service):
        endpoint["hostname"] = d.spec(pod)["hostname"]
    return endpoint
