"""Which patches of EnvoyFilters mean a proxy, and in what order they apply.

Those of the root namespace come first, then those of the proxy's own; inside each by priority, age and name. A query
over kinds and selectors alone: a changed value of a patch re-runs only what the patch is applied to.

Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/
"""

from __future__ import annotations

import re

import msgspec

from lateen.api.istio.envoy_filter import EnvoyConfigObjectPatch, EnvoyFilter
from lateen.api.istio.selectors import PolicySelector
from lateen.api.objects import get, in_namespace
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Attachment, Workloads, attachment

CONTEXTS = ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY")
PROXY_VERSION = "1.31.0"
"""The version of Istio whose configuration lateen's proxies get, for `match.proxy.proxyVersion`."""


class PatchRef(msgspec.Struct, frozen=True, order=True):
    """One patch of one EnvoyFilter."""

    ref: Ref
    index: int
    apply_to: str


class _Listed(msgspec.Struct, frozen=True):
    attachment: Attachment
    patches: tuple[PatchRef, ...]


def patches(q: Q, workloads: Workloads, kinds: tuple[str, ...]) -> tuple[PatchRef, ...]:
    """The patches of these `applyTo` kinds for a proxy, in the order in which they apply."""
    return tuple(each for each in q(_patches, workloads) if each.apply_to in kinds)


def patches_tables(q: Q, workloads: Workloads) -> bool:
    """True when a patch is for a whole outbound route table, or adds or takes away virtual hosts."""
    for each in q(patches, workloads, ("ROUTE_CONFIGURATION", "VIRTUAL_HOST")):
        found = patch_of(q, each)
        context = found.match.context if found is not None and found.match is not None else None
        operation = found.patch.operation if found is not None and found.patch is not None else None
        whole = each.apply_to == "ROUTE_CONFIGURATION" or operation in ("ADD", "REMOVE")
        if whole and context in (None, "ANY", "SIDECAR_OUTBOUND"):
            return True
    return False


def patch_of(q: Q, ref: PatchRef) -> EnvoyConfigObjectPatch | None:
    """The patch itself, or None when it is gone."""
    found = get(q, EnvoyFilter, ref.ref.namespace, ref.ref.name)
    if found is None or ref.index >= len(found.spec.config_patches):
        return None
    return found.spec.config_patches[ref.index]


def attached(found: EnvoyFilter) -> Attachment:
    """Which workloads an EnvoyFilter means."""
    said = found.spec.workload_selector
    selector = PolicySelector(match_labels=said.labels) if said is not None else None
    return attachment(found.ref, selector, None, found.spec.target_refs)


def _patches(q: Q, workloads: Workloads) -> tuple[PatchRef, ...]:
    namespaces = dict.fromkeys((q(root_namespace), workloads.namespace))
    listed = (each for namespace in namespaces for each in q(_listed, namespace))
    return tuple(patch for each in listed if each.attachment.means(workloads) for patch in each.patches)


def _listed(q: Q, namespace: str) -> tuple[_Listed, ...]:
    found = sorted(
        in_namespace(q, EnvoyFilter, namespace),
        key=lambda each: (each.spec.priority or 0, each.metadata.creation_timestamp or "9999", each.name),
    )
    return tuple(
        _Listed(
            attached(each),
            tuple(
                PatchRef(each.ref, index, patch.apply_to or "")
                for index, patch in enumerate(each.spec.config_patches)
                if _for_this_proxy(patch)
            ),
        )
        for each in found
    )


def _for_this_proxy(patch: EnvoyConfigObjectPatch) -> bool:
    """False when `match.proxy` asks for another version, or for metadata, which no proxy is told apart by."""
    proxy = patch.match.proxy if patch.match is not None else None
    if proxy is None:
        return True
    return not proxy.metadata and (not proxy.proxy_version or _matches(proxy.proxy_version, PROXY_VERSION))


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
