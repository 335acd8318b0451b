"""The Envoy of a Pod as the platform starts it: bootstrap, command line and environment, without a control plane."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from lateen.engine import Graph
from lateen.lib.layout import Layout
from lateen.model.proxy_config import ANNOTATION
from lateen.node.envoy import envoy_binary
from lateen.platform.pod import Proxy
from lateen.platform.policies import Policies
from lateen.platform.proxy import Facts, PodProxy
from lateen.platform.translate import injection
from tests.envoy.harness import short_directory

Json = dict[str, Any]
READY_S = 30.0


def settled(graph: Graph, *, app: str = "app", annotation: str = "", namespace: str = "default") -> Json:
    """What Envoy's admin interface says of itself (`/server_info`) when a Pod of these labels is started."""
    directory = short_directory()
    try:
        made = proxy_of(graph, directory, app=app, annotation=annotation, namespace=namespace)
        return server_info(asyncio.run(made.prepare()))
    finally:
        shutil.rmtree(directory)


def proxy_of(
    graph: Graph, directory: Path, *, app: str = "app", annotation: str = "", namespace: str = "default"
) -> PodProxy:
    """The proxy of a Pod of these labels; its files go to that directory."""
    metadata = {"name": "app-1", "namespace": namespace, "uid": "u1", "labels": {"app": app}}
    pod: Json = {"metadata": {**metadata, "annotations": {ANNOTATION: annotation}}, "spec": {"containers": []}}
    layout = Layout("t", directory / "s", directory / "r")
    layout.pod("u1").mkdir(parents=True, exist_ok=True)
    facts = Facts(node_name="n", layout=layout, envoy_binary=envoy_binary())
    injected = injection(pod)
    assert injected is not None
    return PodProxy(facts, Policies(graph), pod, injected, "127.0.0.1")


def server_info(proxy: Proxy) -> Json:
    """What Envoy says of itself when it is started so."""
    process = subprocess.Popen(
        proxy.argv, env={**os.environ, **proxy.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + READY_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(proxy.admin_socket)
                    client = http.client.HTTPConnection("admin")
                    client.sock = connection
                    client.request("GET", "/server_info")
                    return json.loads(client.getresponse().read())
            except OSError:
                assert time.monotonic() < end, "Envoy does not answer"
                assert process.poll() is None, "Envoy has ended"
                time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
