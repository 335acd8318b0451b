"""Coverage: the edge of the mesh (Gateway)."""

from collections.abc import Mapping
from typing import Final

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "Gateway": ("spec.**",),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
