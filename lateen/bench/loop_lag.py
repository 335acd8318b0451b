"""How late the control plane's event loop gets: store, engine and xDS in one process, under load.

    python -m lateen.bench.loop_lag --streams 200 --writes 2000 --seconds 20

One process holds what the control plane holds (SQLite store, graph with the real translation, delta xDS over
mutual TLS, the CA's certificates); another runs the streams as sidecars of several namespaces. Objects are written
one by one at a fixed rate: mostly Pod statuses, which change no configuration, and a share of endpoint changes and
of route weights, which go to every proxy. The loop's lag is measured every 5 ms as the time a wake-up is late.
`--page` adds what a console page would: every object as JSON, once a second, in the same loop.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc.aio
import msgspec

from lateen.api.codec import decode
from lateen.apiserver.operations import Operation, Put, PutStatus
from lateen.apiserver.rows import Change
from lateen.apiserver.store import Store
from lateen.bench.lag import measure, percentile_ms
from lateen.bench.xds_sidecars import Client, Fleet
from lateen.engine import Graph, Transaction
from lateen.envoy.types import TYPES
from lateen.intent.scope import scope_of
from lateen.lib.keypair import new_request
from lateen.lib.spiffe import SpiffeId
from lateen.security.ca import CertificateAuthority
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity, peer_of
from lateen.security.serving import SERVER_OPTIONS, ServingCertificate
from lateen.xds.auth import Authenticated
from lateen.xds.server import OPTIONS, XdsServer

PACE_S: Final = 0.01

Json = dict[str, Any]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`writes` a second in all; of them `endpoint_writes` and `route_writes` change configuration."""

    streams: int = 200
    namespaces: int = 5
    services: int = 50
    writes: int = 2000
    endpoint_writes: int = 20
    route_writes: int = 5
    seconds: float = 20
    page: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Times in ms; `machine_*` is the lag of an idle loop in another process at the same time. `revisions` is how many
    rounds the writes made in the graph; `cpu_s` the CPU of this process in the run; `received` what all streams got,
    `first_s` how long until every stream had everything."""

    settings: Settings
    lag_p50: float
    lag_p99: float
    lag_max: float
    machine_p99: float
    machine_max: float
    write_p50: float
    write_p99: float
    written: int
    revisions: int
    queries: int
    cpu_s: float
    first_s: float
    received: dict[str, int]
    refused: int


def documents(settings: Settings) -> list[Json]:
    """Services with two versions and two endpoints each, in namespaces, with a route rule each; a Pod per stream."""
    spaces = [f"ns{i}" for i in range(settings.namespaces)]
    made: list[Json] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}} for each in spaces]
    for i in range(settings.services):
        meta = {"name": f"svc{i}", "namespace": f"ns{i % settings.namespaces}"}
        ports = [{"name": "http", "port": 9080, "targetPort": 9080}]
        spec = {"clusterIP": f"10.96.{i // 250}.{i % 250 + 1}", "selector": {"app": f"svc{i}"}, "ports": ports}
        made.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        made += [endpoints(settings, i, 0), route(settings, i, 50)]
        subsets = [{"name": f"v{n}", "labels": {"version": f"v{n}"}} for n in (1, 2)]
        made.append(_istio("DestinationRule", meta, {"host": f"svc{i}", "subsets": subsets}))
    for i in range(settings.streams):
        labels = {"app": f"svc{i % settings.services}", "version": f"v{i % 2 + 1}"}
        meta = {"name": f"pod{i}", "namespace": f"ns{i % settings.namespaces}", "labels": labels}
        containers = [{"name": "app", "command": ["true"], "ports": [{"containerPort": 9080}]}]
        made.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers}})
    return made


def endpoints(settings: Settings, i: int, turn: int) -> Json:
    """Service i's endpoints; the second one comes and goes with `turn`."""
    name, namespace = f"svc{i}", f"ns{i % settings.namespaces}"
    addresses = [f"10.88.{i // 100}.{i % 100 * 2 + n + 1}" for n in range(2)]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": n == 0 or turn % 2 == 0}}
            for n, address in enumerate(addresses)
        ],
        "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
    }


def route(settings: Settings, i: int, weight: int) -> Json:
    """Service i's split between its versions."""
    shares = [
        {"destination": {"host": f"svc{i}", "subset": "v1"}, "weight": weight},
        {"destination": {"host": f"svc{i}", "subset": "v2"}, "weight": 100 - weight},
    ]
    meta = {"name": f"svc{i}", "namespace": f"ns{i % settings.namespaces}"}
    return _istio("VirtualService", meta, {"hosts": [f"svc{i}"], "http": [{"route": shares}]})


def _istio(kind: str, metadata: Json, spec: Json) -> Json:
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


