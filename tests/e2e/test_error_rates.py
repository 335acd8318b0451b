"""Revisions after which calls fail more often are marked, on the real mesh under load; harmless ones are not."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from lateen.analysis.jumps import ENOUGH
from lateen.node.request_counts import INTERVAL_S
from tests.e2e.mesh import Mesh, eventually

Json = dict[str, Any]
FAULT = {"fault": {"abort": {"httpStatus": 503, "percentage": {"value": 100}}}}
HOST = "details.default.svc.cluster.local"


def rule(name: str, **more: Any) -> Json:
    """A VirtualService of a service that does nothing by itself."""
    route = {"route": [{"destination": {"host": name}}], "timeout": "9s", **more}
    metadata = {"name": name}
    spec = {"hosts": [name], "http": [route]}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}


def history(mesh: Mesh, *target: str) -> list[Json]:
    return json.loads(mesh.lateen("history", *target, "-o", "json").stdout)


class Reader:
    """Somebody who reads the page all the time."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.pages = 0

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._over.is_set():
            self._mesh.ask("/productpage")
            self.pages += 1

    def goes_on(self) -> None:
        """Returns when there was enough to judge a change by: pages, and whole intervals between two reports."""
        before = self.pages
        time.sleep(3 * INTERVAL_S)
        eventually(lambda: self.pages - before, lambda pages: pages > 3 * ENOUGH, 60)


def test_a_change_that_makes_calls_fail_is_marked_and_a_harmless_one_is_not(bookinfo: Mesh) -> None:
    start = history(bookinfo)[0]["revision"]
    with Reader(bookinfo) as reader:
        reader.goes_on()
        bookinfo.apply(rule("details"), rule("ratings"))
        reader.goes_on()
        bookinfo.apply(rule("details", **FAULT))
        (mark,) = eventually(lambda: history(bookinfo, "vs/details")[0]["errors"], bool, 60)
        bad = history(bookinfo, "vs/details")[0]["revision"]
        assert (mark["host"], mark["what"], mark["others"]) == (HOST, "server errors", 0)
        assert mark["before"].startswith("0 % of ")
        assert int(mark["after"].partition(" %")[0]) > 90
        status = bookinfo.lateen("status", expect=1).stdout
        assert f"VirtualService default/details: server errors of {HOST} rose" in status
        bookinfo.lateen("rollback", "vs/details")
        reader.goes_on()
    assert "rose" not in bookinfo.lateen("status").stdout
    marked = [each["revision"] for each in history(bookinfo) if each["errors"] and each["revision"] > start]
    assert marked == [bad]
