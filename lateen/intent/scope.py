"""Scope: the facets of a proxy that translation may read. Proxies with equal Scope share every byte.

A `Proxy` is who is at the other end of a stream: kind, namespace and name come from its authenticated
identity, capabilities from its node metadata, which is only a claim. `scope_of` looks up the Pod (or WorkloadEntry)
behind it. Queries take the smallest facet they need (a namespace, a `Client`, a locality), never a Proxy: each
field added here multiplies memory, so each needs a reason.
"""

from __future__ import annotations

import enum

import msgspec

from lateen.engine import Q
from lateen.model.distribution import nodes_matter
from lateen.model.envoy_filters import asked_metadata, needs_everything
from lateen.model.mesh import ON_DEMAND, counts_requests, discovery
from lateen.model.policy_attachment import Workloads
from lateen.model.visibility import listens_itself, places_listeners
from lateen.model.workloads import Labels, Locality, entry_workload, pod_discovery, pod_workload


class ProxyKind(enum.StrEnum):
    """The role part of Istio's node id."""

    SIDECAR = "sidecar"
    ROUTER = "router"


class HostSocket(msgspec.Struct, frozen=True, order=True, gc=False):
    """A gateway port that is also served on a Unix socket with PROXY protocol (how host ports get in)."""

    port: int
    path: str


class MeshGateway(msgspec.Struct, frozen=True, gc=False):
    """Where Pods are reached from outside of their network: by mutual TLS, the server name saying which service."""

    host: str
    port: int


class Capabilities(msgspec.Struct, frozen=True):
    """What a proxy says it can do (node metadata `LATEEN_*`); absent means a stock Istio client. `mesh_gateway` is
    there for a proxy that cannot reach Pods at their addresses."""

    host_sockets: tuple[HostSocket, ...] = ()
    mesh_gateway: MeshGateway | None = None
    on_demand: bool = False
    """It asks for the virtual hosts, clusters and addresses its workload calls, when it calls them."""
    counts: bool = False
    """It can count requests per service (Envoy's stats access logger), and somebody reads the counts."""


class Proxy(msgspec.Struct, frozen=True, cache_hash=True):
    """Who is at the other end of a stream.

    `labels` and `addresses` are only believed in tool mode (`lateen serve` without authentication), where no
    Pod stands behind the proxy; otherwise they are empty and the Pod is looked up. `metadata` are the texts of its node
    metadata: claims, which nothing but the matches of EnvoyFilters reads.
    """

    kind: ProxyKind
    namespace: str
    name: str
    service_account: str = ""
    addresses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    capabilities: Capabilities = Capabilities()
    metadata: Labels = ()


class Scope(msgspec.Struct, frozen=True, cache_hash=True):
    """Everything translation may know of a proxy. Built by `scope_of`, normalised, compared by value.

    `labels` decide which Services, Gateways, Sidecars and policies mean it. `ports` are the named container ports,
    since a Service may name its target, or those of an `entry` (WorkloadEntry), which outrank the target. `locality`
    orders endpoints. `addresses` are there only for a proxy without a Pod, whose services are found by the address,
    and for one whose Sidecar lets it listen there. `on_demand` is what a proxy can and nothing forbids. `node` is there
    only when something asks for endpoints of the same node, `metadata` as far as EnvoyFilters ask for it.
    """

    kind: ProxyKind
    namespace: str
    labels: Labels = ()
    service_account: str = "default"
    capabilities: Capabilities = Capabilities()
    ports: tuple[tuple[str, int], ...] = ()
    locality: Locality = Locality()
    addresses: tuple[str, ...] = ()
    on_demand: bool = False
    entry: bool = False
    node: str = ""
    metadata: Labels = ()

    @property
    def router(self) -> bool:
        """True for a gateway."""
        return self.kind is ProxyKind.ROUTER


def scope_of(q: Q, proxy: Proxy) -> Scope:
    """The Scope of a proxy now: from the Pod or WorkloadEntry of its name, else from its claims."""
    pod = q(pod_workload, proxy.namespace, proxy.name)
    workload = pod or q(entry_workload, proxy.namespace, proxy.name)
    counts = proxy.capabilities.counts and q(counts_requests)
    can = msgspec.structs.replace(proxy.capabilities, on_demand=False, counts=counts)
    metadata = asked_metadata(q, proxy.metadata) if proxy.metadata else ()
    if workload is None:
        labels = tuple(sorted(proxy.labels))
        return Scope(
            proxy.kind,
            proxy.namespace,
            labels,
            proxy.service_account or "default",
            can,
            addresses=tuple(sorted(proxy.addresses)),
            on_demand=_discovers(q, proxy, proxy.namespace, labels, metadata),
            metadata=metadata,
        )
    return Scope(
        proxy.kind,
        workload.namespace,
        workload.labels,
        workload.service_account,
        can,
        tuple(sorted(workload.ports)),
        workload.locality,
        workload.addresses if q(listens_itself, workload.namespace, workload.labels) else (),
        on_demand=_discovers(q, proxy, workload.namespace, workload.labels, metadata),
        entry=pod is None,
        node=workload.node if q(nodes_matter) else "",
        metadata=metadata,
    )


def workload_of(q: Q, proxy: Proxy) -> tuple[str, str, str]:
    """Namespace, service account and canonical name of what a proxy belongs to: the same for all of its replicas."""
    found = q(pod_workload, proxy.namespace, proxy.name) or q(entry_workload, proxy.namespace, proxy.name)
    if found is not None:
        return found.namespace, found.service_account, found.canonical_name
    return proxy.namespace, proxy.service_account or "default", dict(proxy.labels).get("app", proxy.name)


def _discovers(q: Q, proxy: Proxy, namespace: str, labels: Labels, metadata: Labels) -> bool:
    """True when a proxy is to ask for what it needs: it can, neither the mesh nor its Pod wants it otherwise, no
    EnvoyFilter is for what it would not have, and no Sidecar says where listeners are."""
    if not proxy.capabilities.on_demand or proxy.kind is ProxyKind.ROUTER:
        return False
    said = q(pod_discovery, proxy.namespace, proxy.name) or q(discovery)
    if said != ON_DEMAND or q(places_listeners, namespace, labels):
        return False
    return not q(needs_everything, Workloads(namespace, labels, False), metadata)
