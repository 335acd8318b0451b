"""A sidecar of the lab that talks to lateen's own xDS server and asks for what it needs, on demand.

Same world, same tests: what a workload sees must not depend on how its proxy learns of the mesh.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from msgspec.structs import replace

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph, Q, Transaction
from lateen.envoy.types import TYPES
from lateen.intent.scope import Proxy, Scope
from lateen.model.envoy_filters import needs_everything
from lateen.model.jwt_keys import KeySource, wanted_sources
from lateen.model.policy_attachment import Workloads
from lateen.xds.auth import Believing
from lateen.xds.nack import Refusal
from lateen.xds.server import XdsServer
from tests.envoy.harness import Json, serving
from tests.lab.certificates import Certificates
from tests.lab.lab import READY_S, Refused, Station


class ServedStation(Station):
    """A Station whose configuration comes by an XdsServer in a thread of its own."""

    def __init__(self, scope: Scope, certificates: Certificates, join: Station | None = None) -> None:
        self._refusals: list[Refusal] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._serving = threading.Event()
        super().__init__(scope, certificates, join)

    def bootstrap(self, xds: Path) -> Json:
        """Certificates come from where they always do."""
        self._address = xds.with_name("ads.sock")
        self._thread.start()
        assert self._serving.wait(READY_S)
        made = super().bootstrap(xds)
        for cluster in made["static_resources"]["clusters"]:
            if cluster["name"] == "xds-grpc":
                endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
                endpoint["address"]["pipe"]["path"] = str(self._address)
        return made

    async def _serve(self) -> None:
        scope = self.scope
        workloads = Workloads(scope.namespace, scope.labels)

        def scope_of(q: Q, _: Proxy) -> Scope:
            return replace(scope, on_demand=not q(needs_everything, workloads, scope.metadata))

        self.server = XdsServer(Graph(), TYPES, scope_of, Believing(), on_nack=self._refusals.append)
        async with serving(self.server, f"unix:{self._address}"):
            self._serving.set()
            await self._stop.wait()

    def close(self) -> None:
        """Ends Envoy and both servers."""
        super().close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(READY_S)
        self._loop.close()

    def configure(self, wanted: list[Object]) -> None:
        """Replaces the configuration and waits until Envoy uses all of it; Refused for what it does not take."""
        gone = {each.ref for each in self._objects} - {each.ref for each in wanted}
        self._objects = wanted
        self._refusals.clear()
        self.graph.commit(transaction(wanted, gone))  # what the platform knows
        self._changed_by(transaction(wanted, gone))
        deadline = time.monotonic() + READY_S
        while missing := self._warming():
            assert time.monotonic() < deadline, f"not in use: {missing}"
            time.sleep(0.005)
        if self._refusals:
            raise Refused("; ".join(each.error for each in self._refusals))

    def key_sources(self) -> tuple[KeySource, ...]:
        """Where the keys that policies name come from."""

        async def ask() -> tuple[KeySource, ...]:
            return self.server.pump.graph.pull(wanted_sources)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(READY_S)

    def put_keys(self, keys: list[tuple[KeySource, str]]) -> None:
        """Puts keys in force."""
        self._changed_by(Transaction(put=keys))

    def _changed_by(self, change: Transaction) -> None:
        asyncio.run_coroutine_threadsafe(self._change(change), self._loop).result(2 * READY_S)

    async def _change(self, change: Transaction) -> None:
        revision = self.server.pump.graph.revision
        self.server.pump.submit(change)
        async with asyncio.timeout(READY_S):
            while not (proxies := self.server.proxies()) or any(
                each.acked_revision <= revision or len(each.types) < 2 for each in proxies
            ):
                await asyncio.sleep(0.002)
