"""What Pods and nodes use, as `kubectl top` and autoscalers of other makers read it (metrics.k8s.io/v1beta1).

The node measures and posts what it saw; it is kept in memory, the latest only, and never written down.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lateen.api.struct import Json
from lateen.apiserver.bodies import FILES_BYTES, body, decoded
from lateen.apiserver.errors import NoMethodError, NotFoundError
from lateen.apiserver.rows import Row
from lateen.apiserver.selectors import selector
from lateen.apiserver.shown import json_response
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Attributes
from lateen.lib.usage import Amount, Measured

GROUP: Final = "metrics.k8s.io"
VERSION: Final = "v1beta1"
MEASURES: Final[Mapping[tuple[str, str], Sequence[tuple[str, str, bool]]]] = {
    (GROUP, VERSION): (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))
}
"""Kinds that are read and never written, with their plurals; True: they are in namespaces."""

_OLD_S: Final = 60.0
"""After so long without news (the node is away) nothing is known."""


class Measures:
    """The latest measurement, beside the objects of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest = Measured()

    async def take(self, request: Request) -> Response:
        """POST of a `Measured`, by the node."""
        self._latest = decoded(await body(request, FILES_BYTES), Measured)
        return json_response({})

    def wanted(self, request: Request) -> Attributes:
        """What a request below `/apis/metrics.k8s.io/v1beta1` reads. NotFoundError, NoMethodError."""
        steps = [each for each in request.path_params["rest"].split("/") if each]
        namespace = ""
        if len(steps) > 2 and steps[0] == "namespaces":
            namespace, steps = steps[1], steps[2:]
        plural, name, *more = [*steps, "", ""]
        if plural not in ("pods", "nodes") or any(more) or (namespace and plural == "nodes"):
            raise NotFoundError("the server could not find the requested resource", remedy="kubectl top pods")
        if request.method not in ("GET", "HEAD"):
            raise NoMethodError(f"{request.method} is not possible here", remedy="measurements are only read")
        return Attributes("get" if name else "list", GROUP, plural, "", namespace, name)

    def answer(self, request: Request, wanted: Attributes) -> Response:
        """What is known of Pods or nodes; a Pod that has just started is not among them."""
        kind = "Pod" if wanted.resource == "pods" else "Node"
        query = request.query_params
        match = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        rows = [
            row
            for row in self._store.list(("", kind), wanted.namespace)
            if (not wanted.name or row.ref.name == wanted.name) and match(row)
        ]
        known = [made for row in rows if (made := self._of(row)) is not None]
        if not wanted.name:
            head: Json = {"kind": f"{kind}MetricsList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
            return json_response({**head, "items": known})
        if not known:
            raise NotFoundError(
                f'{wanted.resource}.{GROUP} "{wanted.name}" not found', remedy="measurements come every few seconds"
            )
        return json_response(known[0])

    def _of(self, row: Row) -> Json | None:
        latest, fresh = self._latest, self._latest.at + _OLD_S > time.time()
        node = row.ref.collection == ("", "Node")
        metadata: Json = {"name": row.ref.name, "creationTimestamp": _moment(latest.at)}
        metadata |= {"namespace": row.ref.namespace} if row.ref.namespace else {}
        metadata |= {"labels": dict(row.labels)} if row.labels else {}
        made: Json = {
            "kind": "NodeMetrics" if node else "PodMetrics",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": metadata,
            "timestamp": _moment(latest.at),
            "window": f"{latest.window_s:.3f}s",
        }
        if node:
            amount = latest.nodes.get(row.ref.name)
            return {**made, "usage": _usage(amount)} if amount is not None and fresh else None
        containers = latest.pods.get(row.decode()["metadata"]["uid"])
        if containers is None or not fresh:
            return None
        return {**made, "containers": [{"name": name, "usage": _usage(each)} for name, each in containers.items()]}


def _usage(amount: Amount) -> Json:
    return {"cpu": f"{math.ceil(amount.cpus * 1e9)}n", "memory": f"{amount.memory_bytes // 1024}Ki"}


def _moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
