"""Writes the virtual addresses of external hosts where everybody can read them: into the status of their ServiceEntry.

Which addresses those are is a query; this only keeps the store as the query says. The names proxies of the nodes
read the status, so a name and the listener behind its address come from the same answer.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from lateen.api.struct import Json
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.apiserver.transactions import Transaction
from lateen.lib.ids import Ref
from lateen.model.auto_addresses import unwritten_addresses
from lateen.xds.pump import Pump

_log = structlog.stdlib.get_logger("lateen.addresses")


class PutAddresses(msgspec.Struct, frozen=True):
    """Sets `status.addresses` of a ServiceEntry to (host, address) pairs and leaves the rest of its status alone."""

    ref: Ref
    addresses: tuple[tuple[str, str], ...]

    def run(self, tx: Transaction) -> Row | None:
        row = tx.row(self.ref)
        if row is None:
            return None
        before: Json = msgspec.json.decode(row.status)
        status = {key: value for key, value in before.items() if key != "addresses"}
        if self.addresses:
            status["addresses"] = [{"host": host, "value": address} for host, address in self.addresses]
        if status == before:
            return row
        return tx.put(msgspec.structs.replace(row, status=msgspec.json.encode(status)))


class AddressWriter:
    """Keeps the statuses up to date while `run` runs."""

    def __init__(self, store: Store, pump: Pump) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self._changed.set()
        self._wanted = pump.watch(self._changed.set, unwritten_addresses)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._wanted.value()
            for ref, addresses in wanted:
                await self._store.write([PutAddresses(ref, addresses)], author="lateen")
            if wanted:
                _log.info("addresses written", entries=len(wanted))
