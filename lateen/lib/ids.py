"""Identifiers shared by every layer.

A `Ref` names one object of the mesh; it is hashable, ordered, and round-trips to a string, so a finding, a
status, an Envoy metadata entry and a log line can all lead back to the same YAML document.
"""

from __future__ import annotations

from typing import Final

import msgspec

OWN_CLUSTER: Final = "local_cluster"
"""The cluster that a proxy itself belongs to, in its bootstrap and in what the control plane tells it."""


STATED_METADATA: Final = frozenset(
    (
        *("NAME", "NAMESPACE", "SERVICE_ACCOUNT", "INSTANCE_IPS", "WORKLOAD_NAME", "NODE_NAME", "CLUSTER_ID"),
        *("MESH_ID", "NETWORK", "DNS_DOMAIN", "INTERCEPTION_MODE", "LATEEN_VERSION", "LATEEN_MESH_GATEWAY"),
        *("LATEEN_ON_DEMAND", "LATEEN_HOST_SOCKETS", "LATEEN_COUNTS"),
    )
)
"""The texts of node metadata that every proxy's bootstrap may have, beside those of its environment."""

LOCALITY_LABELS: Final = ("topology.istio.io/locality", "istio-locality")
"""Labels of a Pod that say where it is, the first counts: `REGION.ZONE.SUBZONE`, or with slashes."""


class Ref(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """One object: API group (empty for core), kind, namespace (empty when cluster-scoped) and name."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def collection(self) -> tuple[str, str]:
        """Group and kind: what objects of one kind have in common."""
        return (self.group, self.kind)

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind}/{self.namespace}/{self.name}" if self.namespace else f"{kind}/{self.name}"

    @property
    def short(self) -> str:
        """The name people use: `VirtualService default/reviews`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def parse_ref(text: str) -> Ref:
    """The inverse of `str(ref)`. ValueError when the text has no kind or no name."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{text!r} is not KIND[.GROUP]/[NAMESPACE/]NAME")
    kind, _, group = parts[0].partition(".")
    return Ref(group, kind, parts[1] if len(parts) == 3 else "", parts[-1])
