"""Values that the API fills in where a document leaves them out, because clients read them from what is stored.

These are the few that unmodified clients stumble over when they are missing; everything else means the same unset.

Source: the defaults in Kubernetes' API reference of each kind.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.resources import Resource


def filled(resource: Resource, document: Json) -> Json:
    """The document with defaults; the same object when there is nothing to fill in."""
    fill = _FILL.get(resource.collection)
    return document if fill is None else fill(document)


def _spec(document: Json, given: Mapping[str, Any]) -> Json:
    spec = document.get("spec")
    if not isinstance(spec, dict) or all(key in spec for key in given):
        return document
    return {**document, "spec": {**given, **spec}}


def _scaled(document: Json) -> Json:
    return _spec(document, {"replicas": 1})


def _stateful(document: Json) -> Json:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    return _spec(document, {"replicas": 1, "updateStrategy": strategy, "podManagementPolicy": "OrderedReady"})


def _daemons(document: Json) -> Json:
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    return _spec(document, {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}})


def _job(document: Json) -> Json:
    spec = document.get("spec")
    once = isinstance(spec, dict) and "parallelism" not in spec and "completions" not in spec
    counts = {"parallelism": 1, "completions": 1} if once else {"parallelism": 1}
    return _spec(document, {**counts, "backoffLimit": 6, "suspend": False})


def _cron_job(document: Json) -> Json:
    limits = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}
    return _spec(document, {"concurrencyPolicy": "Allow", "suspend": False, **limits})


def _autoscaler(document: Json) -> Json:
    target = {"type": "Utilization", "averageUtilization": 80}
    return _spec(
        document, {"minReplicas": 1, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}
    )


def _secret(document: Json) -> Json:
    """`stringData` is for writing only: it is kept as `data`."""
    said = map_at(document, "stringData")
    if said and all(isinstance(each, str) for each in said.values()):
        coded = {name: base64.b64encode(each.encode()).decode() for name, each in said.items()}
        document = {name: part for name, part in document.items() if name != "stringData"}
        document["data"] = {**map_at(document, "data"), **coded}
    return document if "type" in document else {**document, "type": "Opaque"}


def _definition(document: Json) -> Json:
    spec = map_at(document, "spec")
    names = map_at(spec, "names")
    if not names:
        return document
    kind = str(names.get("kind", ""))
    full = {"singular": kind.lower(), "listKind": f"{kind}List", **names}
    return {**document, "spec": {"conversion": {"strategy": "None"}, **spec, "names": full}}


def _webhooks(document: Json) -> Json:
    hooks = list_at(document, "webhooks")
    given: Json = {
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "timeoutSeconds": 10,
    }
    return (
        {**document, "webhooks": [{**given, **each} if isinstance(each, dict) else each for each in hooks]}
        if hooks
        else document
    )


_FILL: Final[Mapping[tuple[str, str], Callable[[Json], Json]]] = {
    ("apps", "Deployment"): _scaled,
    ("apps", "ReplicaSet"): _scaled,
    ("apps", "StatefulSet"): _stateful,
    ("apps", "DaemonSet"): _daemons,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("", "Secret"): _secret,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
}
