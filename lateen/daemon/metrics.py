"""The control plane's own metrics, for Prometheus; Istio's names where the meaning is the same.

`loop_lag` measures how late the event loop runs what is due: whatever blocks it blocks pushes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lateen.apiserver.store import Store
from lateen.xds.server import ProxyStatus

_SAMPLE_S: Final = 0.05
_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics(Collector):
    """All metrics of one control plane, in a registry of their own."""

    def __init__(
        self, store: Store, proxies: Callable[[], list[ProxyStatus]], counters: Callable[[], dict[str, int]]
    ) -> None:
        self._store = store
        self._proxies = proxies
        self._counters = counters
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._lag = Histogram(
            "lateen_loop_lag_seconds", "How late the event loop was", buckets=_BUCKETS_S, registry=self._registry
        )

    async def run(self) -> None:
        """Samples the lag of the loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _SAMPLE_S
            await asyncio.sleep(_SAMPLE_S)
            self._lag.observe(max(0.0, loop.time() - due))

    def collect(self) -> Iterator[Metric]:
        """What is read when somebody asks."""
        yield GaugeMetricFamily("pilot_xds", "Connected proxies", value=len(self._proxies()))
        pushes = CounterMetricFamily("pilot_xds_pushes", "Responses sent, by type", labels=["type"])
        refused = CounterMetricFamily("pilot_total_xds_rejects", "Responses that proxies refused", labels=["type"])
        for name, count in sorted(self._counters().items()):
            what, _, short = name.partition(" ")
            if what == "sent":
                pushes.add_metric([short.lower()], count)
            elif what == "refused":
                refused.add_metric([short.lower()], count)
        yield pushes
        yield refused
        objects = GaugeMetricFamily("lateen_objects", "Objects in the store, by kind", labels=["kind"])
        counts: dict[str, int] = {}
        for row in self._store.rows():
            counts[row.ref.kind] = counts.get(row.ref.kind, 0) + 1
        for kind, count in sorted(counts.items()):
            objects.add_metric([kind], count)
        yield objects
        yield GaugeMetricFamily("lateen_store_revision", "The store's revision", value=self._store.revision)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
