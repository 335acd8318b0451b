"""Secret (core v1): keys, certificates and passwords by key. Its values never show in a `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lateen.api.struct import Object
from lateen.lib.secrets import Masked, MaskedBase64, MaskedText


class Secret(Object, frozen=True):
    """Secret values by key."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Secret"

    data: Mapping[str, MaskedBase64] = {}
    immutable: bool | None = None
    string_data: Mapping[str, MaskedText] = {}
    type: str | None = None

    def value(self, key: str) -> Masked | None:
        """The value of a key; `stringData` wins over `data`, as when Kubernetes stores a Secret."""
        return self.string_data.get(key) or self.data.get(key)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that have a value, sorted."""
        return tuple(sorted({*self.data, *self.string_data}))
