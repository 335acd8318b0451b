"""Secret bytes that no log line, exception or `repr` shows by accident."""

from __future__ import annotations

from typing import Final


class Masked:
    """Bytes that must be asked for with `reveal()`. Immutable, comparable, hashable.

    The subclasses say how documents write them.
    """

    __slots__ = ("_value",)

    _value: Final[bytes]

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masked) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


class MaskedBase64(Masked):
    """Masked bytes that documents write in base64."""

    __slots__ = ()


class MaskedText(Masked):
    """Masked bytes that documents write as plain text."""

    __slots__ = ()
