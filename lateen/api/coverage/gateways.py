"""Coverage: the edge of the mesh (Gateway)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "Gateway": (
        "spec.**",
        "spec.servers[].tls.mode=SIMPLE|MUTUAL|PASSTHROUGH|ISTIO_MUTUAL|OPTIONAL_MUTUAL",
    ),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "Gateway": ("spec.servers[].defaultEndpoint",),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "Gateway": {
        "spec.servers[].name": "it is for people",
        "spec.servers[].port.targetPort": "Istio gave the field up; the Service in front says the port",
    },
}
