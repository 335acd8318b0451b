"""Secret (core v1): keys, certificates and passwords by key. Its values never show in a `repr`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from lateen.api.core.config_map import KEY
from lateen.api.problems import Problem, at
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

    def problems(self) -> Iterator[Problem]:
        for name, keys in (("data", self.data), ("stringData", self.string_data)):
            for key in keys:
                if not KEY.fullmatch(key):
                    yield Problem(
                        at(name, key), f'"{key[:80]}" cannot be a key', "use letters, digits, '-', '_' and '.'"
                    )
        if self.type == "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if self.value(key) is None:
                    yield Problem("data", f"a Secret of type kubernetes.io/tls needs {key}", "set it")
