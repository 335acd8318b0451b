"""Coverage: what sidecars know and what stands outside of Pods (Sidecar, ServiceEntry, WorkloadEntry,
WorkloadGroup)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "ServiceEntry": ("spec.**",),
    "WorkloadEntry": ("spec.**",),
    "WorkloadGroup": ("spec.**",),
    "ProxyConfig": ("spec.concurrency", "spec.environmentVariables", "spec.selector.**"),
    "Sidecar": (
        "spec.workloadSelector.**",
        "spec.egress[].**",
        "spec.ingress[].**",
        "spec.inboundConnectionPool.**",
        "spec.outboundTrafficPolicy.**",
    ),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "ServiceEntry": ("spec.endpoints[].network",),
    "WorkloadEntry": ("spec.network",),
}

_FOR_PEOPLE: Final = "it is for people"
_CLIENTS: Final = "the client's side decides it"

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "WorkloadGroup": {"spec.template.address": "each machine joins with an address of its own"},
    "ProxyConfig": {"spec.image.imageType": "there are no images here: every proxy is the same program"},
    "Sidecar": {
        "spec.egress[].port.name": _FOR_PEOPLE,
        "spec.ingress[].port.name": _FOR_PEOPLE,
        **{
            f"{pool}.http.{field}": _CLIENTS
            for pool in ("spec.inboundConnectionPool", "spec.ingress[].connectionPool")
            for field in ("h2UpgradePolicy", "maxRetries")
        },
    },
}
