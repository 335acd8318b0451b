"""Local programs in place of the workloads of samples: the same Services, ports and labels, addresses of a lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab.world import APPLICATION, World

Json = dict[str, Any]


@dataclass
class Program:
    """A Pod with the labels of a workload; `name` is how it is called in answers."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    address: str


@dataclass
class Programs:
    """Services and the programs that stand behind them. `subnet` keeps several of them apart in one lab."""

    subnet: int = 0
    services: dict[tuple[str, str], Json] = field(default_factory=dict[tuple[str, str], Json])
    programs: dict[tuple[str, str], Program] = field(default_factory=dict[tuple[str, str], Program])

    def take(self, raws: Iterable[Json], *, replicas: Mapping[str, int] | None = None) -> None:
        """Takes the Services and the workloads among documents; the first of a name counts."""
        for raw in raws:
            metadata = raw["metadata"]
            key = (metadata.get("namespace") or "default", metadata["name"])
            if raw["kind"] == "Service" and key not in self.services:
                self.services[key] = raw
            elif raw["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
                labels = raw["spec"]["template"]["metadata"]["labels"]
                for number in range((replicas or {}).get(key[1], 1)):
                    self.program(key[1] + ("" if number == 0 else f"-{number + 1}"), key[0], labels)

    def program(self, name: str, namespace: str, labels: Mapping[str, str]) -> None:
        """One more program, unless there is one of that name."""
        number = len(self.programs)
        address = f"10.88.{20 + self.subnet}.{1 + number}"
        self.programs.setdefault((namespace, name), Program(name, namespace, labels, address))

    def missing(self) -> None:
        """A program for each Service that has none, with just the labels the Service asks for."""
        for (namespace, name), raw in self.services.items():
            if not self.behind(namespace, raw):
                self.program(name, namespace, raw["spec"].get("selector") or {})

    def behind(self, namespace: str, service: Json) -> list[Program]:
        """The programs that a Service selects."""
        wanted: Mapping[str, str] = service["spec"].get("selector") or {}
        return [
            each
            for each in self.programs.values()
            if each.namespace == namespace and wanted.items() <= dict(each.labels).items()
        ]

    @property
    def names(self) -> dict[str, str]:
        """Names by address."""
        return {each.address: each.name for each in self.programs.values()}

    @property
    def addresses(self) -> dict[str, str]:
        """Where clients dial for a Service: by its name, `name.namespace` outside of namespace default."""
        return {
            name if namespace == "default" else f"{name}.{namespace}": f"10.96.{1 + self.subnet}.{number}"
            for number, (namespace, name) in enumerate(self.services, 1)
        }

    @property
    def listening(self) -> tuple[tuple[str, int], ...]:
        """Where the programs listen: on every port that a Service sends to them."""
        return tuple(
            dict.fromkeys(
                (each.address, target(port))
                for (namespace, _), raw in self.services.items()
                for each in self.behind(namespace, raw)
                for port in raw["spec"]["ports"]
            )
        )

    def documents(self) -> Iterator[Json]:
        """Services with addresses, Pods, EndpointSlices; the client of the lab is a Pod too."""
        for ((namespace, name), raw), address in zip(self.services.items(), self.addresses.values(), strict=True):
            spec: Json = {**raw["spec"], "clusterIP": address}
            yield {**raw, "metadata": {**raw["metadata"], "namespace": namespace}, "spec": spec}
            ready = [
                {
                    "addresses": [each.address],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": each.name, "namespace": namespace},
                }
                for each in self.behind(namespace, raw)
            ]
            ports = [{"name": port.get("name", ""), "port": target(port)} for port in spec["ports"]]
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": {
                    "name": f"{name}-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "endpoints": ready,
                "ports": ports,
            }
        for each in self.programs.values():
            yield _pod(each.name, each.namespace, each.labels, each.address)
        yield _pod("app", "default", {"app": "app", "version": "v1"}, APPLICATION)

    def text(self) -> str:
        """The documents as YAML."""
        return yaml.safe_dump_all(self.documents())

    def world(
        self, *, hosts: Mapping[str, tuple[str, ...]], outside: Mapping[str, str], ports: tuple[tuple[str, int], ...]
    ) -> World:
        """A lab with these programs and some servers outside: `outside` has their names by address."""
        return World(
            objects=self.text(),
            names={**self.names, APPLICATION: "app", **outside},
            addresses={**self.addresses, "gateway": "10.88.0.8"},
            listening=(*self.listening, *ports),
            hosts=hosts,
            networks=tuple(f"{address}/32" for address in outside if not address.startswith(("10.88.", "127."))),
            certified=tuple(hosts),
        )


def target(port: Json) -> int:
    """The port of the program behind a port of a Service; named ones are the same number here."""
    said = port.get("targetPort")
    return said if isinstance(said, int) else int(port["port"])


def _pod(name: str, namespace: str, labels: Mapping[str, str], address: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {"containers": [{"name": "it"}]},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def documents(path: Path) -> list[Json]:
    """The documents of a file that have a kind; none of a template."""
    try:
        found: list[Any] = list(yaml.safe_load_all(path.read_text()))
    except yaml.YAMLError:
        return []
    return [each for each in found if isinstance(each, dict) and "kind" in each]
