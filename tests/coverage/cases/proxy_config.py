"""ProxyConfig, field by field: what the Envoy that a Pod would get says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.envoy.proxy_program import settled
from tests.lab.lab import Lab

KIND = "ProxyConfig"


def config(**spec: Any) -> Json:
    return new(KIND, "proxies", spec)


def threads(lab: Lab) -> int:
    return settled(lab.sidecar.graph)["command_line_options"]["concurrency"]


def metadata(name: str) -> Probe:
    return lambda lab: settled(lab.sidecar.graph)["node"]["metadata"].get(name)


def refusals() -> Iterator[Refusal]:
    yield Refusal(KIND, "spec.image.imageType", config(), "distroless", "LTN0006")


def cases() -> Iterator[Case]:
    yield Case(KIND, "spec.concurrency", config(concurrency=1), 3, threads, 1, 3)
    team = config(environmentVariables={"ISTIO_META_TEAM": "a"})
    yield Case(KIND, "spec.environmentVariables{ISTIO_META_TEAM}", team, "b", metadata("TEAM"), "a", "b")
    chosen = config(concurrency=2, selector={"matchLabels": {"app": "other"}})
    yield Case(KIND, "spec.selector.matchLabels{app}", chosen, "app", threads, 1, 2)
