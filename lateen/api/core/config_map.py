"""ConfigMap (core v1): text and bytes by key. The mesh configuration is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lateen.api.struct import Base64, Object


class ConfigMap(Object, frozen=True):
    """Values by key."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "ConfigMap"

    binary_data: Mapping[str, Base64] = {}
    data: Mapping[str, str] = {}
    immutable: bool | None = None
