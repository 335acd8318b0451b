"""What the mesh's proxies hold, from their own admin interfaces, and stopping one of them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx

from lateen.cli.pods import running_pods
from lateen.platform.pod import PodSandbox
from tests.e2e.mesh import Mesh

Json = dict[str, Any]
_SECTIONS = ("ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "EndpointsConfigDump")


def with_proxies(mesh: Mesh) -> list[PodSandbox]:
    """The Pods that run with a proxy."""
    return [pod for pod in running_pods(mesh.settings.layout()) if pod.proxy is not None]


def dump(pod: PodSandbox) -> Json:
    """All dynamic resources of a Pod's proxy with their versions, by kind and name; times left out."""
    assert pod.proxy is not None
    transport = httpx.HTTPTransport(uds=pod.proxy.admin_socket)
    with httpx.Client(transport=transport, timeout=20) as client:
        raw: Json = client.get("http://admin/config_dump?include_eds").json()
    found: Json = {}
    for config in raw["configs"]:
        section = config["@type"].rpartition(".")[2]
        if section in _SECTIONS:
            for key, entries in config.items():
                if key.startswith("dynamic_"):
                    for entry in entries:
                        if section == "EndpointsConfigDump" and not _name(entry).startswith("outbound|"):
                            continue  # found by the proxy itself, as connections come
                        found[f"{section} {_name(entry)}"] = _timeless(entry)
                        if section == "ListenersConfigDump":  # Envoy keeps the version when it changes one in place
                            found[f"{section} {_name(entry)}"].get("active_state", {}).pop("version_info", None)
    return found


def _name(entry: Json) -> str:
    match = re.search(r"'(?:name|cluster_name)': '([^']+)'", str(entry))
    return match.group(1) if match else ""


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key != "last_updated"}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_timeless(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def envoy_pid(pod: PodSandbox) -> int:
    """The process of a Pod's proxy."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words and b"envoy" in words[0] and any(pod.uid.encode() in word for word in words):
            return int(entry.name)
    raise AssertionError(f"no Envoy of {pod.name}")


class Stopped:
    """A proxy that does not run while the block does: SIGSTOP, then SIGCONT."""

    def __init__(self, pod: PodSandbox) -> None:
        self._pid = envoy_pid(pod)

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)
