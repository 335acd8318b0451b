"""What a Job gets when it is made, beside its uid: the selector by which clients find its Pods, and their labels.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#specifying-your-own-pod-selector
"""

from __future__ import annotations

from lateen.api.struct import Json, map_at

UID_LABEL = "batch.kubernetes.io/controller-uid"
NAME_LABEL = "batch.kubernetes.io/job-name"


def with_selector(job: Json, uid: str, name: str) -> Json:
    """The Job with the selector and labels that are its own; as it is when `manualSelector` says so."""
    spec = map_at(job, "spec")
    if spec.get("manualSelector") or not spec:
        return job
    template = map_at(spec, "template")
    metadata = map_at(template, "metadata")
    labels = {**map_at(metadata, "labels"), UID_LABEL: uid, "controller-uid": uid, NAME_LABEL: name, "job-name": name}
    template = {**template, "metadata": {**metadata, "labels": labels}}
    return {**job, "spec": {**spec, "selector": {"matchLabels": {UID_LABEL: uid}}, "template": template}}
