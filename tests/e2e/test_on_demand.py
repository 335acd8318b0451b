"""Sidecars hold what their workload calls, and nothing else of the mesh."""

from __future__ import annotations

import json

from tests.e2e.mesh import Mesh, eventually
from tests.e2e.proxies import dump, with_proxies
from tests.e2e.test_status import marker, programmed, route


def hosts(mesh: Mesh, pod: str) -> set[str]:
    """The services that the proxy of a Pod has clusters for."""
    found = next(dump(each) for each in with_proxies(mesh) if each.name.startswith(pod))
    names = (name.rpartition("|")[2] for name in found if name.startswith("ClustersConfigDump outbound|"))
    return {name.partition(".")[0] for name in names}


def calls_ratings(mesh: Mesh) -> set[str]:
    """What the newest reviews hold after one more request."""
    assert mesh.ask("/productpage").status == 200
    return hosts(mesh, "reviews-v3")


def test_a_sidecar_holds_what_its_workload_calls(bookinfo: Mesh) -> None:
    unasked = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "unasked", "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 9080}], "selector": {"app": "details"}},
    }
    bookinfo.lateen("apply", "--wait", "-f", "-", stdin=json.dumps(unasked))
    assert bookinfo.ask("/productpage").status == 200
    caller = hosts(bookinfo, "productpage")
    assert {"details", "reviews"} <= caller
    assert "unasked" not in caller
    bookinfo.lateen("delete", "-f", "-", stdin=json.dumps(unasked))
    assert not {"details", "reviews", "productpage"} & hosts(bookinfo, "ratings")
    eventually(lambda: calls_ratings(bookinfo), lambda found: found == {"ratings"}, 20)


def test_an_object_is_live_when_those_who_use_it_hold_it(bookinfo: Mesh) -> None:
    assert bookinfo.ask("/productpage").status == 200
    document = route("details", 401)
    bookinfo.lateen("apply", "--wait", "-f", "-", stdin=json.dumps(document))
    assert programmed(bookinfo, document)["message"] == "live on 1 of 1 proxies"
    shown = bookinfo.lateen("proxy-config", "routes", "deploy/productpage-v1", "-o", "json").stdout
    assert marker(document, 401).strip("'") in shown
    shown = bookinfo.lateen("proxy-config", "routes", "deploy/productpage-v1").stdout
    assert "9080/details.default.svc.cluster.local" in shown
