"""A mesh of any size as a folder of YAML, for benchmarks, and the changes that are made in it.

Each service has an HTTP and a gRPC port and four endpoints, one in five a TCP port besides, one in ten a VirtualService
and a DestinationRule; all are spread over twenty namespaces and three zones. One file a service, replaced by a rename:
a change costs its reader one file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

NAMESPACES: Final = 20
ZONES: Final = ("east/a", "east/b", "east/c")
HTTP, GRPC, TCP = 80, 9000, 3306


class MeshShape(msgspec.Struct, frozen=True):
    """How large a mesh is."""

    services: int
    sidecars: int
    uses: int = 20
    """Services that each sidecar's workload calls; the first of the mesh is among them."""


def namespace_of(number: int) -> str:
    """The namespace of a service or workload."""
    return f"ns{number % NAMESPACES}"


def host_of(service: int) -> str:
    """The full name of a service."""
    return f"svc{service}.{namespace_of(service)}.svc.cluster.local"


def used_by(shape: MeshShape, sidecar: int) -> list[int]:
    """The services that a sidecar's workload calls. The last of the mesh is called by nobody."""
    others = (1 + (sidecar * 7 + step * 13) % (shape.services - 2) for step in range(shape.uses - 1))
    return [0, *dict.fromkeys(others)]


def write_mesh(folder: Path, shape: MeshShape) -> None:
    """Writes every file."""
    namespaces = "---\n".join(
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{each}}}\n" for each in range(NAMESPACES)
    )
    (folder / "namespaces.yaml").write_text(namespaces)
    for number in range(shape.services):
        write_service(folder, number)
    for number in range(shape.sidecars):
        (folder / f"client{number}.yaml").write_text(
            _pod(f"client{number}", namespace_of(number), _address(250, number))
        )


def write_service(folder: Path, number: int, *, endpoints: int = 4, timeout_s: int = 30) -> None:
    """Writes (or rewrites) a service with what belongs to it."""
    namespace, name = namespace_of(number), f"svc{number}"
    ports = [("http", HTTP), ("grpc", GRPC), *([("tcp", TCP)] if number % 5 == 0 else [])]
    parts = [
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  clusterIP: 172.20.{number >> 8}.{number & 255}\n  selector: {{app: {name}}}\n"
        "  ports:\n" + "".join(f"  - {{name: {port}, port: {value}}}\n" for port, value in ports),
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}-1, "
        f"namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\nendpoints:\n"
        + "".join(
            f"- {{addresses: [{_address(number % 200 + 1, number * 4 + each)}], conditions: {{ready: true}}, "
            f"zone: {ZONES[each % 3].partition('/')[2]}}}\n"
            for each in range(endpoints)
        )
        + "ports:\n"
        + "".join(f"- {{name: {port}, port: {value}}}\n" for port, value in ports),
    ]
    if number % 10 == 0:
        parts.append(
            f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, "
            f"namespace: {namespace}}}\nspec:\n  hosts: [{name}]\n  http:\n  - timeout: {timeout_s}s\n"
            f"    route: [{{destination: {{host: {name}, port: {{number: {HTTP}}}}}}}]\n"
        )
        parts.append(
            f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, "
            f"namespace: {namespace}}}\nspec:\n  host: {name}\n"
            "  trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 100}}}\n"
            "  subsets: [{name: v1, labels: {version: v1}}]\n"
        )
    fresh = folder / f".{name}.new"
    fresh.write_text("---\n".join(parts))
    fresh.rename(folder / f"{name}.yaml")


def _pod(name: str, namespace: str, address: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n"
        f"spec: {{containers: [{{name: app}}]}}\n"
        f'status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: "True"}}]}}\n'
    )


def _address(block: int, number: int) -> str:
    return f"10.{block % 90 + 1}.{number >> 8 & 255}.{number & 255}"
