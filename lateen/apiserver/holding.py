"""Holding an object back at its last good version when proxies refuse what comes of it, and the end of that."""

from __future__ import annotations

import itertools

import msgspec

from lateen.apiserver.rows import Held, Row
from lateen.apiserver.transactions import Transaction, existing
from lateen.lib.ids import Ref


class Hold(msgspec.Struct, frozen=True):
    """Proxies refused what came of this object: queries go back to its newest version that was never refused."""

    ref: Ref
    reason: str

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        # A version before the object was last deleted belongs to another object of the same name.
        versions = itertools.takewhile(lambda each: each.action != "delete", tx.versions(self.ref))
        candidates = [each for each in versions if not each.condemned]
        if candidates and (row.held is None or row.held.metadata is not None):
            tx.condemn(self.ref, candidates.pop(0).revision, condemned=True)
        good = candidates[0] if candidates else None
        held = Held(self.reason) if good is None else Held(self.reason, bytes(good.metadata), bytes(good.body))
        return tx.put(msgspec.structs.replace(row, held=held))


class HoldPart(msgspec.Struct, frozen=True):
    """Proxies refused what comes of a part of this object: queries read its present version with that `body`."""

    ref: Ref
    reason: str
    body: bytes

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        return tx.put(msgspec.structs.replace(row, held=Held(self.reason, bytes(row.metadata), self.body)))


class Release(msgspec.Struct, frozen=True):
    """The end of a hold without a change of the object."""

    ref: Ref

    def run(self, tx: Transaction) -> Row | None:
        row = existing(tx, self.ref)
        if row.held is None:
            return row
        versions = tx.versions(self.ref)
        if versions:
            tx.condemn(self.ref, versions[0].revision, condemned=False)
        return tx.put(msgspec.structs.replace(row, held=None))
