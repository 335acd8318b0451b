"""Coverage: mutual TLS, tokens and authorization (security.istio.io)."""

from collections.abc import Mapping
from typing import Final

_TARGETS: Final = ("spec.targetRef.group", "spec.targetRef.name", "spec.targetRefs[].group", "spec.targetRefs[].name")
_GATEWAYS: Final = ("spec.targetRef.kind=Gateway", "spec.targetRefs[].kind=Gateway")

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "PeerAuthentication": ("spec.**",),
    "RequestAuthentication": ("spec.jwtRules[].**", "spec.selector.**", *_TARGETS, *_GATEWAYS),
    "AuthorizationPolicy": (
        "spec.action",
        "spec.provider.**",
        "spec.rules[].**",
        "spec.selector.**",
        *_TARGETS,
        *_GATEWAYS,
    ),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
