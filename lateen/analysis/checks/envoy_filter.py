"""Checks of EnvoyFilters: values that are none, places that nothing has."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from lateen.analysis.check import Said, check
from lateen.api.core.pod import Pod
from lateen.api.istio.envoy_filter import EnvoyFilter
from lateen.api.istio.workload_entry import GROUP_ANNOTATION, WorkloadEntry
from lateen.api.objects import everywhere, in_namespace
from lateen.api.problems import at
from lateen.engine import Q
from lateen.envoy.patch import KINDS, OPERATIONS, applied, value_problem
from lateen.envoy.patch_match import filter_name, match_of, sub_filter_name
from lateen.envoy.resource import ResourceType
from lateen.envoy.types import UNPATCHED
from lateen.intent.scope import Proxy, ProxyKind, Scope, scope_of
from lateen.lib.findings import Level
from lateen.lib.ids import STATED_METADATA
from lateen.model.envoy_filters import PatchRef, attached, bootstrap_patches, metadata_of
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Workloads
from lateen.model.proxy_config import ANNOTATION, proxy_settings
from lateen.model.workloads import Labels

NAMED = 3
"""So many proxies are named in a finding."""
_ABSENT = {
    "istio.stats": "its metrics come from Envoy's stats access logger",
    "envoy.filters.http.istio_stats": "its metrics come from Envoy's stats access logger",
    "istio.metadata_exchange": "peers are known by their certificates",
    "envoy.filters.network.metadata_exchange": "peers are known by their certificates",
    "istio.alpn": "protocols are announced cluster by cluster",
    "istio_authn": "identities are checked in the handshake",
    "istio.peer_metadata": "peers are known by their certificates",
}


@check("LTN0110", Level.WARNING, "A patch is no message of its kind", EnvoyFilter)
def no_message(_q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """The `value` of a patch cannot be read as the Envoy message that `applyTo` says, so the patch is left out; the
    other patches of the object apply.

        applyTo: CLUSTER
        patch: {operation: MERGE, value: {connect_timeout: soon}}

    Correct the value by Envoy's documentation of that message. Durations are written `5s`; extensions need
    `typed_config` with an `@type` that Envoy 1.40 has.
    """
    for index, each in enumerate(subject.spec.config_patches):
        problem = value_problem(each)
        if problem:
            yield Said(at("spec", "configPatches", index, "patch", "value"), f"it is left out: {problem}")


@check("LTN0111", Level.WARNING, "A patch is anchored on a filter that is not there", EnvoyFilter)
def absent_anchor(_q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """The patch is placed by a filter of Istio's own proxy, which stock Envoy does not have. lateen does that
    filter's work in another way, so nothing has this place and the patch does nothing.

        subFilter: {name: istio.stats}

    Place the patch by another filter, such as `envoy.filters.http.router`, or remove it.
    """
    for index, each in enumerate(subject.spec.config_patches):
        match = match_of(each)
        for name in (filter_name(match), sub_filter_name(match)):
            if name in _ABSENT:
                place = at("spec", "configPatches", index, "match", "listener")
                yield Said(place, f"there is no {name} here: {_ABSENT[name]}", "use another filter as the place")


@check("LTN0269", Level.WARNING, "An operation that its object does not have", EnvoyFilter)
def no_operation(_q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """Not everything can be done with everything: a route table or a bootstrap is merged with, a cluster is not
    inserted before another. The patch does nothing.

        applyTo: ROUTE_CONFIGURATION
        patch: {operation: REMOVE}

    Use an operation that the finding names.
    """
    for index, each in enumerate(subject.spec.config_patches):
        wanted = OPERATIONS.get(each.apply_to or "")
        operation = each.patch.operation if each.patch is not None else None
        if wanted is not None and operation not in (None, *wanted):
            message = f"{operation} is not done with a {each.apply_to}"
            yield Said(at("spec", "configPatches", index, "patch", "operation"), message, f"use {', '.join(wanted)}")


@check("LTN0270", Level.WARNING, "Proxies of machines start without a patch of the bootstrap", EnvoyFilter)
def machines_without(q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """The object patches the bootstrap of proxies, and some of those it means are of machines outside of the Pods. Such
    a proxy is started by its own agent, which knows no EnvoyFilters, so it starts without the patch.

    Set what you need in another way there, or name the Pods in `workloadSelector`.
    """
    placed = [index for index, each in enumerate(subject.spec.config_patches) if each.apply_to == "BOOTSTRAP"]
    if not placed:
        return
    where = _where(q, subject)
    entries = in_namespace(q, WorkloadEntry, where) if where else everywhere(q, WorkloadEntry)
    for each in sorted(entries, key=lambda each: each.ref):
        labels = tuple(sorted({**each.metadata.labels, **each.spec.labels}.items()))
        machine = GROUP_ANNOTATION in each.metadata.annotations
        if machine and attached(subject).means(Workloads(each.namespace, labels)):
            yield Said(at("spec", "configPatches", placed[0]), f"{each.ref.short} is a machine, and starts without it")
            return


@check("LTN0112", Level.WARNING, "A patch matches nothing", EnvoyFilter)
def matches_nothing(q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """There are proxies that the object means, and nothing in their configuration is what the patch is for: no such
    listener, filter, route or cluster, or no proxy of that metadata. The patch does nothing there.

    Compare the match with `lateen proxy-config` of one of the proxies named.
    """
    proxies = [each for each in q(_proxies, _where(q, subject)) if attached(subject).means(_meant(each.scope))]
    if not proxies:
        return
    for index, each in enumerate(subject.spec.config_patches):
        ref = PatchRef(subject.ref, index, each.apply_to or "")
        operation = each.patch.operation if each.patch is not None else None
        if operation not in OPERATIONS.get(ref.apply_to, ()) or value_problem(each) or match_of(each).waypoint:
            continue
        asked = metadata_of(each)
        said = [found for found in proxies if found.says(asked)]
        scopes = dict.fromkeys(replace(found.scope, metadata=_together(found.scope.metadata, asked)) for found in said)
        if not any(_meets(q, ref, scope) for scope in scopes):
            names = [found.pod for found in said or proxies]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            what = "nothing of" if said else "no proxy states that metadata: not"
            message = f"{what} {', '.join(names[:NAMED])}{more}{' is what it is for' if said else ''}"
            yield Said(at("spec", "configPatches", index, "match"), message, "correct the match")


CHECKS = (no_message, absent_anchor, no_operation, machines_without, matches_nothing)


class _Found(msgspec.Struct, frozen=True):
    """A Pod with a proxy, its scope, and what its environment adds to the metadata of its proxy."""

    pod: str
    scope: Scope
    metadata: Labels

    def says(self, asked: Labels) -> bool:
        """Whether the proxy may have that metadata: what every bootstrap states is taken as said."""
        return {each for each in asked if each[0] not in STATED_METADATA} <= set(self.metadata)


def _together(first: Labels, second: Labels) -> Labels:
    return tuple(sorted({*first, *second}))


def _meets(q: Q, ref: PatchRef, scope: Scope) -> bool:
    if ref.apply_to == "BOOTSTRAP":
        return ref in {each.ref for each in q(bootstrap_patches, _meant(scope), scope.metadata)}
    return ref in q(applied, scope, _types(ref.apply_to))


def _types(apply_to: str) -> tuple[ResourceType, ...]:
    return tuple(each for each in UNPATCHED if apply_to in KINDS[each.short])


def _where(q: Q, subject: EnvoyFilter) -> str:
    """The namespace of the proxies an EnvoyFilter can mean; empty for all."""
    return "" if subject.namespace == q(root_namespace) else subject.namespace


def _meant(scope: Scope) -> Workloads:
    return Workloads(scope.namespace, scope.labels, scope.router)


def _proxies(q: Q, namespace: str) -> tuple[_Found, ...]:
    """The Pods with a proxy."""
    pods = in_namespace(q, Pod, namespace) if namespace else everywhere(q, Pod)
    found: list[_Found] = []
    for pod in pods:
        annotations = pod.metadata.annotations
        said = pod.metadata.labels.get("sidecar.istio.io/inject", annotations.get("sidecar.istio.io/inject"))
        if said == "false" or pod.status.phase in ("Succeeded", "Failed"):
            continue
        router = "gateway" in annotations.get("inject.istio.io/templates", "").split(",")
        kind = ProxyKind.ROUTER if router else ProxyKind.SIDECAR
        labels = tuple(sorted(pod.metadata.labels.items()))
        settings = q(proxy_settings, pod.namespace, labels, annotations.get(ANNOTATION, ""))
        metadata = tuple(sorted(settings.metadata.items()))
        scope = q(scope_of, Proxy(kind, pod.namespace, pod.name, metadata=metadata))
        found.append(_Found(f"{pod.namespace}/{pod.name}", scope, metadata))
    return tuple(found)
