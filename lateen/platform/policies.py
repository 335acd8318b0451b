"""What the mesh's configuration says of a Pod's own network and proxy, from the queries that the control plane asks.

Whether a Pod is locked (only known hosts may be called) holds from its first packet on and follows every change; the
settings of its proxy are those of the moment in which the proxy starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from lateen.api.codec import DecodeError, decode
from lateen.api.mesh.check import is_mesh_config
from lateen.api.objects import transaction
from lateen.api.struct import Json
from lateen.engine import Graph
from lateen.intent.route_table import locked
from lateen.model.envoy_filters import BootstrapPatch, bootstrap_patches
from lateen.model.policy_attachment import Workloads
from lateen.model.proxy_config import ANNOTATION, ProxySettings, proxy_settings
from lateen.model.visibility import client_of
from lateen.model.workloads import Labels
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.cluster import Cluster

KINDS = ("ConfigMap", "EnvoyFilter", "ProxyConfig", "Sidecar")

_log = structlog.stdlib.get_logger("lateen.policies")


class Policies:
    """Answers from a graph of the few objects that decide."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def follow(self, cluster: Cluster, changed: Callable[[], None]) -> None:
        """Keeps the graph as the cluster is; `changed` is told when one of the objects has changed."""

        def take(before: Json | None, after: Json | None) -> None:
            if self._take(before, after):
                changed()

        for kind in KINDS:
            cluster.listen(kind, take)

    def locked(self, pod: Json) -> bool:
        """True when the Pod may call known hosts only, so nothing but its proxy opens connections that leave it."""
        return self._graph.pull(locked, self._graph.pull(client_of, d.namespace(pod), _labels(pod), False))

    def proxy(self, pod: Json) -> ProxySettings:
        """The settings of the Pod's proxy."""
        annotation = d.annotations_of(pod).get(ANNOTATION, "")
        return self._graph.pull(proxy_settings, d.namespace(pod), _labels(pod), annotation)

    def bootstrap(self, pod: Json, metadata: Mapping[str, str], *, router: bool) -> tuple[BootstrapPatch, ...]:
        """The patches of the bootstrap of the Pod's proxy, which has that node metadata."""
        workloads = Workloads(d.namespace(pod), _labels(pod), router)
        return self._graph.pull(bootstrap_patches, workloads, tuple(sorted(metadata.items())))

    def _take(self, before: Json | None, after: Json | None) -> bool:
        document = after or before
        if document is None or not _counts(document):
            return False
        try:
            known = decode(document)
        except DecodeError as error:
            _log.warning("object not understood", kind=document["kind"], name=d.name(document), error=str(error))
            return False
        self._graph.commit(transaction([known] if after is not None else [], [] if after is not None else [known.ref]))
        self._graph.sweep()
        return True


def _counts(document: Json) -> bool:
    return document["kind"] != "ConfigMap" or is_mesh_config(d.namespace(document), d.name(document))


def _labels(pod: Json) -> Labels:
    return tuple(sorted(d.labels(pod).items()))
