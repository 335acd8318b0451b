"""A finding on every workload whose proxy has asked for so many unknown names that it gets everything at once.

It is on the Pod (or WorkloadEntry) while the proxy is connected like that: another start of the proxy asks anew.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from lateen.apiserver.errors import ApiError
from lateen.apiserver.operations import SetFindings
from lateen.apiserver.store import Store
from lateen.intent.scope import Proxy
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.xds.demand import UNKNOWN_MAX
from lateen.xds.server import XdsServer

CODE: Final = "LTN0380"
ORIGIN: Final = "demand"
LOOK_S: Final = 1.0

_log = structlog.stdlib.get_logger("lateen.demand")


class DemandFindings:
    """Keeps the findings as the streams are. `total`: how many proxies have got there since the start."""

    def __init__(self, store: Store, xds: XdsServer) -> None:
        self._store = store
        self._xds = xds
        self._said: set[Proxy] = set()
        self.total = 0

    async def run(self) -> None:
        """Looks once a second until cancelled."""
        for row in self._store.rows():
            if ORIGIN in row.findings:  # of an earlier control plane, whose streams are gone
                await self._write(row.ref, ())
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Writes what has changed since the last time."""
        sated, before = self._xds.sated(), self._said
        self._said = sated
        for proxy in before - sated:
            if (ref := self._of(proxy)) is not None:
                await self._write(ref, ())
        for proxy in sated - before:
            self.total += 1
            if (ref := self._of(proxy)) is not None:
                await self._write(ref, (_finding(ref),))

    def _of(self, proxy: Proxy) -> Ref | None:
        pod = Ref("", "Pod", proxy.namespace, proxy.name)
        entry = Ref("networking.istio.io", "WorkloadEntry", proxy.namespace, proxy.name)
        return next((ref for ref in (pod, entry) if self._store.get(ref) is not None), None)

    async def _write(self, ref: Ref, findings: tuple[Finding, ...]) -> None:
        try:
            await self._store.write([SetFindings(ref, ORIGIN, findings)], author="lateen")
        except ApiError as error:  # gone meanwhile, or the disk is full
            _log.warning("finding not written", object=str(ref), error=str(error))


def _finding(ref: Ref) -> Finding:
    return Finding(
        code=CODE,
        level=Level.WARNING,
        message=f"the workload has asked for more than {UNKNOWN_MAX} names that nobody knows, so its proxy gets "
        "everything at once: an unknown name costs nothing any more, and the proxy holds the whole mesh",
        ref=ref,
        remedy="see what it calls in its access log; a Sidecar narrows what it gets, a ServiceEntry makes hosts known",
    )
