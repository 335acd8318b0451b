"""The control plane's own metrics, for Prometheus; Istio's names where the meaning is the same.

`loop_lag` measures how late the event loop runs what is due: whatever blocks it blocks pushes. All else is counted
where it happens and only put into form when somebody asks. Istio's counters have no suffix `_total`, which a counter
must have here, so that dashboards find them they are of unknown type.

Source of Istio's names: https://istio.io/latest/docs/reference/commands/pilot-discovery/#metrics
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.core import UnknownMetricFamily as Unsuffixed
from prometheus_client.registry import Collector

from lateen import __version__
from lateen.apiserver.rows import Change
from lateen.apiserver.store import Store
from lateen.daemon.demand_findings import DemandFindings
from lateen.daemon.status_writer import StatusWriter
from lateen.xds.journal import Histogram as Counts
from lateen.xds.server import XdsServer

_SAMPLE_S: Final = 0.05
_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_TRIGGERS: Final[Mapping[str, str]] = {
    "EndpointSlice": "endpoint",
    "Pod": "endpoint",
    "WorkloadEntry": "endpoint",
    "Service": "service",
    "ServiceEntry": "service",
    "Secret": "secret",
    "Namespace": "namespace",
    "ConfigMap": "global",
}
"""Istio's reasons for a push, by kind; other kinds are `config`."""
_REGISTRY: Final[Mapping[str, str]] = {
    "Service": "Services",
    "Pod": "Pods",
    "Node": "Nodes",
    "EndpointSlice": "EndpointSlice",
}
_REJECTS: Final = ("cds", "eds", "lds", "rds")


