"""What the kinds of Istio's API have in common: selectors, target references, ports.

Istio has two messages named WorkloadSelector. The one whose field is `matchLabels` is PolicySelector here, the
one whose field is `labels` is WorkloadSelector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from lateen.api import rules
from lateen.api.problems import Problem
from lateen.api.struct import Meta, Port, Struct, UInt32


class PortNumber(Struct, frozen=True):
    """One port."""

    number: Port


class TrafficSelector(Struct, frozen=True):
    """The direction and the ports of the traffic an extension sees."""

    mode: Literal["UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"] | None = None
    ports: tuple[PortNumber, ...] = ()


class PolicySelector(Struct, frozen=True):
    """Picks the Pods whose labels have every one of these."""

    match_labels: Annotated[Mapping[str, Annotated[str, Meta(max_length=63)]], Meta(max_length=4096)] = {}

    def problems(self) -> Iterator[Problem]:
        yield from rules.labels(("matchLabels",), self.match_labels)


class PolicyTargetReference(Struct, frozen=True):
    """The object a policy is attached to."""

    kind: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")]
    name: Annotated[str, Meta(min_length=1, max_length=253)]
    group: (
        Annotated[
            str, Meta(max_length=253, pattern=r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        ]
        | None
    ) = None
    namespace: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.namespace:
            yield Problem("namespace", "a reference cannot lead to another namespace", "leave the field out")


class EnvVar(Struct, frozen=True):
    """One environment variable of a WebAssembly module."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    value: Annotated[str, Meta(max_length=2048)] | None = None
    value_from: Literal["INLINE", "HOST"] | None = None

    def problems(self) -> Iterator[Problem]:
        if self.value_from == "HOST" and self.value is not None:
            yield Problem("value", "a variable from the host has no value of its own", "leave it out, or use INLINE")


class VmConfig(Struct, frozen=True):
    """The environment a WebAssembly module sees."""

    env: Annotated[tuple[EnvVar, ...], Meta(max_length=256)] = ()


class PortSelector(Struct, frozen=True):
    """A port by its number."""

    number: UInt32 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.number is None:
            yield Problem("", "the port has no number", "set number")
        yield from rules.port("number", self.number)


class WorkloadSelector(Struct, frozen=True):
    """Picks the Pods (and WorkloadEntries) whose labels have every one of these."""

    labels: Annotated[Mapping[str, Annotated[str, Meta(max_length=63)]], Meta(max_length=256)] = {}

    def problems(self) -> Iterator[Problem]:
        yield from rules.labels(("labels",), self.labels)
