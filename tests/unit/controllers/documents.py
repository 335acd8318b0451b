"""Small Kubernetes documents for the controllers' tests, and an API that lives in a dictionary's worth of lines.

`Mesh` carries actions out the way the API server does, so that a test can run a controller to rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Create, Delete, Outcome, Patch, Say, Status

NOW = 1_700_000_000.0


def deployment(replicas: int = 1, version: str = "1", strategy: Json | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "command": ["web", version]}], "oddField": {"kept": True}},
            },
            **({"strategy": strategy} if strategy else {}),
            **spec,
        },
    }


def rolling(surge: int | str, unavailable: int | str) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def pod(name: str, labels: dict[str, str] | None = None, *, ip: str = "", ready: bool = True, **spec: Any) -> Json:
    made: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}", "labels": labels or {"app": "web"}},
        "spec": {"nodeName": "here", "containers": [], **spec},
        "status": {},
    }
    if ip:
        made["status"]["podIP"] = ip
    set_ready(made, ready)
    return made


def set_ready(pod: Json, ready: bool, since: float = NOW - 3600) -> None:
    pod["status"]["phase"] = "Running"
    value = "True" if ready else "False"
    pod["status"]["conditions"] = [{"type": "Ready", "status": value, "lastTransitionTime": d.timestamp(since)}]


class Mesh:
    """Objects by kind; Pods leave only when `gone` is called for them, as a node would report."""

    def __init__(self, *objects: Json) -> None:
        self.objects: dict[str, dict[d.Key, Json]] = {}
        self.seen: list[tuple[int, int]] = []
        self._names = itertools.count()
        for each in objects:
            self.put(each)

    def put(self, document: Json) -> None:
        self.objects.setdefault(document["kind"], {})[d.key(document)] = document

    def all(self, kind: str) -> list[Json]:
        return list(self.objects.get(kind, {}).values())

    @property
    def pods(self) -> list[Json]:
        return self.all("Pod")

    def perform(self, outcome: Outcome) -> int:
        for action in outcome.actions:
            match action:
                case Create(document, _):
                    metadata = dict(document["metadata"])
                    if "generateName" in metadata:
                        number = next(self._names)
                        metadata["name"] = f"{metadata.pop('generateName')}{number}"
                        metadata["creationTimestamp"] = d.timestamp(NOW + number)
                    metadata["uid"] = f"u-{metadata['name']}"
                    self.put({**document, "metadata": metadata, "status": {}})
                case Delete(kind, key, uid, _):
                    found = self.objects[kind][key]
                    assert d.uid(found) == uid
                    assert not d.terminating(found), "deleted twice"
                    if kind == "Pod":
                        found["metadata"]["deletionTimestamp"] = d.timestamp(NOW)
                    else:
                        del self.objects[kind][key]
                case Patch(kind, key, patch):
                    self.put(merged(self.objects[kind][key], patch))
                case Status(document, status):
                    self.put({**self.objects[document["kind"]][d.key(document)], "status": status})
                case Say():
                    pass
        return len(outcome.actions)

    def gone(self) -> None:
        self.objects["Pod"] = {d.key(each): each for each in self.pods if not d.terminating(each)}

    def settle(self, step: Callable[[], Outcome], between: Callable[[], None], rounds: int = 50) -> int:
        """Runs a controller until it wants nothing more; how many rounds that took."""
        for count in range(rounds):
            between()
            if not self.perform(step()):
                return count
        raise AssertionError("the controller does not come to rest")


def merged(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    change = cast("Json", patch)
    out = dict(cast("Json", document)) if isinstance(document, dict) else {}
    for name, value in change.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name), value)
    return out


def names(documents: Sequence[Json]) -> list[str]:
    return [d.name(each) for each in documents]
