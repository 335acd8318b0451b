"""Real proxies that are cut off, killed, and back: what is said of the objects they need, and when it is right.

Each Envoy has a network of its own. Cut off means that the kernel drops its packets: the stream neither ends nor
answers. Both ends have shorter keep-alives here, of a second each instead of 30 s and 10 s.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from lateen.node.bootstrap import BootstrapSpec, XdsAddress, argv, bootstrap, write_bootstrap
from lateen.node.envoy import envoy_binary
from lateen.xds.server import OPTIONS
from tests.e2e.machines import Host, Lan
from tests.unit.status.plane import Plane, route, running

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user cannot make networks")

KEEPALIVE = {"grpc.keepalive_time_ms": 1_000, "grpc.keepalive_timeout_ms": 1_000}
SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "{discovery: EAGER, enableAutoMtls: false}"}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
"""
"""Proxies hold all routes, and need no certificates: there is no agent here."""


class Sidecar:
    """A real Envoy on a machine of its own, as the proxy of a Pod."""

    def __init__(self, host: Host, pod: str, plane: Plane) -> None:
        self.host, self.pod = host, pod
        self._admin = host.home / "admin.sock"
        address, _, port = plane.address.rpartition(":")
        spec = BootstrapSpec(
            pod=pod,
            namespace="default",
            ip=host.address,
            xds=XdsAddress(host=address, port=int(port), tls=False),
            admin_path=str(self._admin),
            status_port=None,
            metrics_port=None,
        )
        config = host.home / "envoy.json"
        text = json.dumps(bootstrap(spec)).replace(
            '"interval": "30s", "timeout": "10s"', '"interval": "1s", "timeout": "1s"'
        )
        assert '"interval": "1s"' in text
        write_bootstrap(json.loads(text), config)
        self._process = host.start(*argv(spec, envoy_binary(), config), log="envoy.log")

    def holds(self, timeout: str) -> bool:
        """True when its configuration has a route with that timeout."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._admin)), timeout=10) as client:
            return (
                f'"timeout": "{timeout}"' in client.get("http://admin/config_dump?resource=dynamic_route_configs").text
            )

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan(200 + os.getpid() % 50)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
async def plane(lan: Lan) -> AsyncIterator[Plane]:
    async with running(lan.host, tuple({**dict(OPTIONS), **KEEPALIVE}.items())) as made:
        await made.apply(SETTINGS)
        yield made


def behind(plane: Plane) -> dict[str, list[str]]:
    """The resources that proxies have not got, by proxy."""
    return {each.proxy.name: [one.name for one in each.behind] for each in plane.xds.proxies() if each.behind}


async def said(plane: Plane, reason: str, message: str, within_s: float = 20) -> float:
    """Waits until the condition of the rule is that; seconds."""

    def holds() -> bool:
        condition = plane.condition("vs", "a", "Programmed")
        return condition.get("reason") == reason and condition["message"].startswith(message)

    return await plane.until(holds, within_s)


async def test_cut_off_killed_and_back(plane: Plane, lan: Lan, tmp_path: Path) -> None:
    cut, other = (Sidecar(lan.machine(), pod, plane) for pod in ("reviews-1", "ratings-1"))
    await plane.apply(route("a", "reviews", "1s"))
    await said(plane, "Live", "live on 2 of 2 proxies", 30)
    assert cut.holds("1s")
    assert other.holds("1s")

    cut.host.cut_off()
    await plane.apply(route("a", "reviews", "2s"))
    await said(plane, "Pending", "live on 1 of 2 proxies; reviews-1.default has not answered for routes 9080")
    assert other.holds("2s")
    assert cut.holds("1s")
    assert behind(plane) == {"reviews-1": ["9080"]}
    since = next(each.behind[0].since for each in plane.xds.proxies() if each.behind)
    await plane.apply(route("b", "ratings", "3s"))
    await plane.until(lambda: plane.condition("vs", "b", "Programmed").get("reason") == "Pending")
    assert next(each.behind[0].since for each in plane.xds.proxies() if each.behind) == since

    await said(plane, "Live", "live on 1 of 1 proxies")  # gone: nobody waits for it for ever
    assert [each.proxy.name for each in plane.xds.proxies()] == ["ratings-1"]
    assert cut.holds("1s")

    cut.host.mend()
    await said(plane, "Live", "live on 2 of 2 proxies", 60)
    assert cut.holds("2s")

    other.kill()
    assert await said(plane, "Live", "live on 1 of 1 proxies") < 10
    assert [each.proxy.name for each in plane.xds.proxies()] == ["reviews-1"]
