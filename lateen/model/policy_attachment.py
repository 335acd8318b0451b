"""Which workloads a policy of security.istio.io means: all of its namespace, those of a selector, or a target.

A policy of the root namespace means workloads of every namespace. One with `targetRefs` means only the gateways
that stand for a Gateway (gateway.networking.k8s.io) of its own namespace; other targets belong to waypoints and
attach to nothing here.

Source: https://istio.io/latest/docs/reference/config/type/workload-selector/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference
from lateen.api.struct import Object
from lateen.lib.ids import Ref
from lateen.model.workloads import Labels

T = TypeVar("T", bound=Object)
GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
GATEWAY_GROUP = "gateway.networking.k8s.io"


class Workloads(msgspec.Struct, frozen=True, cache_hash=True):
    """The workloads that one proxy stands for, as far as policies tell them apart."""

    namespace: str
    labels: Labels = ()
    router: bool = False


class Attachment(msgspec.Struct, frozen=True):
    """What a policy says of the workloads it means. `targeted`: it names targets, so no label picks anything."""

    ref: Ref
    selector: Labels = ()
    gateways: tuple[str, ...] = ()
    targeted: bool = False

    def means(self, workloads: Workloads) -> bool:
        """True when the policy, found in the workloads' own or the root namespace, applies to them."""
        if not self.targeted:
            return set(self.selector) <= set(workloads.labels)
        name = dict(workloads.labels).get(GATEWAY_NAME_LABEL)
        return workloads.router and name in self.gateways and self.ref.namespace == workloads.namespace


def attachment(
    ref: Ref,
    selector: PolicySelector | None,
    target: PolicyTargetReference | None,
    targets: tuple[PolicyTargetReference, ...],
) -> Attachment:
    """The attachment that the fields `selector`, `targetRef` and `targetRefs` make."""
    named = (*((target,) if target is not None else ()), *targets)
    gateways = tuple(each.name for each in named if each.kind == "Gateway" and each.group == GATEWAY_GROUP)
    labels = tuple(sorted(selector.match_labels.items())) if selector is not None else ()
    return Attachment(ref, labels, gateways, bool(named))


def oldest_first(policies: Iterable[T]) -> list[T]:
    """Policies by age; those without a date last, equal ones by name."""
    return sorted(policies, key=lambda each: (each.metadata.creation_timestamp or "9999", each.name))
