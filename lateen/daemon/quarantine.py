"""What becomes of an object that proxies refused: the store holds it at its last good version and says why on it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from itertools import takewhile
from typing import Any, Final

import msgspec
import structlog

from lateen.api.codec import encode
from lateen.api.struct import Object
from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.holding import Hold, HoldPart
from lateen.apiserver.operations import SetFindings
from lateen.apiserver.positions import placed
from lateen.apiserver.store import Store
from lateen.daemon.inputs import typed
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.model.envoy_filters import patch_paths, without_patches

REFUSED: Final = "LTN0020"
ORIGIN: Final = "proxies"
_HEAD: Final = ("apiVersion", "kind", "metadata", "status")

_log = structlog.stdlib.get_logger("lateen.quarantine")


class StoreQuarantine:
    """The xDS server's quarantine over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def parts(self, value: Any) -> tuple[str, ...]:
        """See `lateen.xds.nack.Divide`: the patches of an EnvoyFilter are refused one by one."""
        return patch_paths(value)

    def without(self, value: Any, parts: Collection[str]) -> Any:
        """The object without those parts."""
        return without_patches(value, parts)

    async def leave_out(self, ref: Ref, reasons: Mapping[str, str]) -> None:
        """Makes the rest of the object count, with a finding on each part that does not. A later change of the object
        ends both."""
        row = self._store.get(ref)
        accepted = typed(row) if row is not None else None
        if row is None or accepted is None:
            return
        before = msgspec.json.decode(row.findings.get(ORIGIN, b"[]"), type=list[Finding]) if row.held else []
        found = [
            Finding(
                code=REFUSED,
                level=Level.ERROR,
                message=f"Envoy refuses what this becomes, so it is left out and the rest counts: {reason}",
                ref=ref,
                path=path,
                remedy="correct it and apply the object again",
            )
            for path, reason in reasons.items()
        ]
        placed_ones = tuple(placed(each, row.source) for each in found)
        reason = "; ".join(f"{path}: {words}" for path, words in reasons.items())
        await self._write(
            HoldPart(ref, reason, _body(without_patches(accepted, reasons))),
            SetFindings(ref, ORIGIN, (*before, *placed_ones)),
        )
        for each in placed_ones:
            _log.warning("part of an object left out", finding=str(each))

    async def hold(self, ref: Ref, reason: str) -> None:
        """Sets the object's accepted parts back, with a finding that names it, its file and Envoy's words. A later
        change of the object ends both."""
        row = self._store.get(ref)
        if row is None:
            return
        former = takewhile(lambda each: each.action != "delete", (await self._store.history(ref))[1:])
        kept = (
            "its last good version stays in force" if any(not each.condemned for each in former) else "it has no effect"
        )
        finding = Finding(
            code=REFUSED,
            level=Level.ERROR,
            message=f"Envoy refuses what this becomes, so {kept}: {reason}",
            ref=ref,
            remedy="correct the object and apply it again",
        )
        finding = placed(finding, row.source)
        await self._write(Hold(ref, reason), SetFindings(ref, ORIGIN, (finding,)))
        _log.warning("object held", finding=str(finding))

    async def _write(self, *operations: Hold | HoldPart | SetFindings) -> None:
        with contextlib.suppress(NotFoundError):  # deleted meanwhile, and with it what was wrong
            await self._store.write(list(operations), author="lateen")


def _body(value: Object) -> bytes:
    """An object as the store keeps it: what is neither its head nor its status."""
    document = encode(value)
    return msgspec.json.encode({key: each for key, each in document.items() if key not in _HEAD})
