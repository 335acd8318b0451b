"""AuthorizationPolicies that apply to a workload, and the external authorizers they may name.

Policies of the root namespace come first, then those of the workload's own, each oldest first. The order decides
nothing but the order of external authorizers: Istio's semantics are sets of rules per action.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
"""

from __future__ import annotations

import msgspec

from lateen.api.codec import DecodeError, decode_as
from lateen.api.istio.authorization_policy import AuthorizationPolicy
from lateen.api.mesh.ext_authz import EXT_AUTHZ, ExtensionProvider, ExtGrpc, ExtHttp
from lateen.api.objects import get, in_namespace
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import mesh_config, root_namespace
from lateen.model.policy_attachment import Attachment, Workloads, attachment, oldest_first

DRY_RUN = "istio.io/dry-run"
EXPLAIN = "lateen.io/explain-denials"
"""Set to "true" on a policy of action AUDIT: whoever it matches is told which rule refused a request."""


class AttachedPolicy(msgspec.Struct, frozen=True):
    """One policy that applies. `explain`: it says who may know why a request is refused."""

    policy: AuthorizationPolicy
    dry_run: bool = False
    explain: bool = False

    @property
    def action(self) -> str:
        """ALLOW unless the policy says otherwise."""
        return self.policy.spec.action or "ALLOW"

    @property
    def provider(self) -> str:
        """The external authorizer of a CUSTOM policy."""
        return (self.policy.spec.provider.name or "") if self.policy.spec.provider is not None else ""


class ExtAuthz(msgspec.Struct, frozen=True):
    """An external authorizer of the mesh configuration: one of the two forms."""

    name: str
    grpc: ExtGrpc | None = None
    http: ExtHttp | None = None


def authorization_policies(q: Q, workloads: Workloads) -> tuple[AttachedPolicy, ...]:
    """The policies that apply to some workloads."""
    namespaces = dict.fromkeys((q(root_namespace), workloads.namespace))
    found = [
        get(q, AuthorizationPolicy, each.ref.namespace, each.ref.name)
        for namespace in namespaces
        for each in q(_attachments, namespace)
        if each.means(workloads)
    ]
    return tuple(
        AttachedPolicy(each, _says(each, DRY_RUN), each.spec.action == "AUDIT" and _says(each, EXPLAIN))
        for each in found
        if each is not None
    )


def ext_authz(q: Q, name: str) -> ExtAuthz | None:
    """The external authorizer of that name, None when the mesh configuration has none."""
    for raw in q(mesh_config).extension_providers:
        if raw.get("name") == name and any(key in raw for key in EXT_AUTHZ):
            try:
                said = decode_as(dict(raw), ExtensionProvider)
            except DecodeError:
                return None
            return ExtAuthz(name, said.envoy_ext_authz_grpc, said.envoy_ext_authz_http)
    return None


def policy_refs(policies: tuple[AttachedPolicy, ...]) -> tuple[Ref, ...]:
    """The objects behind some policies."""
    return tuple(each.policy.ref for each in policies)


def _attachments(q: Q, namespace: str) -> tuple[Attachment, ...]:
    found = oldest_first(in_namespace(q, AuthorizationPolicy, namespace))
    return tuple(
        attachment(each.ref, each.spec.selector, each.spec.target_ref, each.spec.target_refs) for each in found
    )


def _says(policy: AuthorizationPolicy, annotation: str) -> bool:
    return policy.metadata.annotations.get(annotation, "").lower() == "true"
