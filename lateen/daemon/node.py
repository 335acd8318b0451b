"""The node process of a mesh: controllers and kubelet over the API, on the local platform.

    python -m lateen.daemon.node SETTINGS-FILE SUPERVISOR-PID

It starts by learning everything (the API's objects, the Pods that run) and only then acts. When it ends, Pods go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import structlog

from lateen import __version__
from lateen.api.struct import Json
from lateen.apiserver.client import Client
from lateen.apiserver.errors import ExistsError
from lateen.daemon.process import main
from lateen.daemon.settings import Settings
from lateen.lib.errors import LateenError
from lateen.lib.usage import Measured
from lateen.node.envoy import envoy_binary
from lateen.platform.controllers import work
from lateen.platform.controllers.api import NodeApi, follow
from lateen.platform.controllers.cluster import Cluster
from lateen.platform.controllers.events import Recorder
from lateen.platform.host_ports import HostPorts
from lateen.platform.kubelet import Kubelet
from lateen.platform.proxy import Facts
from lateen.platform.sandbox import Platform
from lateen.platform.settings import of_ranges
from lateen.platform.usage import Sampler

RETRY_S = 1.0
USAGE_S = 5.0
"""How often what Pods use is measured."""

_log = structlog.stdlib.get_logger("lateen.node")


def host_ports(settings: Settings) -> dict[int, int]:
    """The ingress gateway's port -> the machine's, of those that are on."""
    ports = {8080: settings.gateway_port, 8443: settings.https_port}
    if settings.vm_host:
        ports[15443] = settings.vm_gateway_port
    return {inside: outside for inside, outside in ports.items() if outside}


async def serve(settings: Settings) -> None:
    """Runs the node until cancelled."""
    layout, addresses = settings.layout(), of_ranges(settings.pod_range, settings.vip_range)
    facts = Facts(node_name=socket.gethostname(), layout=layout, envoy_binary=envoy_binary(), platform=addresses)
    cluster = Cluster(work.KINDS)
    platform = Platform(layout, addresses)
    async with Client(layout.api_socket) as client, contextlib.AsyncExitStack() as stack:
        api = NodeApi(client)
        stack.push_async_callback(platform.close)
        async with asyncio.TaskGroup() as parts:
            listed = {kind: asyncio.Event() for kind in cluster.kinds}
            for kind, event in listed.items():
                parts.create_task(follow(client, cluster, kind, event), name=f"follow {kind}")
            await platform.start()
            for event in listed.values():
                await event.wait()
            HostPorts(layout, cluster, host_ports(settings))
            tell = Recorder(api, facts.node_name).say
            usage = _Usage(client, platform, facts.node_name)
            parts.create_task(usage.run(), name="usage")
            controllers = work.controllers(api, cluster, addresses.vip_range, lambda: usage.latest, tell)
            parts.create_task(work.run(controllers), name="controllers")
            parts.create_task(_register(client, facts), name="node object")
            await Kubelet(facts, api, cluster, platform, tell).run()


class _Usage:
    """What Pods use, measured again and again, for autoscalers and (told to the API) for people."""

    def __init__(self, client: Client, platform: Platform, node: str) -> None:
        self.latest = Measured()
        self._client = client
        self._platform = platform
        self._sampler = Sampler(node)

    async def run(self) -> None:
        """Measures until cancelled."""
        while True:
            self.latest = await asyncio.to_thread(self._sampler.look, tuple(self._platform.pods().values()))
            with contextlib.suppress(LateenError):  # the API is being started again; the next look comes soon
                await self._client.post("/lateen/v1/usage", self.latest)
            await asyncio.sleep(USAGE_S)


async def _register(client: Client, facts: Facts) -> None:
    """The Node object of this machine, and what is true of it."""
    wanted = node_document(facts)
    while True:
        try:
            with contextlib.suppress(ExistsError):
                await client.create(wanted)
            await client.patch("Node", facts.node_name, "", {"status": wanted["status"]}, status=True)
            return
        except LateenError as error:
            _log.warning("node object not made", error=str(error))
            await asyncio.sleep(RETRY_S)


def node_document(facts: Facts) -> Json:
    """This machine as a Node."""
    machine = os.uname()
    capacity = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki",
    }
    labels = {
        "kubernetes.io/hostname": facts.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": facts.node_name, "labels": labels},
        "spec": {"podCIDR": facts.platform.pod_range},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {
                "kernelVersion": machine.release,
                "architecture": machine.machine,
                "operatingSystem": "linux",
                "kubeletVersion": f"lateen-{__version__}",
            },
        },
    }


if __name__ == "__main__":
    main(serve)
