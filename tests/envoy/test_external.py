"""External services with real servers in a world outside of the Pod: TLS origination, failover, what is refused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from lateen.model.auto_addresses import auto_address
from lateen.model.workloads import Locality
from tests.envoy.single_pod import HTTP_APPLICATION
from tests.envoy.world import WORLD, World

REDIS = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: redis}}
spec:
  hosts: [redis.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{name: tcp-redis, number: 6379, protocol: TCP, targetPort: 6380}}]
  endpoints: [{{address: {WORLD}10}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: redis}}
spec:
  host: redis.example
  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: CA, sni: redis.example}}}}
---
"""
BOOKS = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: books}}
spec:
  hosts: [books.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{name: http, number: 80, protocol: HTTP, targetPort: 443}}]
  endpoints:
  - {{address: {WORLD}11, locality: eu/eu-1}}
  - {{address: {WORLD}12, locality: eu/eu-1}}
  - {{address: {WORLD}13, locality: us/us-1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: books}}
spec:
  host: books.example
  trafficPolicy:
    tls: {{mode: SIMPLE, caCertificates: CA}}
    loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{failover: [{{from: eu, to: us}}]}}}}
    outlierDetection:
      consecutive5xxErrors: 1
      interval: 0.2s
      baseEjectionTime: 1s
      maxEjectionPercent: 100
---
"""
RETRIED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  hosts: [books.example]
  http: [{route: [{destination: {host: books.example}}], retries: {attempts: 3, retryOn: "reset,connect-failure"}}]
---
"""
LOCKED = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
"""
SERVED = {f"{WORLD}{number}" for number in (11, 12, 13)}


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    with World([("app", "app")], Locality("eu", "eu-1")) as made:
        yield made


def test_a_plain_client_speaks_to_a_redis_that_speaks_only_tls(running: World) -> None:
    certificate, key = running.certificate("redis.example")
    options = {
        "--port": "0",
        "--tls-port": "6380",
        "--bind": f"{WORLD}10",
        "--tls-cert-file": certificate,
        "--tls-key-file": key,
        "--tls-ca-cert-file": str(running.ca),
        "--tls-auth-clients": "no",
        "--save": "",
        "--protected-mode": "no",
    }
    running.serve(10, 6380, ["redis-server", *(part for option in options.items() for part in option)])
    running.configure(REDIS.replace("CA", str(running.ca)))
    address = running.graph.pull(auto_address, "redis.example")
    assert address is not None
    redis = ["redis-cli", "-h", address, "-p", "6379"]
    assert running.run(*redis, "set", "book", "Tempest").strip() == "OK"
    assert running.run(*redis, "get", "book").strip() == "Tempest"
    running.configure(REDIS.replace("CA", str(running.ca)).replace("sni: redis.example", "sni: other.example"))
    with pytest.raises(AssertionError, match=r"closed|reset"):  # the certificate is of another name
        running.run(*redis, "get", "book")
    running.configure(REDIS.partition("apiVersion: networking.istio.io/v1\nkind: Dest")[0])
    with pytest.raises(AssertionError, match=r"closed|reset"):  # nobody speaks TLS
        running.run(*redis, "get", "book")
    running.end(10)


def test_three_endpoints_fail_over_and_back_under_load(running: World) -> None:
    for number in (11, 12, 13):
        running.serve_https(number, 443, "books.example")
    running.configure(BOOKS.replace("CA", str(running.ca)), RETRIED)
    address = running.graph.pull(auto_address, "books.example")
    assert address is not None
    load = running.start_load(address, 80, "books.example", 13)
    marks: list[float] = []
    for step in (lambda: running.end(11), lambda: running.end(12), lambda: _back(running, 11, 12)):
        time.sleep(2)
        marks.append(time.time())
        step()
    seen = running.load_seen(load)
    servers = [who for _, who in seen]
    assert set(servers) <= SERVED, "no request fails: what meets a dead endpoint is tried again elsewhere"

    def between(start: float, end: float) -> Counter[str]:
        return Counter(who for at, who in seen if start < at < end)

    nearest, first, second, both = [f"{WORLD}{number}" for number in (11, 12, 13)], *marks
    assert set(between(0, first)) == set(nearest[:2])
    one_left = between(first + 0.2, second)  # 70 % of what the near ones can take in all: Envoy's overprovisioning
    assert set(one_left) == set(nearest[1:])
    assert one_left[nearest[1]] > one_left[nearest[2]]
    assert set(between(second + 0.2, both)) == {nearest[2]}
    end = max(at for at, _ in seen)
    assert set(between(end - 1.5, end)) == set(nearest[:2]), "the near ones take over again"
    assert len(seen) > 500


def _back(world: World, *numbers: int) -> None:
    for number in numbers:
        world.serve_https(number, 443, "books.example")


def test_a_locked_mesh_reaches_what_is_registered_and_nothing_else(running: World) -> None:
    running.serve(14, 8080, ["python3", "-I", "-c", HTTP_APPLICATION, f"{WORLD}14", "8080"])
    entry = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: known}}
spec:
  hosts: [known.example]
  resolution: STATIC
  ports: [{{name: http, number: 8080, protocol: HTTP}}]
  endpoints: [{{address: {WORLD}14}}]
---
"""
    running.configure(entry)
    assert running.get(f"{WORLD}14", 8080, "unknown.example")["status"] == 200
    running.configure(entry, LOCKED)
    assert running.get(f"{WORLD}14", 8080, "known.example")["status"] == 200
    assert running.get(f"{WORLD}14", 8080, "unknown.example")["status"] == 502
    assert running.get(f"{WORLD}14", 9999, "known.example")["status"] == 0
    running.end(14)
