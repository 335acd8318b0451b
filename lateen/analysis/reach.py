"""Whose traffic a change of an object can alter: what must be known to hold it responsible for errors, or not.

Kinds that name hosts reach these; workloads, ConfigMaps and Secrets the services of their namespace; other kinds that
configure the mesh reach everybody; what is left (RBAC, Events, Leases and the like) nobody. Too wide is safe: time
decides then. Too narrow would let the culprit go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from lateen.api.mesh.config import MESH_CONFIG_NAME, ROOT_NAMESPACE
from lateen.lib.ids import Ref
from lateen.model.hosts import covers, overlap, parse_service_host, resolve, service_host

Json = dict[str, Any]

_WORKLOADS: Final = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ConfigMap", "Secret", "ServiceAccount"}
)
_SENDS_TO: Final = ("destination", "mirror")


class Reach(msgspec.Struct, frozen=True):
    """Hosts by `patterns`, and all services of a `namespace`; `everybody`: any host."""

    patterns: frozenset[str] = frozenset()
    namespace: str = ""
    everybody: bool = False

    def concerns(self, host: str, domain: str) -> bool:
        """True when calls of that host may go otherwise."""
        if self.everybody or any(covers(each, host) or overlap(each, host) for each in self.patterns):
            return True
        found = parse_service_host(host, domain) if self.namespace else None
        return found is not None and found[1] == self.namespace


NOBODY: Final = Reach()


def reach(ref: Ref, bodies: Iterable[Json], domain: str) -> Reach:
    """The reach of a change of that object; `bodies` are what it was and is, without metadata."""
    istio = ref.group.endswith(".istio.io")
    specs: list[Json] = [each.get("spec") or {} for each in bodies] if istio else []
    match ref.kind:
        case "VirtualService" if istio:
            hosts = [each for spec in specs for each in _of_virtual_service(spec)]
        case "DestinationRule" if istio:
            hosts = [str(spec.get("host", "")) for spec in specs]
        case "ServiceEntry" if istio:
            hosts = [str(each) for spec in specs for each in spec.get("hosts") or ()]
        case "Service" if not ref.group:
            return Reach(frozenset({service_host(ref.name, ref.namespace, domain)}))
        case _ if istio or ref == Ref("", "ConfigMap", ROOT_NAMESPACE, MESH_CONFIG_NAME):
            return Reach(everybody=True)
        case kind if kind in _WORKLOADS and ref.group in ("", "apps"):
            return Reach(namespace=ref.namespace)
        case _:
            return NOBODY
    if not all(hosts):
        return Reach(everybody=True)
    return Reach(frozenset(resolve(each, ref.namespace, domain) for each in hosts))


def answers_itself(ref: Ref, spec: Json, domain: str) -> str:
    """The host for which a VirtualService answers without any destination; empty when it is not one of its own."""
    hosts: list[str] = spec.get("hosts") or []
    return resolve(hosts[0], ref.namespace, domain) if len(hosts) == 1 and "*" not in hosts[0] else ""


def _of_virtual_service(spec: Json) -> Iterator[str]:
    """Its destinations; its own hosts where sidecars read it; one empty name for a delegate, whose hosts are
    another's."""
    gateways: list[str] = spec.get("gateways") or ["mesh"]
    hosts: list[str] = spec.get("hosts") or [""]
    if "mesh" in gateways or not hosts[0]:
        yield from map(str, hosts)
    yield from _destinations(spec)


def _destinations(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:  # pyright: ignore[reportUnknownVariableType] (JSON)
            yield from _destinations(each)
    elif isinstance(value, dict):
        node: Json = value  # pyright: ignore[reportUnknownVariableType] (JSON)
        for key, each in node.items():
            if key in _SENDS_TO and isinstance(each, dict) and "host" in each:
                yield str(each["host"])  # pyright: ignore[reportUnknownArgumentType] (JSON)
            yield from _destinations(each)
