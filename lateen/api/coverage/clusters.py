"""Coverage: destinations (DestinationRule)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "DestinationRule": ("spec.**",),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
