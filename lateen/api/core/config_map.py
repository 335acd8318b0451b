"""ConfigMap (core v1): text and bytes by key. The mesh configuration is one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from lateen.api.problems import Problem, at
from lateen.api.struct import Base64, Object


class ConfigMap(Object, frozen=True):
    """Values by key."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "ConfigMap"

    binary_data: Mapping[str, Base64] = {}
    data: Mapping[str, str] = {}
    immutable: bool | None = None

    def problems(self) -> Iterator[Problem]:
        for name, keys in (("data", self.data), ("binaryData", self.binary_data)):
            for key in keys:
                if not KEY.fullmatch(key):
                    yield Problem(
                        at(name, key), f'"{key[:80]}" cannot be a key', "use letters, digits, '-', '_' and '.'"
                    )
        for key in self.data.keys() & self.binary_data.keys():
            yield Problem(at("binaryData", key), f"key {key} is in data too", "keep one of them")


KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""What keys of ConfigMaps and Secrets look like; they become file names."""
