"""Coverage: what sidecars know and what stands outside of Pods (Sidecar, ServiceEntry, WorkloadEntry)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "ServiceEntry": ("spec.**", "spec.resolution=NONE|STATIC|DNS|DNS_ROUND_ROBIN"),
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
    "ServiceEntry": ("spec.endpoints[].network",),
    "WorkloadEntry": ("spec.network",),
    "Sidecar": (
        "spec.egress[].bind",
        "spec.egress[].captureMode",
        "spec.ingress[].bind",
        "spec.ingress[].captureMode",
        "spec.ingress[].tls",
        "spec.outboundTrafficPolicy.egressProxy",
    ),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
