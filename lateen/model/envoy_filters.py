"""Which patches of EnvoyFilters mean a proxy, and in what order they apply.

Those of the root namespace come first, then those of the proxy's own; inside each by priority, age and name. A query
over kinds and selectors alone: a changed value of a patch re-runs only what the patch is applied to.

Proxies are told apart by their metadata only as far as some patch asks for it (`metadata_keys`): the rest of what a
proxy says of itself stays out of its Scope, so that proxies go on sharing what is made for them.

Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from lateen.api.istio.envoy_filter import EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, ListenerMatch
from lateen.api.istio.selectors import PolicySelector
from lateen.api.objects import everywhere, get, in_namespace
from lateen.api.struct import Object
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Attachment, Workloads, attachment
from lateen.model.workloads import Labels

MERGES = ("MERGE", "MERGE_AND_REPLACE_LIST")
_OF_LISTENERS = ("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "LISTENER_FILTER")
PROXY_VERSION = "1.31.0"
"""The version of Istio whose configuration lateen's proxies get, for `match.proxy.proxyVersion`."""


class PatchRef(msgspec.Struct, frozen=True, order=True):
    """One patch of one EnvoyFilter."""

    ref: Ref
    index: int
    apply_to: str


class BootstrapPatch(msgspec.Struct, frozen=True):
    """A patch for a proxy that is about to start."""

    ref: PatchRef
    operation: str
    value: Mapping[str, Any]


class _Listed(msgspec.Struct, frozen=True):
    attachment: Attachment
    patches: tuple[tuple[PatchRef, Labels], ...]
    """Each with the metadata that its proxies have."""


def patches(q: Q, workloads: Workloads, metadata: Labels, kinds: tuple[str, ...]) -> tuple[PatchRef, ...]:
    """The patches of these `applyTo` kinds for a proxy of that metadata, in the order in which they apply."""
    return tuple(each for each in q(_patches, workloads, metadata) if each.apply_to in kinds)


def bootstrap_patches(q: Q, workloads: Workloads, metadata: Labels) -> tuple[BootstrapPatch, ...]:
    """The patches for the bootstrap of a proxy, in their order."""
    found: list[BootstrapPatch] = []
    for ref in q(patches, workloads, metadata, ("BOOTSTRAP",)):
        patch = patch_of(q, ref)
        if patch is None or patch.patch is None or patch.patch.operation not in MERGES:
            continue
        context = patch.match.context if patch.match is not None else None
        if context in (None, "ANY") or (context == "GATEWAY") is workloads.router:
            found.append(BootstrapPatch(ref, patch.patch.operation, patch.patch.value))
    return tuple(found)


def metadata_keys(q: Q) -> frozenset[str]:
    """The fields of node metadata that some patch asks for."""
    found = (patch.match for each in everywhere(q, EnvoyFilter) for patch in each.spec.config_patches)
    return frozenset(key for match in found if match is not None and match.proxy for key in match.proxy.metadata)


def asked_metadata(q: Q, metadata: Labels) -> Labels:
    """The part of a proxy's metadata that some patch asks for."""
    keys = q(metadata_keys)
    return tuple(sorted(each for each in metadata if each[0] in keys))


def needs_everything(q: Q, workloads: Workloads, metadata: Labels) -> bool:
    """True when a patch is for what a sidecar does not have that asks for what it needs: whole outbound route tables,
    and listeners that only pass connections on."""
    kinds = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", *_OF_LISTENERS)
    return any(
        _whole(each.apply_to, found) for each in q(patches, workloads, metadata, kinds) if (found := patch_of(q, each))
    )


