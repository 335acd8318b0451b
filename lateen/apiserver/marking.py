"""Marking a revision after which errors jumped: in the history, for good, and on the object until it changes."""

from __future__ import annotations

from typing import Final

import msgspec

from lateen.apiserver.positions import placed
from lateen.apiserver.rows import Mark, Row
from lateen.apiserver.transactions import Transaction
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref

CODE: Final = "LTN0370"
ORIGIN: Final = "traffic"


class MarkRevision(msgspec.Struct, frozen=True):
    """That errors jumped after a revision of an object. Nothing happens when that is not in the history any more."""

    ref: Ref
    revision: int
    mark: Mark

    def run(self, tx: Transaction) -> Row | None:
        row = tx.row(self.ref)
        versions = tx.versions(self.ref)
        version = next((each for each in versions if each.revision == self.revision), None)
        if version is None or self.mark in version.marks:
            return row
        marks = (*version.marks, self.mark)
        tx.mark(self.ref, self.revision, marks)
        if row is None or versions[0] is not version:
            return row
        name = f"{self.ref.kind} {self.ref.name}" if version.action == "create" else f"{self.ref.kind}/{self.ref.name}"
        verb = "delete" if version.action == "create" else "rollback"
        remedy = f"lateen {verb} {name} -n {self.ref.namespace}, or correct it"
        said = tuple(
            placed(Finding(code=CODE, level=Level.WARNING, message=str(each), ref=self.ref, remedy=remedy), row.source)
            for each in marks
        )
        return tx.put(msgspec.structs.replace(row, findings={**row.findings, ORIGIN: msgspec.json.encode(said)}))
