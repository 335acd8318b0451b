"""Lengths of time as people write them in configuration: `1h30m`, `0.5s`, `250ms`.

The grammar is Go's time.ParseDuration, which Kubernetes and Istio use: decimal numbers with a unit each, no
blanks, `0` alone without a unit. Held as whole nanoseconds, as protobuf does, so nothing is rounded.
"""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LIMIT: Final = 2**63
_FORM: Final = re.compile("[-+]?(?:0|(?:(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)", re.ASCII)
_PART: Final = re.compile("([0-9]*)\\.?([0-9]*)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)


class Duration:
    """A length of time. Immutable, hashable, ordered."""

    __slots__ = ("nanoseconds",)

    nanoseconds: Final[int]

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    @property
    def seconds(self) -> float:
        return self.nanoseconds / 1_000_000_000

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Duration) -> bool:
        return self.nanoseconds < other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def __str__(self) -> str:
        return _format(self.nanoseconds)

    def __repr__(self) -> str:
        return f"Duration({self})"


def seconds(value: float) -> Duration:
    """A Duration of so many seconds."""
    return Duration(round(value * 1_000_000_000))


def parse_duration(text: str) -> Duration:
    """The length of time written in Go's form. ValueError for anything else, and beyond 292 years."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration like 1h30m, 5s or 250ms")
    total = 0
    for whole, fraction, unit in _PART.findall(text):
        digits = fraction[:18]
        total += int(whole or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
    if total >= _LIMIT:
        raise ValueError(f"{text!r} is longer than 292 years")
    return Duration(-total if text.startswith("-") else total)


def _format(nanoseconds: int) -> str:
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    for unit in ("ns", "us", "ms"):
        if rest < _UNITS["ms" if unit == "us" else "us" if unit == "ns" else "s"]:
            return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    hours, rest = divmod(rest, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    if rest or not (hours or minutes):
        parts.append(f"{_decimal(rest, _UNITS['s'])}s")
    return sign + "".join(parts)


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).zfill(len(str(unit)) - 1).rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