def _whole(apply_to: str, patch: EnvoyConfigObjectPatch) -> bool:
    match = patch.match or EnvoyConfigObjectMatch()
    if match.context not in (None, "ANY", "SIDECAR_OUTBOUND"):
        return False
    if apply_to in _OF_LISTENERS:
        listener = match.listener or ListenerMatch()
        chain = listener.filter_chain
        inside = chain.filter.name if chain is not None and chain.filter is not None else None
        requests = apply_to == "NETWORK_FILTER" and inside == "envoy.filters.network.http_connection_manager"
        return not requests and listener.name not in ("virtualInbound", "virtualOutbound")
    return apply_to == "ROUTE_CONFIGURATION" or (patch.patch is not None and patch.patch.operation in ("ADD", "REMOVE"))


def selecting_labels(q: Q, namespace: str) -> frozenset[tuple[str, str]]:
    """The labels by which EnvoyFilters tell proxies of a namespace apart."""
    namespaces = dict.fromkeys((q(root_namespace), namespace))
    return frozenset(label for each in namespaces for found in q(_listed, each) for label in found.attachment.selector)


def patch_of(q: Q, ref: PatchRef) -> EnvoyConfigObjectPatch | None:
    """The patch itself, or None when it is gone."""
    found = get(q, EnvoyFilter, ref.ref.namespace, ref.ref.name)
    if found is None or ref.index >= len(found.spec.config_patches):
        return None
    return found.spec.config_patches[ref.index]


def patch_paths(value: object) -> tuple[str, ...]:
    """The places of an EnvoyFilter's patches, each of which can be left out by itself; none of other objects."""
    patches = value.spec.config_patches if isinstance(value, EnvoyFilter) else ()
    return tuple(f"spec.configPatches[{index}]" for index in range(len(patches)))


def without_patches(value: Object, paths: Collection[str]) -> Object:
    """An EnvoyFilter without the patches at those places; the others keep theirs."""
    assert isinstance(value, EnvoyFilter)
    kept = tuple(
        EnvoyConfigObjectPatch() if path in paths else each
        for path, each in zip(patch_paths(value), value.spec.config_patches, strict=True)
    )
    return msgspec.structs.replace(value, spec=msgspec.structs.replace(value.spec, config_patches=kept))


def attached(found: EnvoyFilter) -> Attachment:
    """Which workloads an EnvoyFilter means."""
    said = found.spec.workload_selector
    selector = PolicySelector(match_labels=said.labels) if said is not None else None
    return attachment(found.ref, selector, None, found.spec.target_refs)


def _patches(q: Q, workloads: Workloads, metadata: Labels) -> tuple[PatchRef, ...]:
    namespaces = dict.fromkeys((q(root_namespace), workloads.namespace))
    listed = (each for namespace in namespaces for each in q(_listed, namespace))
    meant = (each for each in listed if each.attachment.means(workloads))
    return tuple(patch for each in meant for patch, asked in each.patches if set(asked) <= set(metadata))


def _listed(q: Q, namespace: str) -> tuple[_Listed, ...]:
    found = sorted(
        in_namespace(q, EnvoyFilter, namespace),
        key=lambda each: (each.spec.priority or 0, each.metadata.creation_timestamp or "9999", each.name),
    )
    return tuple(
        _Listed(
            attached(each),
            tuple(
                (PatchRef(each.ref, index, patch.apply_to or ""), metadata_of(patch))
                for index, patch in enumerate(each.spec.config_patches)
                if _for_proxies(patch)
            ),
        )
        for each in found
    )


def metadata_of(patch: EnvoyConfigObjectPatch) -> Labels:
    """The fields of node metadata that a proxy must have for a patch to be for it."""
    proxy = patch.match.proxy if patch.match is not None else None
    return tuple(sorted(proxy.metadata.items())) if proxy is not None else ()


def _for_proxies(patch: EnvoyConfigObjectPatch) -> bool:
    """False for patches of waypoints, which are no proxies here, and for those of another version."""
    match = patch.match
    if match is None:
        return True
    if match.waypoint is not None or match.context == "WAYPOINT":
        return False
    return match.proxy is None or not match.proxy.proxy_version or _matches(match.proxy.proxy_version, PROXY_VERSION)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
