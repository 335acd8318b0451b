"""Which gateway Pods stand behind the machine's own ports.

A Service of type LoadBalancer is what the outside reaches: each of its target ports that the mesh's settings give a
host port is served by the Unix sockets of its ready Pods' proxies. The table is a file that the forwarder reads for
each connection, so neither process needs the other to be alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lateen.api.struct import Json
from lateen.lib.layout import Layout
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.cluster import Cluster
from lateen.platform.forwarder import write_routes

Routes = dict[int, tuple[Path, ...]]


class HostPorts:
    """Keeps the forwarder's table; `ports` maps a gateway's port to the machine's."""

    def __init__(self, layout: Layout, cluster: Cluster, ports: Mapping[int, int]) -> None:
        self._layout = layout
        self._cluster = cluster
        self._ports = ports
        self._written: Routes | None = None
        for kind in ("Service", "Pod"):
            cluster.listen(kind, self._changed)

    def _changed(self, _before: Json | None, _after: Json | None) -> None:
        found = routes(self._cluster.all("Service"), self._cluster.all("Pod"), self._ports, self._layout)
        if found != self._written:
            write_routes(self._layout.run, found)
            self._written = found


def routes(services: list[Json], pods: list[Json], ports: Mapping[int, int], layout: Layout) -> Routes:
    """Host port -> sockets of the ready Pods behind it."""
    found: Routes = {}
    for service in services:
        selector: dict[str, str] = d.spec(service).get("selector") or {}
        if d.spec(service).get("type") != "LoadBalancer" or not selector:
            continue
        behind = [
            pod
            for pod in pods
            if d.namespace(pod) == d.namespace(service)
            and all(d.labels(pod).get(key) == value for key, value in selector.items())
            and not d.terminating(pod)
            and d.ready(pod)
        ]
        for port in d.parts(d.spec(service), "ports"):
            target = port.get("targetPort", port["port"])
            if target in ports:
                sockets = tuple(layout.pod(d.uid(pod)) / f"gw-{target}.sock" for pod in behind)
                found[ports[target]] = found.get(ports[target], ()) + sockets
    return found
