"""Coverage: patches of the generated configuration (EnvoyFilter), code of one's own (WasmPlugin, TrafficExtension)."""

from collections.abc import Mapping
from typing import Final

_MATCH: Final = "spec.configPatches[].match"

_TARGETS: Final = ("spec.targetRefs[].kind=Gateway",)

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "EnvoyFilter": (
        "spec.configPatches[].applyTo=LISTENER|FILTER_CHAIN|NETWORK_FILTER|HTTP_FILTER|ROUTE_CONFIGURATION|VIRTUAL_HOST"
        "|HTTP_ROUTE|CLUSTER|EXTENSION_CONFIG|LISTENER_FILTER|BOOTSTRAP",
        f"{_MATCH}.context=ANY|SIDECAR_INBOUND|SIDECAR_OUTBOUND|GATEWAY",
        f"{_MATCH}.cluster.**",
        f"{_MATCH}.listener.name",
        f"{_MATCH}.listener.portNumber",
        f"{_MATCH}.listener.listenerFilter",
        f"{_MATCH}.listener.filterChain.**",
        f"{_MATCH}.routeConfiguration.**",
        f"{_MATCH}.proxy.**",
        "spec.configPatches[].patch.filterClass",
        "spec.configPatches[].patch.operation",
        "spec.configPatches[].patch.value.**",
        "spec.priority",
        "spec.workloadSelector.**",
        "spec.targetRefs[].group",
        "spec.targetRefs[].name",
        "spec.targetRefs[].kind=Gateway",
    ),
    "WasmPlugin": ("spec.**", *_TARGETS, "spec.targetRef.kind=Gateway"),
    "TrafficExtension": ("spec.**", *_TARGETS),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "WasmPlugin": ("spec.verificationKey", "spec.targetRef.namespace", "spec.targetRefs[].namespace"),
    "TrafficExtension": ("spec.wasm.verificationKey", "spec.targetRefs[].namespace"),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "EnvoyFilter": {
        f"{_MATCH}.listener.portName": "listeners are told apart by their port's number; Istio ignores the name too",
        f"{_MATCH}.waypoint": "there are no waypoints here, so the patch is for nobody",
    },
}
