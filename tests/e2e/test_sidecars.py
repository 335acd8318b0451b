"""A Sidecar on the running mesh: a port that the proxy opens inside of a Pod, and what can no longer be reached."""

from __future__ import annotations

from tests.e2e.mesh import Mesh, eventually

PROGRAM = """
import sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": sys.argv[1]} if sys.argv[1] else {}))
try:
    print(opener.open(sys.argv[2], timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(error)
"""
SIDECAR = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Sidecar",
    "metadata": {"name": "ratings", "namespace": "default"},
    "spec": {
        "workloadSelector": {"labels": {"app": "ratings"}},
        "egress": [
            {
                "port": {"number": 15002, "protocol": "HTTP_PROXY"},
                "captureMode": "NONE",
                "hosts": ["./details.default.svc.cluster.local"],
            }
        ],
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
    },
}


def test_a_forward_proxy_on_a_port_of_the_proxys_own(mesh: Mesh) -> None:
    (ratings,) = mesh.pods("ratings")

    def status(proxy: str, host: str) -> str:
        return mesh.inside(ratings, "ratings", ["python3", "-c", PROGRAM, proxy, f"http://{host}:9080/health"])[
            1
        ].strip()

    assert eventually(lambda: status("", "details"), lambda said: said == "200") == "200"
    mesh.apply(SIDECAR)
    try:
        assert eventually(lambda: status("http://127.0.0.1:15002", "details"), lambda said: said == "200") == "200"
        assert status("http://127.0.0.1:15002", "reviews") == "502"
        assert status("", "details") != "200", "what only the forward proxy gives is nowhere else"
    finally:
        mesh.lateen("delete", "sidecar", "ratings")
    assert eventually(lambda: status("", "details"), lambda said: said == "200") == "200"
