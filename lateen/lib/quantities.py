"""Amounts as Kubernetes writes them: `100m` (a tenth), `128Mi`, `1e3`, `2`.

Source: the Quantity type of Kubernetes' resource API: a decimal number with an SI suffix (m to E), a binary
suffix (Ki to Ei) or a decimal exponent.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SCALES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_FORM: Final = re.compile(
    r"([-+]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40}))(?:[eE]([-+]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII
)


class Quantity:
    """An amount; equal when the amounts are, however they are written. Immutable and hashable."""

    __slots__ = ("text", "value")

    text: Final[str]
    value: Final[Decimal]

    def __init__(self, text: str, value: Decimal) -> None:
        self.text = text
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Quantity({self.text})"


def parse_quantity(written: str | float) -> Quantity:
    """The amount written as text or as a bare number. ValueError for anything else."""
    text = str(written)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity like 100m, 0.5 or 128Mi")
    number, exponent, suffix = match.groups()
    scale = Decimal(10) ** int(exponent) if exponent else _SCALES[suffix or ""]
    return Quantity(text, Decimal(number) * scale)
