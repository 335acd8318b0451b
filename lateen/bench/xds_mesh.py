"""A mesh of any size as Kubernetes objects, for benchmarks, and the changes that are made in it.

Each service has an HTTP and a gRPC port and four endpoints in three zones, one in five a TCP port besides, one in ten a
VirtualService and a DestinationRule; all are spread over twenty namespaces. One workload in ten has a Sidecar, one in
twenty a DestinationRule of its own (workloadSelector), and one route in ten is for callers of one workload only.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

Json = dict[str, Any]

NAMESPACES: Final = 20
ZONES: Final = ("a", "b", "c")
HTTP, GRPC, TCP = 80, 9000, 3306
SEQUENCE: Final = "10.99."
"""How the address begins that says with which change it came (`stamp`)."""


class MeshShape(msgspec.Struct, frozen=True):
    """How large a mesh is."""

    services: int
    sidecars: int
    uses: int = 20
    """Services that each sidecar's workload calls: the first of the mesh is among them, the last never."""

    @property
    def last(self) -> int:
        """The service that nobody calls."""
        return self.services - 1


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a service. `stamp` adds an endpoint whose address says with which change it came."""

    endpoints: int = 4
    timeout_s: int = 30
    stamp: str = ""


QUIET: Final = ServiceState()
"""A service before anything has changed."""


def namespace_of(number: int) -> str:
    """The namespace of a service or workload."""
    return f"ns{number % NAMESPACES}"


def host_of(service: int) -> str:
    """The full name of a service."""
    return f"svc{service}.{namespace_of(service)}.svc.cluster.local"


def client_of(sidecar: int) -> str:
    """The name of a workload that calls."""
    return f"client{sidecar}"


def address_of(sidecar: int) -> str:
    """Its address."""
    return f"10.250.{sidecar >> 8 & 255}.{sidecar & 255}"


def used_by(shape: MeshShape, sidecar: int) -> list[int]:
    """The services that a sidecar's workload calls."""
    others = (1 + (sidecar * 7 + step * 13) % (shape.services - 2) for step in range(shape.uses - 1))
    return [0, *dict.fromkeys(others)]


def hears(shape: MeshShape, sidecar: int, number: int, *, on_demand: bool) -> bool:
    """Whether a change of a service concerns a sidecar: it uses it, or it gets everything and no Sidecar says less."""
    return number in used_by(shape, sidecar) or (not on_demand and not _has_sidecar(sidecar))


def _has_sidecar(number: int) -> bool:
    return number % 10 == 9


def stamp(change: int) -> str:
    """The address of an endpoint that came with that change, the first being 1."""
    return f"{SEQUENCE}{change >> 8 & 255}.{change & 255}"


def stamped(address: str) -> int:
    """With which change the endpoint came."""
    high, low = address.removeprefix(SEQUENCE).split(".")
    return int(high) << 8 | int(low)


def common(shape: MeshShape) -> list[Json]:
    """Namespaces, nodes, and the workloads that call with what belongs to them."""
    made = [_object("v1", "Namespace", "", f"ns{each}") for each in range(NAMESPACES)]
    for zone in ZONES:
        labels = {"topology.kubernetes.io/region": "east", "topology.kubernetes.io/zone": zone}
        made.append(_object("v1", "Node", "", f"node-{zone}", labels=labels))
    for number in range(shape.sidecars):
        made += _client(shape, number)
    return made


def service(shape: MeshShape, number: int, state: ServiceState = QUIET) -> list[Json]:
    """A service with what belongs to it."""
    namespace, name = namespace_of(number), f"svc{number}"
    ports = [("http", HTTP), ("grpc", GRPC), *([("tcp", TCP)] if number % 5 == 0 else [])]
    listed = [{"name": each, "port": port} for each, port in ports]
    addresses = [f"10.{number % 200 + 1}.{number * 8 + each >> 8 & 255}.{number * 8 + each & 255}" for each in range(8)]
    slice_labels = {"kubernetes.io/service-name": name}
    made = [
        _object(
            "v1",
            "Service",
            namespace,
            name,
            spec={
                "clusterIP": f"172.20.{number >> 8}.{number & 255}",
                "selector": {"app": name},
                "ports": listed,
            },
        ),
        _object("discovery.k8s.io/v1", "EndpointSlice", namespace, f"{name}-1", labels=slice_labels)
        | {
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True}, "nodeName": f"node-{ZONES[each % 3]}"}
                for each, address in enumerate([*addresses[: state.endpoints], *([state.stamp] if state.stamp else [])])
            ],
            "ports": listed,
        },
    ]
    if number % 10 == 0 or number == shape.last:
        made += _rules(shape, number, state)
    return made


def _rules(shape: MeshShape, number: int, state: ServiceState) -> list[Json]:
    namespace, name = namespace_of(number), f"svc{number}"
    route: Json = {
        "timeout": f"{state.timeout_s}s",
        "route": [{"destination": {"host": name, "port": {"number": HTTP}}}],
    }
    routes = [route]
    if number % 100 == 50:
        caller = {"app": client_of(number % shape.sidecars)}
        routes.insert(0, {**route, "name": "one-caller", "match": [{"sourceLabels": caller}]})
    policy = {"connectionPool": {"http": {"http1MaxPendingRequests": 100}}}
    spec = {"host": name, "trafficPolicy": policy, "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}
    group = "networking.istio.io/v1"
    return [
        _object(group, "VirtualService", namespace, name, spec={"hosts": [name], "http": routes}),
        _object(group, "DestinationRule", namespace, name, spec=spec),
    ]


def _client(shape: MeshShape, number: int) -> list[Json]:
    namespace, name = namespace_of(number), client_of(number)
    pod = _object("v1", "Pod", namespace, name, labels={"app": name})
    pod["spec"] = {"containers": [{"name": "app"}], "nodeName": f"node-{ZONES[number % 3]}"}
    ready = [{"type": "Ready", "status": "True"}]
    pod["status"] = {"phase": "Running", "podIP": address_of(number), "conditions": ready}
    made, selector = [pod], {"app": name}
    group = "networking.istio.io/v1"
    if _has_sidecar(number):
        hosts = [f"{namespace_of(each)}/{host_of(each)}" for each in used_by(shape, number)]
        spec: Json = {"workloadSelector": {"labels": selector}, "egress": [{"hosts": hosts}]}
        made.append(_object(group, "Sidecar", namespace, name, spec=spec))
    if number % 20 == 4:
        spec = {
            "workloadSelector": {"matchLabels": selector},
            "host": host_of(used_by(shape, number)[1]),
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 100}}},
        }
        made.append(_object(group, "DestinationRule", namespace, f"{name}-own", spec=spec))
    return made


def _object(
    api: str, kind: str, namespace: str, name: str, *, labels: dict[str, str] | None = None, spec: Json | None = None
) -> Json:
    metadata: Json = {"name": name, **({"namespace": namespace} if namespace else {})}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **({"spec": spec} if spec is not None else {})}
