"""Coverage: mutual TLS (PeerAuthentication). The other kinds of security.istio.io are not there yet."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "PeerAuthentication": ("spec.**",),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
