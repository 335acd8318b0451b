"""The columns of lateen's own kinds, as `kubectl get` shows them: a cell is made from a document and the time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.resources import value_at

Cell = Callable[[Json, dt.datetime], Any]


class Column(msgspec.Struct, frozen=True):
    """A column, and how its cells are made. `priority` above 0: only in wide tables."""

    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


def age(since: str, now: dt.datetime) -> str:
    """How long ago a moment was, as kubectl writes it: 5s, 3m20s, 47h, 12d."""
    try:
        seconds = int((now - dt.datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    return duration(max(0, seconds))


def duration(seconds: int) -> str:
    """Seconds in at most two units."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{seconds % 60}s" if seconds % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    return f"{days}d" if days < 730 else f"{days // 365}y" + (f"{days % 365}d" if days % 365 else "")


def _get(document: Json, *steps: str, default: Any = None) -> Any:
    found = value_at(document, steps)
    return default if found is None else found


def _field(*steps: str, default: Any = "<none>") -> Cell:
    return lambda document, now: _get(document, *steps, default=default)


def _keys(*names: str) -> Cell:
    return lambda document, now: sum(len(document.get(name) or ()) for name in names)


def _pairs(*steps: str) -> Cell:
    return lambda document, now: ",".join(f"{k}={v}" for k, v in _get(document, *steps, default={}).items()) or "<none>"


def _since(*steps: str) -> Cell:
    return lambda document, now: age(_get(document, *steps, default=""), now) if _get(document, *steps) else "<none>"


def _containers(part: str) -> Cell:
    def cell(document: Json, now: dt.datetime) -> str:
        template = _get(document, "spec", "template", "spec", default=None) or _get(document, "spec", default={})
        return ",".join(str(each.get(part) or "<none>") for each in list_at(template, "containers"))

    return cell


def _ready_pod(document: Json, now: dt.datetime) -> str:
    statuses = _get(document, "status", "containerStatuses", default=())
    wanted = max(len(_get(document, "spec", "containers", default=())), len(statuses))  # the proxy has only a status
    return f"{sum(bool(each.get('ready')) for each in statuses)}/{wanted}"


