"""What is always there in a lab: services with their endpoints, and the addresses of everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

APPLICATION: Final = "10.88.0.5"
GATEWAY: Final = "10.88.0.8"
DNS: Final = "10.88.0.1"
HOSTS: Final = {"one.test": ("10.88.3.1",), "two.test": ("10.88.3.1", "10.88.3.2")}
"""What the name server of the lab knows."""

PODS: Final = (
    # name, address, app, version, region, zone
    ("reviews-v1", "10.88.1.1", "reviews", "v1", "east", "a"),
    ("reviews-v2", "10.88.1.2", "reviews", "v2", "east", "b"),
    ("reviews-v3", "10.88.1.3", "reviews", "v3", "west", "c"),
    ("ratings-v1", "10.88.2.1", "ratings", "v1", "east", "a"),
    ("details-v1", "10.88.2.2", "details", "v1", "east", "a"),
)
OTHERS: Final = {"10.88.3.1": "outside-1", "10.88.3.2": "outside-2", APPLICATION: "app", "127.0.0.1": "app"}
NAMES: Final = {**{address: name for name, address, *_ in PODS}, **OTHERS}
"""Server names by address."""

VIPS: Final = {"reviews": "10.96.0.1", "ratings": "10.96.0.2", "details": "10.96.0.3", "app": "10.96.0.5"}
ADDRESSES: Final = {**VIPS, "gateway": GATEWAY, "outside": "10.97.0.1", "elsewhere": "10.88.3.1"}
"""Where a client dials for a name."""

PORTS: Final = {"http": 9080, "tcp-lines": 9000, "tls-inside": 9443, "unknown": 9100, "grpc": 9090, "http-2nd": 9081}
LISTENING: Final = (*PORTS.values(), 443, 3128, 9082)


def _service(name: str, address: str) -> str:
    ports = "".join(f"\n  - {{name: {each}, port: {port}}}" for each, port in PORTS.items())
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: {address}
  selector: {{app: {name}}}
  ports:{ports}
---"""


def _pod(name: str, address: str, app: str, version: str, region: str, zone: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app: {app}, version: {version}, topology.istio.io/locality: {region}.{zone}}}
spec: {{containers: [{{name: it}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: "True"}}]}}
---"""


def _slice(service: str, pods: list[tuple[str, str]]) -> str:
    endpoints = "".join(
        f"\n- {{addresses: [{address}], conditions: {{ready: true}},"
        f" targetRef: {{kind: Pod, name: {name}, namespace: default}}}}"
        for name, address in pods
    )
    ports = "".join(f"\n- {{name: {name}, port: {port}}}" for name, port in PORTS.items())
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: {service}-1, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}
endpoints:{endpoints}
ports:{ports}
---"""


def _world() -> str:
    parts = [_service(name, address) for name, address in VIPS.items()]
    parts += [_pod(*each) for each in PODS]
    parts.append(_pod("app", APPLICATION, "app", "v1", "east", "a"))
    for service in VIPS:
        own = [(name, address) for name, address, app, *_ in PODS if app == service]
        parts.append(_slice(service, own or [("app", APPLICATION)]))
    return "".join(parts) + SUBSETS


SUBSETS: Final = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
---
"""


@dataclass(frozen=True)
class World:
    """What is always there in a lab: objects as YAML, server names by address, where a client dials for a name, where
    servers listen (address, port), what the name server knows, networks that lead to servers besides 10.88/16, and
    further names in the servers' certificate."""

    objects: str
    names: Mapping[str, str]
    addresses: Mapping[str, str]
    listening: tuple[tuple[str, int], ...]
    hosts: Mapping[str, tuple[str, ...]]
    networks: tuple[str, ...] = ()
    certified: tuple[str, ...] = ()


WORLD: Final = World(_world(), NAMES, ADDRESSES, tuple(("0.0.0.0", port) for port in LISTENING), HOSTS)
