"""The WorkloadEntry of a machine: what its WorkloadGroup says, at the address the machine has.

The entry is named `GROUP-ADDRESS`, or `GROUP-ADDRESS-NETWORK`, as in Istio, and carries the group's labels and
annotations. With a probe in the group it takes traffic only while the probe succeeds. Its machine runs a proxy, so
others speak mutual TLS to it unless the group's labels say otherwise.

Source: https://istio.io/latest/docs/reference/config/networking/workload-group/
"""

from __future__ import annotations

import msgspec

from lateen.api.codec import encode
from lateen.api.istio.workload_entry import GROUP_ANNOTATION, PROBED_ANNOTATION, WorkloadEntry
from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.struct import Json
from lateen.model.workloads import TLS_MODE_LABEL


def entry_name(group: WorkloadGroup, address: str) -> str:
    """The name of the entry of a machine of that group."""
    parts = (group.name, address.replace(":", "-"), group.spec.template.network or "")
    return "-".join(each for each in parts if each)


def entry_document(group: WorkloadGroup, address: str) -> Json:
    """The entry of a machine of that group at an address."""
    common = group.spec.metadata
    template = group.spec.template
    given: dict[str, str] = {**template.labels, **(common.labels if common else {})}
    labels = {TLS_MODE_LABEL: "istio", **given}
    annotations: dict[str, str] = dict(common.annotations) if common else {}
    annotations[GROUP_ANNOTATION] = group.name
    if group.spec.probe is not None:
        annotations[PROBED_ANNOTATION] = "true"
    owner = {
        "apiVersion": "networking.istio.io/v1",
        "kind": WorkloadGroup.KIND,
        "name": group.name,
        "uid": group.metadata.uid,
    }
    spec = msgspec.structs.replace(template, address=address, labels=labels)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": WorkloadEntry.KIND,
        "metadata": {
            "name": entry_name(group, address),
            "namespace": group.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": encode(spec),
    }
