"""RequestAuthentications that apply to a workload: the issuers whose tokens it understands.

All policies that apply count together, those of the root namespace first, each oldest first.

Source: https://istio.io/latest/docs/reference/config/security/request_authentication/
"""

from __future__ import annotations

import msgspec

from lateen.api.istio.request_authentication import JWTRule, RequestAuthentication
from lateen.api.objects import get, in_namespace
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Attachment, Workloads, attachment, oldest_first


class AttachedRule(msgspec.Struct, frozen=True):
    """One issuer of one policy; `index` is its place there."""

    ref: Ref
    index: int
    rule: JWTRule


def jwt_rules(q: Q, workloads: Workloads) -> tuple[AttachedRule, ...]:
    """The issuers that apply to some workloads."""
    namespaces = dict.fromkeys((q(root_namespace), workloads.namespace))
    found = [
        get(q, RequestAuthentication, each.ref.namespace, each.ref.name)
        for namespace in namespaces
        for each in q(_attachments, namespace)
        if each.means(workloads)
    ]
    return tuple(
        AttachedRule(each.ref, index, rule)
        for each in found
        if each is not None
        for index, rule in enumerate(each.spec.jwt_rules)
    )


def _attachments(q: Q, namespace: str) -> tuple[Attachment, ...]:
    found = oldest_first(in_namespace(q, RequestAuthentication, namespace))
    return tuple(
        attachment(each.ref, each.spec.selector, each.spec.target_ref, each.spec.target_refs) for each in found
    )
