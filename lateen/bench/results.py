"""Results that are kept, as JSON files, and what has become of their figures since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from lateen.bench.host import BenchError, Origin

T = TypeVar("T")

Figures = tuple[Mapping[str, float], Origin]
"""The figures of a report by name, and where they are from."""


class Compared(msgspec.Struct, frozen=True):
    """One figure, then and now."""

    name: str
    then: float
    now: float

    @property
    def ratio(self) -> str:
        """Now to then as text; empty where one is nothing."""
        return f" (x {self.now / self.then:.2f})" if self.then and self.now else ""


def compared(now: Figures, then: Figures) -> list[Compared]:
    """The figures that both have. BenchError for results of different machines: they say nothing of each other."""
    ours, theirs = (f"{origin.cpu}, {origin.cores} cores" for _, origin in (now, then))
    if ours != theirs:
        raise BenchError(f"the result to compare with is of another machine ({theirs})", remedy="save one of this one")
    return [Compared(name, then[0][name], value) for name, value in now[0].items() if name in then[0]]


def load(file: Path, kind: type[T]) -> T | None:
    """A result; None when there is none. BenchError when it is of another form."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BenchError(f"{file} is no result of this benchmark: {error}", remedy="remove it, or save anew") from None


def store(file: Path, report: object) -> None:
    """Keeps a result."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
