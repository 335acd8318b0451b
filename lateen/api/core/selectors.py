"""Selectors and references that several core kinds share (Kubernetes' meta/v1 and core/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lateen.api.struct import NonEmpty, Struct

IntOrString = int | str
"""A number, or a name (of a port) or percentage."""


class LabelSelectorRequirement(Struct, frozen=True):
    """One condition on a label."""

    key: NonEmpty
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True):
    """Objects whose labels meet all of these. Empty selects everything."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


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
