"""Namespace (core v1)."""

from __future__ import annotations

from typing import ClassVar

from lateen.api.struct import Object, Struct


class NamespaceSpec(Struct, frozen=True):
    """What must be gone before the namespace is."""

    finalizers: tuple[str, ...] = ()


class Namespace(Object, frozen=True):
    """A space of names; its labels say what the mesh does with the Pods in it."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Namespace"

    spec: NamespaceSpec = NamespaceSpec()