def _pod_status(document: Json, now: dt.datetime) -> str:
    reason = _get(document, "status", "reason") or _get(document, "status", "phase", default="Pending")
    for each in _get(document, "status", "initContainerStatuses", default=()):
        waiting = _get(each, "state", "waiting", "reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
    for each in _get(document, "status", "containerStatuses", default=()):
        waiting, ended = _get(each, "state", "waiting", "reason"), _get(each, "state", "terminated", "reason")
        reason = waiting or ended or reason
    return "Terminating" if _get(document, "metadata", "deletionTimestamp") else reason


def _restarts(document: Json, now: dt.datetime) -> str:
    statuses = _get(document, "status", "containerStatuses", default=())
    count = sum(each.get("restartCount") or 0 for each in statuses)
    ends = [_get(each, "lastState", "terminated", "finishedAt", default="") for each in statuses]
    return f"{count} ({age(max(ends), now)} ago)" if count and any(ends) else str(count)


def _of(there: str, wanted: str, default: int = 1) -> Cell:
    return lambda document, now: (
        f"{_get(document, 'status', there, default=0)}/{_get(document, 'spec', wanted, default=default)}"
    )


def _ports(document: Json, now: dt.datetime) -> str:
    said: list[str] = []
    for each in _get(document, "spec", "ports", default=()):
        node = f":{each['nodePort']}" if each.get("nodePort") else ""
        said.append(f"{each.get('port')}{node}/{each.get('protocol') or 'TCP'}")
    return ",".join(said) or "<none>"


def _external(document: Json, now: dt.datetime) -> str:
    addresses = _get(document, "spec", "externalIPs", default=[])
    ingress = _get(document, "status", "loadBalancer", "ingress", default=[])
    found = [*addresses, *(each.get("ip") or each.get("hostname") for each in ingress)]
    return ",".join(found) or _get(document, "spec", "externalName") or "<none>"


def _job_status(document: Json, now: dt.datetime) -> str:
    for each in _get(document, "status", "conditions", default=()):
        if each.get("status") == "True" and each.get("type") in ("Complete", "Failed", "Suspended"):
            return each["type"]
    return "Terminating" if _get(document, "metadata", "deletionTimestamp") else "Running"


def _job_duration(document: Json, now: dt.datetime) -> str:
    begun, ended = _get(document, "status", "startTime"), _get(document, "status", "completionTime")
    if not begun:
        return ""
    return age(begun, dt.datetime.fromisoformat(ended) if ended else now)


def _slice_ports(document: Json, now: dt.datetime) -> str:
    return ",".join(str(each.get("port")) for each in list_at(document, "ports")) or "<unset>"


def _endpoints(document: Json, now: dt.datetime) -> str:
    found = [address for each in list_at(document, "endpoints") for address in list_at(each, "addresses")]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _phase(document: Json, now: dt.datetime) -> str:
    gone = _get(document, "metadata", "deletionTimestamp")
    return "Terminating" if gone else _get(document, "status", "phase", default="Active")


def _node_status(document: Json, now: dt.datetime) -> str:
    return "Ready" if _condition(document, "Ready") == "True" else "NotReady"


def _condition(document: Json, kind: str) -> str:
    for each in _get(document, "status", "conditions", default=()):
        if each.get("type") == kind:
            return each.get("status") or "Unknown"
    return ""


def _scaled(document: Json, now: dt.datetime) -> str:
    return f"{_get(document, 'spec', 'scaleTargetRef', 'kind')}/{_get(document, 'spec', 'scaleTargetRef', 'name')}"


def _targets(document: Json, now: dt.datetime) -> str:
    current = {
        _get(each, "resource", "name"): _get(each, "resource", "current", default={})
        for each in _get(document, "status", "currentMetrics", default=())
    }
    said: list[str] = []
    for each in _get(document, "spec", "metrics", default=()):
        name, target = _get(each, "resource", "name"), _get(each, "resource", "target", default={})
        now_at = current.get(name, {})
        if "averageUtilization" in target:
            said.append(f"{name}: {now_at.get('averageUtilization', '<unknown>')}%/{target['averageUtilization']}%")
        else:
            said.append(f"{name}: {now_at.get('averageValue', '<unknown>')}/{target.get('averageValue')}")
    return ", ".join(said) or "<none>"


def _object(document: Json, now: dt.datetime) -> str:
    about: Json = map_at(document, "involvedObject")
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _seen(document: Json, now: dt.datetime) -> str:
    last = document.get("lastTimestamp") or document.get("eventTime") or _get(document, "metadata", "creationTimestamp")
    return age(last or "", now)


def _role(document: Json, now: dt.datetime) -> str:
    return f"{_get(document, 'roleRef', 'kind')}/{_get(document, 'roleRef', 'name')}"


def _address(document: Json, now: dt.datetime) -> str:
    return next((each.get("address", "") for each in _get(document, "status", "addresses", default=())), "")


def _findings(document: Json, now: dt.datetime) -> str:
    found = _get(document, "status", "findings", default=())
    return ",".join(sorted({str(each.get("code")) for each in found}))


NAME: Final = Column("Name", _field("metadata", "name", default=""), format="name")
AGE: Final = Column("Age", lambda document, now: age(_get(document, "metadata", "creationTimestamp", default=""), now))
_IMAGES: Final = (
    Column("Containers", _containers("name"), priority=1),
    Column("Images", _containers("image"), priority=1),
)
_SELECTOR: Final = Column("Selector", _pairs("spec", "selector", "matchLabels"), priority=1)
_LIVE: Final = Column("Live", lambda document, now: _condition(document, "Programmed") or "Unknown")
MESH: Final = (NAME, _LIVE, Column("Findings", _findings), AGE)
WITHOUT_AGE: Final = frozenset({"Event", "CustomResourceDefinition", "Role", "ClusterRole"})
_CREATED: Final = Column("Created At", _field("metadata", "creationTimestamp", default=""), "date")

OWN: Final[Mapping[str, Sequence[Column]]] = {
    "Namespace": (Column("Status", _phase),),
    "Node": (
        Column("Status", _node_status),
        Column("Roles", lambda document, now: "<none>"),
        Column("Version", _field("status", "nodeInfo", "kubeletVersion", default="")),
        Column("Internal-IP", _address, priority=1),
        Column("Kernel-Version", _field("status", "nodeInfo", "kernelVersion", default=""), priority=1),
    ),
    "ServiceAccount": (Column("Secrets", _keys("secrets"), "integer"),),
    "ConfigMap": (Column("Data", _keys("data", "binaryData"), "integer"),),
    "Secret": (Column("Type", _field("type", default="Opaque")), Column("Data", _keys("data"), "integer")),
    "Service": (
        Column("Type", _field("spec", "type", default="ClusterIP")),
        Column("Cluster-IP", _field("spec", "clusterIP")),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        Column("Selector", _pairs("spec", "selector"), priority=1),
    ),
    "EndpointSlice": (
        Column("AddressType", _field("addressType", default="")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _endpoints),
    ),
    "Pod": (
        Column("Ready", _ready_pod),
        Column("Status", _pod_status),
        Column("Restarts", _restarts),
        Column("IP", _field("status", "podIP"), priority=1),
        Column("Node", _field("spec", "nodeName"), priority=1),
        Column("Nominated Node", _field("status", "nominatedNodeName"), priority=1),
        Column("Readiness Gates", lambda document, now: "<none>", priority=1),
    ),
    "Event": (
        Column("Last Seen", _seen),
        Column("Type", _field("type", default="")),
        Column("Reason", _field("reason", default="")),
        Column("Object", _object),
        Column("Message", _field("message", default="")),
        Column("Name", _field("metadata", "name", default=""), priority=1),
    ),
    "Deployment": (
        Column("Ready", _of("readyReplicas", "replicas")),
        Column("Up-to-date", _field("status", "updatedReplicas", default=0), "integer"),
        Column("Available", _field("status", "availableReplicas", default=0), "integer"),
        *_IMAGES,
        _SELECTOR,
    ),
    "ReplicaSet": (
        Column("Desired", _field("spec", "replicas", default=1), "integer"),
        Column("Current", _field("status", "replicas", default=0), "integer"),
        Column("Ready", _field("status", "readyReplicas", default=0), "integer"),
        *_IMAGES,
        _SELECTOR,
    ),
    "StatefulSet": (Column("Ready", _of("readyReplicas", "replicas")), *_IMAGES),
    "DaemonSet": (
        Column("Desired", _field("status", "desiredNumberScheduled", default=0), "integer"),
        Column("Current", _field("status", "currentNumberScheduled", default=0), "integer"),
        Column("Ready", _field("status", "numberReady", default=0), "integer"),
        Column("Up-to-date", _field("status", "updatedNumberScheduled", default=0), "integer"),
        Column("Available", _field("status", "numberAvailable", default=0), "integer"),
        Column("Node Selector", _pairs("spec", "template", "spec", "nodeSelector")),
        *_IMAGES,
        _SELECTOR,
    ),
    "Job": (
        Column("Status", _job_status),
        Column("Completions", _of("succeeded", "completions")),
        Column("Duration", _job_duration),
        *_IMAGES,
        _SELECTOR,
    ),
    "CronJob": (
        Column("Schedule", _field("spec", "schedule", default="")),
        Column("Timezone", _field("spec", "timeZone")),
        Column("Suspend", lambda document, now: str(bool(_get(document, "spec", "suspend")))),
        Column("Active", lambda document, now: len(_get(document, "status", "active", default=())), "integer"),
        Column("Last Schedule", _since("status", "lastScheduleTime")),
    ),
    "HorizontalPodAutoscaler": (
        Column("Reference", _scaled),
        Column("Targets", _targets),
        Column("MinPods", _field("spec", "minReplicas", default=1), "integer"),
        Column("MaxPods", _field("spec", "maxReplicas", default=0), "integer"),
        Column("Replicas", _field("status", "currentReplicas", default=0), "integer"),
    ),
    "Lease": (Column("Holder", _field("spec", "holderIdentity", default="")),),
    "Role": (NAME, _CREATED),
    "ClusterRole": (NAME, _CREATED),
    "RoleBinding": (Column("Role", _role),),
    "ClusterRoleBinding": (Column("Role", _role),),
    "CustomResourceDefinition": (NAME, _CREATED),
    "MutatingWebhookConfiguration": (Column("Webhooks", _keys("webhooks"), "integer"),),
    "ValidatingWebhookConfiguration": (Column("Webhooks", _keys("webhooks"), "integer"),),
}
