"""Coverage: what sidecars know and what stands outside of Pods (Sidecar, ServiceEntry, WorkloadEntry)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "ServiceEntry": ("spec.**",),
    "WorkloadEntry": ("spec.**",),
    "Sidecar": (
        "spec.workloadSelector.**",
        "spec.egress[].**",
        "spec.ingress[].**",
        "spec.inboundConnectionPool.**",
        "spec.outboundTrafficPolicy.**",
    ),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "Sidecar": (
        "spec.egress[].captureMode",
        "spec.ingress[].captureMode",
        "spec.outboundTrafficPolicy.egressProxy",
    ),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
