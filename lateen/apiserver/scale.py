"""The part `scale` of kinds that have replicas: the same small object whatever the kind.

Source: https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/ (Scale, autoscaling/v1).
"""

from __future__ import annotations

from typing import Any, cast

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.resources import Scale, value_at
from lateen.apiserver.rows import Row


def scale_document(row: Row, scale: Scale) -> Json:
    """The Scale of an object."""
    document = row.decode()
    metadata = document["metadata"]
    said: Json = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            name: metadata[name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if name in metadata
        },
        "spec": {"replicas": value_at(document, scale.wanted) or 0},
        "status": {"replicas": value_at(document, scale.there) or 0},
    }
    selector = _selector(value_at(document, scale.selector)) if scale.selector else ""
    if selector:
        said["status"]["selector"] = selector
    return said


def with_replicas(document: Json, scale: Scale, replicas: int) -> Json:
    """The document with that number wanted."""
    return _with(document, scale.wanted, replicas)


def _with(value: Any, steps: tuple[str, ...], last: Any) -> Any:
    if not steps:
        return last
    there: Json = cast("Json", value) if isinstance(value, dict) else {}
    return {**there, steps[0]: _with(there.get(steps[0]), steps[1:], last)}


def _selector(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    selector = cast("Json", value)
    parts = [f"{name}={each}" for name, each in sorted(map_at(selector, "matchLabels").items())]
    for each in list_at(selector, "matchExpressions"):
        values = f"({','.join(each.get('values') or ())})"
        match each.get("operator"):
            case "In":
                parts.append(f"{each['key']} in {values}")
            case "NotIn":
                parts.append(f"{each['key']} notin {values}")
            case "Exists":
                parts.append(each["key"])
            case _:
                parts.append(f"!{each['key']}")
    return ",".join(parts)
