"""The Pods that run on this machine, read from the run directory: works while the control plane is away."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lateen.lib.errors import LateenError
from lateen.lib.layout import Layout
from lateen.platform.pod import PodSandbox


class PodNotFoundError(LateenError):
    """No Pod of that name runs on this machine, or the name fits several."""


def running_pods(layout: Layout) -> list[PodSandbox]:
    """What runs here, by namespace and name."""
    pods: list[PodSandbox] = []
    for file in sorted((layout.run / "inits").glob("*/spec.json")):
        try:
            pods.append(msgspec.json.decode(file.read_bytes(), type=PodSandbox))
        except (OSError, msgspec.DecodeError):
            continue  # it is being made or removed at this moment
    return sorted(pods, key=lambda pod: (pod.namespace, pod.name))


def find_pods(layout: Layout, text: str, namespace: str) -> list[PodSandbox]:
    """The Pods that `text` means: NAME, NAME.NAMESPACE, NAMESPACE/NAME or deploy/NAME (also job/NAME).

    PodNotFoundError names those there are.
    """
    kind, _, rest = text.partition("/")
    pods = running_pods(layout)
    if rest and kind in ("deploy", "deployment", "job", "statefulset", "daemonset"):
        found = [pod for pod in pods if pod.namespace == namespace and _owner(pod.name) == rest]
        found = found or [pod for pod in pods if pod.namespace == namespace and pod.name.rsplit("-", 1)[0] == rest]
    else:
        names = {(namespace, text), (kind, rest), tuple(reversed(text.rsplit(".", 1)))}
        if kind in ("pod", "pods"):
            names = {(namespace, rest)}
        found = [pod for pod in pods if (pod.namespace, pod.name) in names]
    if not found:
        there = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods) or "none"
        raise PodNotFoundError(f"no Pod {text} runs here in {namespace}; there are: {there}", remedy="lateen ps -A")
    return found


def find_pod(layout: Layout, text: str, namespace: str) -> PodSandbox:
    """The first of the Pods that `text` means."""
    return find_pods(layout, text, namespace)[0]


def admin_socket(pod: PodSandbox) -> Path:
    """The admin interface of the Pod's proxy. PodNotFoundError when the Pod has no proxy."""
    if pod.proxy is None:
        raise PodNotFoundError(f"the Pod {pod.namespace}/{pod.name} has no proxy", remedy="choose another Pod")
    return Path(pod.proxy.admin_socket)


def _owner(name: str) -> str:
    """A Pod's Deployment by Kubernetes' naming: <deployment>-<hash>-<suffix>."""
    return name.rsplit("-", 2)[0]
