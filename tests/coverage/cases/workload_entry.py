"""WorkloadEntry, field by field: machines that a ServiceEntry selects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import Case, Json, Refusal, new
from tests.coverage.cases.service_entry import HTTP, entry, everybody, part, rule, who

KIND = "WorkloadEntry"
SELECTING = entry(workloadSelector={"labels": {"app": "vm"}}, endpoints=None)
ONE, TWO = "outside-1", "outside-2"


def machine(name: str = "vm", address: str = "10.88.3.1", **spec: Any) -> Json:
    return new(KIND, name, {"address": address, "labels": {"app": "vm"}, **spec})


def text(document: Json) -> str:
    return yaml.safe_dump(document) + "---\n"


def refusals() -> Iterator[Refusal]:
    yield Refusal(KIND, "spec.network", machine(), "other", "LTN0001")


def cases() -> Iterator[Case]:
    beside = text(SELECTING)
    other = beside + text(machine("other", "10.88.3.2", locality="east/b", weight=1))
    yield Case(KIND, "spec.address", machine(), "10.88.3.2", who(), ONE, TWO, beside)
    yield Case(KIND, "spec.labels{app}", machine(), "pm", who(), ONE, 503, beside)
    near = rule(trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 100}})
    placed = machine(locality="east/a")
    yield Case(KIND, "spec.locality", placed, "north/n", everybody(), (ONE,), (TWO,), near + other)
    yield Case(KIND, "spec.ports{http}", machine(), 9082, part("port"), 9080, 9082, beside)
    weighed = machine(weight=1, locality="east/b")
    yield Case(KIND, "spec.weight", weighed, 100_000, everybody(), (ONE, TWO), (ONE,), other)
    mutual = rule(trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}})
    inside = entry(
        workloadSelector={"labels": {"app": "vm"}},
        endpoints=None,
        ports=[{**HTTP, "targetPort": 443}],
        location="MESH_INTERNAL",
    )
    named = machine(address="10.88.3.2", serviceAccount="default")
    yield Case(KIND, "spec.serviceAccount", named, "other", part("tls"), True, None, mutual + text(inside))