class Events:
    """A subscriber of the store that counts changes as Istio counts events of Kubernetes."""

    def __init__(self) -> None:
        self.config = Counter[tuple[str, str]]()
        self.registry = Counter[tuple[str, str]]()
        self.updates = Counter[str]()

    def __call__(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before, after, ref = change.before, change.after, change.row.ref
            if before is not None and after is not None and before.body == after.body:
                continue
            event = "add" if before is None else "delete" if after is None else "update"
            if ref.group.endswith(".istio.io"):
                self.config[ref.kind, event] += 1
                self.updates["config"] += 1
            elif ref.kind in _REGISTRY:
                self.registry[_REGISTRY[ref.kind], event] += 1
                if ref.kind == "Service":
                    self.updates["svcdelete" if after is None else "svc"] += 1
                elif ref.kind == "EndpointSlice":
                    self.updates["eds"] += 1


class Metrics(Collector):
    """All metrics of one control plane, in a registry of their own."""

    def __init__(self, store: Store, xds: XdsServer, status: StatusWriter, demand: DemandFindings) -> None:
        self._store = store
        self._xds = xds
        self._status = status
        self._demand = demand
        self._events = Events()
        self._started = time.monotonic()
        store.subscribe(self._events)
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
        yield from self._pushes()
        yield from self._mesh()
        yield from self._own()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def _pushes(self) -> Iterator[Metric]:
        journal = self._xds.journal
        yield GaugeMetricFamily("pilot_xds", "Connected proxies", value=self._xds.connected)
        pushes = Unsuffixed("pilot_xds_pushes", "Responses sent, by type", labels=["type"])
        refused = Unsuffixed("pilot_total_xds_rejects", "Responses that proxies refused", labels=["type"])
        rejects = Counter[str]()
        for name, count in sorted(self._xds.counters.items()):
            what, _, short = name.partition(" ")
            if what == "sent":
                pushes.add_metric([short.lower()], count)
            elif what == "refused":
                refused.add_metric([short.lower()], count)
                rejects[short.lower()] = count
        yield pushes
        yield refused
        for short in _REJECTS:
            yield GaugeMetricFamily(
                f"pilot_xds_{short}_reject", f"{short.upper()} responses that proxies refused", value=rejects[short]
            )
        yield _histogram(
            "pilot_proxy_convergence_time",
            "Seconds between a change and a proxy having answered for all of it",
            {"": journal.convergence},
        )
        yield _histogram("pilot_xds_push_time", "Seconds to make one response", journal.push_times, "type")
        yield _histogram("pilot_xds_config_size_bytes", "Sizes of responses", journal.sizes, "type")
        yield _histogram(
            "pilot_debounce_time",
            "Seconds between the first change of a revision and the revision (no fixed delay: the one before drains)",
            {"": journal.coalescing},
        )
        triggers = Counter[str]()
        for kind, count in journal.triggers.items():
            triggers[_TRIGGERS.get(kind, "config")] += count
        yield _counter("pilot_push_triggers", "Revisions, by what was changed", triggers)

    def _mesh(self) -> Iterator[Metric]:
        events, store = self._events, self._store
        yield _counter("pilot_inbound_updates", "Changes of objects that matter to proxies", events.updates)
        for name, what, counts in (
            ("pilot_k8s_cfg_events", "Changes of configuration objects", events.config),
            ("pilot_k8s_reg_events", "Changes of services and workloads", events.registry),
        ):
            metric = Unsuffixed(name, what, labels=["type", "event"])
            for (kind, event), count in sorted(counts.items()):
                metric.add_metric([kind, event], count)
            yield metric
        entries = store.members(("networking.istio.io", "ServiceEntry"))
        hosts = sum(len(msgspec.json.decode(row.body, type=_Entry).spec.hosts) for row in entries)
        services = len(store.members(("", "Service"))) + hosts
        yield GaugeMetricFamily("pilot_services", "Services that are known, of ServiceEntries too", value=services)
        rules = len(store.members(("networking.istio.io", "VirtualService")))
        yield GaugeMetricFamily("pilot_virt_services", "VirtualServices that are known", value=rules)

    def _own(self) -> Iterator[Metric]:
        status = self._status
        info = GaugeMetricFamily("pilot_info", "The version", labels=["version"])
        info.add_metric([f"lateen-{__version__}"], 1)
        yield info
        uptime = time.monotonic() - self._started
        yield GaugeMetricFamily("istiod_uptime_seconds", "Since the control plane started", value=uptime)
        objects = GaugeMetricFamily("lateen_objects", "Objects in the store, by kind", labels=["kind"])
        for kind, count in sorted(Counter(row.ref.kind for row in self._store.rows()).items()):
            objects.add_metric([kind], count)
        yield objects
        yield GaugeMetricFamily("lateen_store_revision", "The store's revision", value=self._store.revision)
        yield CounterMetricFamily("lateen_queries", "Queries that ran", value=self._xds.pump.graph.ran)
        for name, what, value in (
            ("lateen_status_rounds", "Rounds of the status writer", status.rounds),
            ("lateen_status_looked_at", "Objects whose conditions were worked out", status.looked_at),
            ("lateen_status_written", "Statuses written", status.written),
        ):
            yield CounterMetricFamily(name, what, value=value)
        yield CounterMetricFamily(
            "lateen_xds_sated", "Proxies that asked for too many unknown names", value=self._demand.total
        )
        yield GaugeMetricFamily(
            "lateen_xds_sated_now", "Connected proxies that get everything for that", value=len(self._xds.sated())
        )


def _counter(name: str, what: str, counts: Mapping[str, int]) -> Unsuffixed:
    metric = Unsuffixed(name, what, labels=["type"])
    for label, count in sorted(counts.items()):
        metric.add_metric([label], count)
    return metric


def _histogram(name: str, what: str, counts: Mapping[str, Counts], label: str = "") -> HistogramMetricFamily:
    metric = HistogramMetricFamily(name, what, labels=[label] if label else [])
    for value, each in sorted(counts.items()):
        metric.add_metric([value.lower()] if label else [], each.buckets(), each.sum)
    return metric


class _Hosts(msgspec.Struct, frozen=True):
    hosts: tuple[str, ...] = ()


class _Entry(msgspec.Struct, frozen=True):
    spec: _Hosts = _Hosts()
