"""Checks of EnvoyFilters: values that are none, places that nothing has."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.api.core.pod import Pod
from lateen.api.istio.envoy_filter import EnvoyFilter
from lateen.api.objects import everywhere, in_namespace
from lateen.api.problems import at
from lateen.engine import Q
from lateen.envoy.patch import KINDS, applied, value_problem
from lateen.envoy.patch_match import filter_name, match_of, sub_filter_name
from lateen.envoy.resource import ResourceType
from lateen.envoy.types import UNPATCHED
from lateen.intent.scope import Proxy, ProxyKind, Scope, scope_of
from lateen.lib.findings import Level
from lateen.model.envoy_filters import PatchRef, attached
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Workloads

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


@check("LTN0112", Level.WARNING, "A patch matches nothing", EnvoyFilter)
def matches_nothing(q: Q, subject: EnvoyFilter) -> Iterator[Said]:
    """There are proxies that the object means, and nothing in their configuration is what the patch is for: no such
    listener, filter, route or cluster. The patch does nothing there.

    Compare the match with `lateen proxy-config` of one of the proxies named.
    """
    proxies = [(pod, scope) for pod, scope in q(_proxies, _where(q, subject)) if attached(subject).means(_meant(scope))]
    if not proxies:
        return
    scopes = dict.fromkeys(scope for _, scope in proxies)
    for index, each in enumerate(subject.spec.config_patches):
        ref = PatchRef(subject.ref, index, each.apply_to or "")
        types = _types(ref.apply_to)
        if not types or value_problem(each):
            continue
        if not any(ref in q(applied, scope, types) for scope in scopes):
            names = [pod for pod, _ in proxies]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            message = f"nothing of {', '.join(names[:NAMED])}{more} is what it is for"
            yield Said(at("spec", "configPatches", index, "match"), message, "correct the match")


CHECKS = (no_message, absent_anchor, matches_nothing)


def _types(apply_to: str) -> tuple[ResourceType, ...]:
    return tuple(each for each in UNPATCHED if apply_to in KINDS[each.short])


def _where(q: Q, subject: EnvoyFilter) -> str:
    """The namespace of the proxies an EnvoyFilter can mean; empty for all."""
    return "" if subject.namespace == q(root_namespace) else subject.namespace


def _meant(scope: Scope) -> Workloads:
    return Workloads(scope.namespace, scope.labels, scope.router)


def _proxies(q: Q, namespace: str) -> tuple[tuple[str, Scope], ...]:
    """The Pods with a proxy and their scopes, by name."""
    pods = in_namespace(q, Pod, namespace) if namespace else everywhere(q, Pod)
    found: list[tuple[str, Scope]] = []
    for pod in pods:
        annotations = pod.metadata.annotations
        said = pod.metadata.labels.get("sidecar.istio.io/inject", annotations.get("sidecar.istio.io/inject"))
        if said == "false" or pod.status.phase in ("Succeeded", "Failed"):
            continue
        router = "gateway" in annotations.get("inject.istio.io/templates", "").split(",")
        kind = ProxyKind.ROUTER if router else ProxyKind.SIDECAR
        found.append((f"{pod.namespace}/{pod.name}", q(scope_of, Proxy(kind, pod.namespace, pod.name))))
    return tuple(found)
