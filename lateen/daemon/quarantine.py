"""What becomes of an object that proxies refused: the store holds it at its last good version and says why on it."""

from __future__ import annotations

from typing import Final

import structlog

from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.holding import Hold
from lateen.apiserver.operations import SetFindings
from lateen.apiserver.positions import placed
from lateen.apiserver.store import Store
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref

REFUSED: Final = "LTN0020"
ORIGIN: Final = "proxies"

_log = structlog.stdlib.get_logger("lateen.quarantine")


class StoreQuarantine:
    """The xDS server's quarantine over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def hold(self, ref: Ref, reason: str) -> None:
        """Sets the object's accepted parts back, with a finding that names it, its file and Envoy's words. A later
        change of the object ends both."""
        row = self._store.get(ref)
        if row is None:
            return
        finding = Finding(
            code=REFUSED,
            level=Level.ERROR,
            message=f"Envoy refuses what this becomes, so its last good version stays in force: {reason}",
            ref=ref,
            remedy="correct the object and apply it again",
        )
        finding = placed(finding, row.source)
        try:
            await self._store.write([Hold(ref, reason), SetFindings(ref, ORIGIN, (finding,))], author="lateen")
        except NotFoundError:
            return  # deleted meanwhile, and with it what was wrong
        _log.warning("object held", finding=str(finding))
