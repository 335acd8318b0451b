"""Coverage: routing (VirtualService)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "VirtualService": ("spec.**",),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "VirtualService": (
        "spec.http[].fault.abort.http2Error",
        "spec.http[].fault.delay.exponentialDelay",
    ),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