class Writer:
    """Writes objects at the rate asked for."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._turn = 0
        self.latencies: list[float] = []
        self.late = 0

    async def run(self) -> None:
        """Writes until the time is over."""
        each, done = self._settings.writes * PACE_S, 0.0
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for step in range(int(self._settings.seconds / PACE_S)):
                done += each
                while len(self.latencies) + self.late < int(done):
                    self.late += 1
                    tasks.create_task(self._one())
                await asyncio.sleep(max(0.0, start + (step + 1) * PACE_S - time.perf_counter()))

    async def _one(self) -> None:
        start = time.perf_counter()
        await self._store.write([self._next()], author="bench")
        self.latencies.append(time.perf_counter() - start)
        self.late -= 1

    def _next(self) -> Operation:
        settings = self._settings
        self._turn += 1
        i = self._turn
        if settings.route_writes:
            turn, rest = divmod(i, settings.writes // settings.route_writes)
            if rest == 0:
                return Put(route(settings, turn % settings.services, turn % 100))
        if settings.endpoint_writes:
            turn, rest = divmod(i, settings.writes // settings.endpoint_writes)
            if rest == 1:
                return Put(endpoints(settings, turn % settings.services, turn // settings.services + 1))
        pod = f"pod{i % settings.streams}"
        meta = {"name": pod, "namespace": f"ns{i % settings.streams % settings.namespaces}"}
        status = {"phase": "Running", "message": f"probe {i}"}
        return PutStatus({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status})


async def draw_pages(store: Store) -> None:
    """What a page that shows everything would do in this loop, until cancelled."""
    while True:
        msgspec.json.encode([row.decode() for row in store.rows()])
        await asyncio.sleep(1)


async def run(settings: Settings, directory: Path) -> Report:
    """One run; its files go to the directory."""
    store = await Store.open(directory / "store.db")
    made = documents(settings)
    for start in range(0, len(made), 100):
        await store.write([Put(each) for each in made[start : start + 100]], author="bench")
    graph = Graph()
    graph.commit(Transaction(put=[(row.ref, decode(row.decode())) for row in store.rows()]))
    ca = open_ca(directory / "ca")
    rule = Authenticated(peer_of, lambda _: None, lambda _namespace, _name: "default")
    server = XdsServer(graph, TYPES, scope_of, rule)
    store.subscribe(lambda changes: _submit(server, changes))
    transport = grpc.aio.server(options=(*SERVER_OPTIONS, *OPTIONS))
    transport.add_generic_rpc_handlers((server.handler(),))
    credentials = ServingCertificate(lambda: ca, lambda: "cluster.local").credentials(require_client_certificate=True)
    port = transport.add_secure_port("127.0.0.1:0", credentials)
    await transport.start()
    lags: list[float] = []
    serving = asyncio.create_task(server.run())
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)  # what the control plane sets: full collections find nothing here
    clients = await _clients(settings, directory, port, ca)
    assert clients.stdin is not None
    assert clients.stdout is not None
    first: Json = json.loads(await clients.stdout.readline())
    clients.stdin.write(b"mark\n")
    await clients.stdout.readline()
    idle = await _program("lateen.bench.lag")
    background = [asyncio.create_task(measure(lags))]
    if settings.page:
        background.append(asyncio.create_task(draw_pages(store)))
    before, cpu = graph.revision, time.process_time()
    writer = Writer(settings, store)
    await writer.run()
    cpu = time.process_time() - cpu
    for each in background:
        each.cancel()
    machine: Json = json.loads((await idle.communicate(b""))[0])
    clients.stdin.write(b"wait 0\n")
    received: Json = json.loads(await clients.stdout.readline())
    await clients.communicate(b"")
    await transport.stop(None)
    serving.cancel()
    await asyncio.gather(serving, *background, return_exceptions=True)
    await store.close()
    return Report(
        settings=settings,
        lag_p50=percentile_ms(lags, 0.5),
        lag_p99=percentile_ms(lags, 0.99),
        lag_max=percentile_ms(lags, 1),
        machine_p99=machine["p99"],
        machine_max=machine["max"],
        write_p50=percentile_ms(writer.latencies, 0.5),
        write_p99=percentile_ms(writer.latencies, 0.99),
        written=len(writer.latencies),
        revisions=graph.revision - before,
        queries=len(graph),
        cpu_s=round(cpu, 2),
        first_s=first["ready_s"],
        received={"bytes": received["bytes"], **received["types"]},
        refused=sum(count for name, count in server.counters.items() if name.startswith("refused")),
    )


def _submit(server: XdsServer, changes: Sequence[Change]) -> None:
    put = [
        (change.after.ref, decode(change.after.decode()))
        for change in changes
        if change.after is not None and (change.before is None or change.before.body != change.after.body)
    ]
    if put:
        server.pump.submit(Transaction(put=put))


async def _clients(
    settings: Settings, directory: Path, port: int, ca: CertificateAuthority
) -> asyncio.subprocess.Process:
    spaces = [f"ns{i}" for i in range(settings.namespaces)]
    for namespace in spaces:
        key, csr = new_request()
        chain = ca.issue(csr, PeerIdentity(spiffe=SpiffeId("cluster.local", namespace, "default")))
        for part, text in (("ca", ca.trust_pem), ("chain", "".join(chain)), ("key", key)):
            (directory / f"{namespace}.{part}.pem").write_text(text)
    pods = [
        Client(f"ns{i % settings.namespaces}", f"pod{i}", f"10.88.{i >> 8}.{i & 255}") for i in range(settings.streams)
    ]
    fleet = Fleet(
        target=f"localhost:{port}",
        clients=tuple(pods),
        tables=("9080",),
        credentials=str(directory),
        streams_a_connection=1,
    )
    program = await _program("lateen.bench.xds_sidecars")
    assert program.stdin is not None
    program.stdin.write(msgspec.json.encode(fleet) + b"\n")
    return program


async def _program(module: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "GRPC_VERBOSITY": "ERROR"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=pipe, stdout=pipe, env=environment
    )


def main() -> None:
    """The command line; prints the report as JSON."""
    parser = argparse.ArgumentParser(description="Event loop lag of the control plane under load")
    for name, default in msgspec.structs.asdict(Settings()).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=float if isinstance(default, float) else int, default=default)
    settings = Settings(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="lateen-bench-") as directory:
        report = asyncio.run(run(settings, Path(directory)))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")


if __name__ == "__main__":
    main()
