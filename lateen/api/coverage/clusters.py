"""Coverage: destinations (DestinationRule)."""

from collections.abc import Mapping
from typing import Final

_POLICIES: Final = (
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
)

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "DestinationRule": ("spec.**",),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "DestinationRule": (
        *(f"{policy}.loadBalancer.zoneAwareLbSetting" for policy in _POLICIES),
        "spec.trafficPolicy.retryBudget.budgetInterval",
        "spec.subsets[].trafficPolicy.retryBudget.budgetInterval",
    ),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {}
