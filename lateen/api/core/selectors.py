"""Selectors and references that several core kinds share (Kubernetes' meta/v1 and core/v1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from lateen.api import rules
from lateen.api.problems import Problem
from lateen.api.struct import NonEmpty, Struct

IntOrString = int | str
"""A number, or a name (of a port) or percentage."""


class LabelSelectorRequirement(Struct, frozen=True):
    """One condition on a label."""

    key: NonEmpty
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def problems(self) -> Iterator[Problem]:
        listed = self.operator in ("In", "NotIn")
        if listed and not self.values:
            yield Problem("", f"operator {self.operator} needs values", "set values")
        if not listed and self.values:
            yield Problem("values", f"operator {self.operator} has no values", "leave them out")


class LabelSelector(Struct, frozen=True):
    """Objects whose labels meet all of these. Empty selects everything."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from rules.labels(("matchLabels",), self.match_labels)

    @property
    def is_empty(self) -> bool:
        return not self.match_labels and not self.match_expressions


class LocalObjectReference(Struct, frozen=True):
    """An object in the same namespace, by name."""

    name: str = ""


class ObjectReference(Struct, frozen=True):
    """An object anywhere."""

    api_version: str | None = None
    field_path: str | None = None
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    uid: str | None = None
