"""All cases: one for every file of the samples with a VirtualService, DestinationRule, Gateway or ServiceEntry."""

from __future__ import annotations

from tests.samples import istio, tutorial
from tests.samples.means import Case

CASES: dict[str, Case] = {**istio.CASES, **tutorial.CASES}
