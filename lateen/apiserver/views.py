"""Versions of built-in kinds with a shape of their own: how what is stored is shown in them, and how they are read.

An autoscaling/v1 autoscaler is one of autoscaling/v2 whose only visible metric is the processor; what v1 has no field
for goes along in Kubernetes' annotations, so nothing is lost on the way. An Event of events.k8s.io/v1 is core's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from lateen.api.struct import Json, list_at, map_at

Change = Callable[[Json], Json]


class View(msgspec.Struct, frozen=True):
    """Between a version and what is stored (in `api_version`). `fields`: names of field selectors to stored ones."""

    api_version: str
    show: Change
    read: Change
    fields: Mapping[str, str] = {}


# -- autoscalers ---------------------------------------------------------------------------------------

_PERCENT: Final = "targetCPUUtilizationPercentage"
_CARRIED: Final = "autoscaling.alpha.kubernetes.io/"


def _autoscaler_shown(stored: Json) -> Json:
    spec, status = dict(map_at(stored, "spec")), dict(map_at(stored, "status"))
    carried: Json = {}
    metrics = list_at(spec, "metrics")
    first = next((each for each in metrics if _percent(each) is not None), None)
    if first is not None:
        spec[_PERCENT] = _percent(first)
    others = [each for each in metrics if each is not first]
    carried |= {"metrics": others} if others else {}
    carried |= {"behavior": spec["behavior"]} if spec.get("behavior") else {}
    spec = {name: part for name, part in spec.items() if name not in ("metrics", "behavior")}
    for each in list_at(status, "currentMetrics"):
        resource = map_at(each, "resource")
        used = map_at(resource, "current").get("averageUtilization")
        if resource.get("name") == "cpu" and used is not None:
            status["currentCPUUtilizationPercentage"] = used
    carried |= {"conditions": status["conditions"]} if status.get("conditions") else {}
    carried |= {"current-metrics": status["currentMetrics"]} if status.get("currentMetrics") else {}
    status = {name: part for name, part in status.items() if name not in ("conditions", "currentMetrics")}
    shown = {**stored, "apiVersion": "autoscaling/v1", "spec": spec}
    if "status" in stored:
        shown["status"] = status
    if carried:
        said = {f"{_CARRIED}{name}": msgspec.json.encode(part).decode() for name, part in carried.items()}
        shown = _annotated(shown, {**map_at(map_at(stored, "metadata"), "annotations"), **said})
    return shown


def _autoscaler_read(shown: Json) -> Json:
    annotations = map_at(map_at(shown, "metadata"), "annotations")
    spec, status = dict(map_at(shown, "spec")), dict(map_at(shown, "status"))
    metrics: list[Any] = list_at({"_": _decoded(annotations, "metrics")}, "_")
    if spec.get(_PERCENT) is not None:
        target = {"type": "Utilization", "averageUtilization": spec[_PERCENT]}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    spec.pop(_PERCENT, None)
    spec |= {"metrics": metrics} if metrics else {}
    behavior = _decoded(annotations, "behavior")
    spec |= {"behavior": behavior} if behavior else {}
    status.pop("currentCPUUtilizationPercentage", None)
    for name, place in (("conditions", "conditions"), ("current-metrics", "currentMetrics")):
        part = _decoded(annotations, name)
        status |= {place: part} if part else {}
    stored = {**shown, "apiVersion": "autoscaling/v2"}
    stored |= {"spec": spec} if "spec" in shown else {}
    stored |= {"status": status} if "status" in shown else {}
    if any(name.startswith(_CARRIED) for name in annotations):
        left = {name: each for name, each in annotations.items() if not name.startswith(_CARRIED)}
        stored = _annotated(stored, left)
    return stored


def _percent(metric: Json) -> int | None:
    resource = map_at(metric, "resource")
    return map_at(resource, "target").get("averageUtilization") if resource.get("name") == "cpu" else None


def _decoded(annotations: Json, name: str) -> Any:
    said = annotations.get(f"{_CARRIED}{name}")
    try:
        return msgspec.json.decode(said) if isinstance(said, str) else None
    except msgspec.DecodeError:
        return None


def _annotated(document: Json, annotations: Json) -> Json:
    metadata = {name: part for name, part in map_at(document, "metadata").items() if name != "annotations"}
    return {**document, "metadata": metadata | ({"annotations": annotations} if annotations else {})}


# -- events --------------------------------------------------------------------------------------------

_EVENT: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_STORED_EVENT: Final = {stored: shown for shown, stored in _EVENT.items()}


def _event_shown(stored: Json) -> Json:
    shown = {_STORED_EVENT.get(name, name): part for name, part in stored.items()}
    return {"eventTime": None, **shown, "apiVersion": "events.k8s.io/v1"}


def _event_read(shown: Json) -> Json:
    stored = {
        _EVENT.get(name, name): part for name, part in shown.items() if not (name == "eventTime" and part is None)
    }
    regarding: Any = stored.get("involvedObject")
    if not isinstance(regarding, dict):
        regarding = {}
    return {**stored, "apiVersion": "v1", "involvedObject": cast("Json", regarding)}


VIEWS: Final[Mapping[str, View]] = {
    "autoscaling/v1 HorizontalPodAutoscaler": View("autoscaling/v2", _autoscaler_shown, _autoscaler_read),
    "events.k8s.io/v1 Event": View(
        "v1",
        _event_shown,
        _event_read,
        {
            **{
                f"regarding.{part}": f"involvedObject.{part}"
                for part in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")
            },
            "reason": "reason",
            "reportingController": "reportingComponent",
            "type": "type",
        },
    ),
}
"""By version and kind."""
