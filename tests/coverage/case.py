"""What a row of the coverage table is: one field, two documents that differ in it alone, and what that changes.

`probe` asks the real Envoy something and returns a plain value; it must return `before` with the first document and
`after` with the second. `Refusal` is the other way to be covered: the finding that says that a field has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lateen.api import kinds
from tests.coverage.fields import Json, general, value_at, with_value
from tests.lab.lab import Lab

REFUSED: Final = "refused"
"""The outcome when Envoy does not take the configuration."""
Probe = Callable[[Lab], Any]


@dataclass(frozen=True)
class Case:
    """`place` is where the field stands in `document`, `value` what it is there in the second document (None: it is
    only in the first). `beside` are further YAML documents, the same both times."""

    kind: str
    place: str
    document: Json
    value: Any
    probe: Probe
    before: Any
    after: Any
    beside: str = ""
    long: bool = False
    field: str = ""
    """The field when it isn't what the place says: a whole mapping is replaced."""
    look: Callable[[Json], Any] | None = None
    """Asks the document itself, where no proxy has a part in what the field changes; `probe` isn't used then."""

    @property
    def changed(self) -> Json:
        """The second document."""
        return with_value(self.document, self.place, self.value)

    @property
    def id(self) -> str:
        """The name of the test, in brackets after its function."""
        return f"{self.kind}-{self.place.removeprefix('spec.')}={self.value}"

    def covers(self) -> set[tuple[str, str]]:
        """The field, and as values those of both documents."""
        path = self.field or general(self.place)
        values = (value_at(self.document, self.place), self.value)
        return {(self.kind, path), *((self.kind, f"{path}={each}") for each in values if each is not None)}


@dataclass(frozen=True)
class Refusal:
    """A document with the field, and the code of the finding about it."""

    kind: str
    place: str
    document: Json
    value: Any
    code: str

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.place.removeprefix('spec.')}={self.value}"

    def covers(self) -> set[tuple[str, str]]:
        path = general(self.place)
        return {(self.kind, path), (self.kind, f"{path}={self.value}")}


def new(kind: str, name: str, spec: Json, namespace: str = "default") -> Json:
    """An object of a kind."""
    metadata = {"name": name, "namespace": namespace}
    known = kinds.by_name(kind)
    assert known is not None
    return {"apiVersion": known.api_version, "kind": kind, "metadata": metadata, "spec": spec}
