"""Route tables carrying traffic: one real Envoy, its route tables from files, and small HTTP servers behind it.

Everything talks over Unix sockets, so nothing is in the way of another test. The servers stand for the services
of `SERVICES`, each with subsets v1 to v3; what a server got is recorded, what it answers can be scripted. Route
tables are made by lateen's own queries from YAML; clusters are static here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.json_format import MessageToDict

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.types import RDS
from lateen.features.feature import Direction
from lateen.features.phases import http_filters
from lateen.intent.scope import ProxyKind, Scope
from tests.configuration import objects, service
from tests.envoy.harness import Envoy

Json = dict[str, Any]

SERVICES = ("details", "productpage", "ratings", "reviews")
SUBSETS = ("v1", "v2", "v3")
PORT = 9080
ENDPOINTS_OF_ALL = 4
"""Endpoints of the cluster without a subset, to have somewhere else to try."""

SIDECAR = Scope(ProxyKind.SIDECAR, "default", (("app", "productpage"), ("version", "v1")))
ROUTER = Scope(ProxyKind.ROUTER, "istio-system", (("istio", "ingressgateway"),))
TABLES = {"9080": (SIDECAR, Direction.OUTBOUND), "http.8080": (ROUTER, Direction.GATEWAY)}


@dataclass(frozen=True)
class Seen:
    """A request as a server got it; `server` is `service/subset`, or `service/all-2` without a subset."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def target(self) -> str:
        """Service and subset, without the number of the endpoint."""
        return self.server.partition("-")[0]


@dataclass(frozen=True)
class Answer:
    """What the client got. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass
class _Server:
    name: str
    log: list[Seen]
    script: list[int | str] = field(default_factory=list["int | str"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: _Server

    def handle_one_request(self) -> None:
        try:
            self.raw_requestline = self.rfile.readline(65537)
        except ConnectionResetError:  # the proxy has given up waiting
            self.raw_requestline = b""
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("content-length") or 0))
        server = self.served
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.log.append(Seen(server.name, self.command, self.path, headers))
        step = server.script.pop(0) if server.script else 200
        if step == "reset":
            self.close_connection = True
            return
        if isinstance(step, str):  # "wait 0.5": answers late
            time.sleep(float(step.removeprefix("wait ")))
            step = 200
        body = json.dumps({"server": server.name, "path": self.path}).encode()
        self.send_response(step)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-server", server.name)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the proxy has given up waiting
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


class Playground:
    """One Envoy and its servers. `apply` sets the configuration, `request` sends through a table."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: list[Seen] = []
        self._servers: dict[str, _Server] = {}
        self._listening: list[_UnixServer] = []
        clusters = [self._cluster(service, subset) for service in SERVICES for subset in ("", *SUBSETS)]
        for name in TABLES:
            self._write(name, RouteConfiguration(name=name))
        bootstrap: Json = {
            "node": {"id": "sidecar~10.88.0.9~app.default~default.svc.cluster.local", "cluster": "app.default"},
            "static_resources": {"clusters": clusters, "listeners": [self._listener(name) for name in TABLES]},
            "layered_runtime": {"layers": [{"name": "static", "static_layer": RUNTIME}]},
        }
        self.envoy = Envoy(bootstrap, directory)
        self.envoy.wait_live()

    def close(self) -> None:
        """Ends Envoy and the servers."""
        self.envoy.stop()
        for each in self._listening:
            each.shutdown()
            each.server_close()

    # -- configuration ----------------------------------------------------------------------------------------

    def apply(self, text: str) -> list[str]:
        """Replaces the configuration by these YAML documents (besides the services themselves); returns the
        names of the tables that Envoy refused (the ones before stay)."""
        graph = Graph()
        graph.commit(transaction([*services(), *objects(text)]))
        refused: list[str] = []
        for name, (scope, _) in TABLES.items():
            made = graph.pull(RDS.resource, scope, name)
            message = RouteConfiguration.FromString(made.body) if made else RouteConfiguration(name=name)
            stat = f"http.{_prefix(name)}.rds.{name}."
            before = self._count(stat)
            self._write(name, message)
            end = time.monotonic() + 20
            while self._count(stat) == before:
                if time.monotonic() > end:
                    raise TimeoutError(f"Envoy did not look at table {name}")
                time.sleep(0.005)
            if self.envoy.stat(stat + "update_rejected") != before[1]:
                refused.append(name)
        self.log.clear()
        for each in self._servers.values():
            each.script.clear()
        return refused

    def forget(self) -> None:
        """Forgets what servers got."""
        self.log.clear()

    def script(self, target: str, steps: Iterable[int | str]) -> None:
        """What the endpoints of `service/subset` answer next, in this order over all of them; later 200.

        A number is a status, `reset` closes the connection, `wait 0.5` answers 200 after that many seconds.
        """
        shared = list(steps)
        for name, each in self._servers.items():
            if name == target or name.startswith(f"{target}-"):
                each.script = shared

    def counter(self, name: str) -> int:
        """A counter of Envoy; `name` is a regular expression, several are added up."""
        lines = self.envoy.admin("/stats", filter=f"^{name}$").splitlines()
        return sum(int(line.rpartition(": ")[2]) for line in lines)

    def _count(self, stat: str) -> tuple[int, int]:
        return (self.envoy.stat(stat + "update_success"), self.envoy.stat(stat + "update_rejected"))

    def _write(self, name: str, message: RouteConfiguration) -> None:
        resource: Json = {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"}
        resource |= MessageToDict(message, preserving_proto_field_name=True)
        fresh = self.directory / f"{name}.new"
        fresh.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": [resource]}))
        fresh.rename(self.directory / f"{name}.json")

    def _listener(self, name: str) -> Json:
        filters = [HttpFilter.FromString(each) for each in http_filters(TABLES[name][1])]
        manager: Json = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
            "HttpConnectionManager",
            "stat_prefix": _prefix(name),
            "rds": {
                "route_config_name": name,
                "config_source": {
                    "path_config_source": {"path": str(self.directory / f"{name}.json")},
                    "resource_api_version": "V3",
                },
            },
            "http_filters": [MessageToDict(each, preserving_proto_field_name=True) for each in filters],
            "use_remote_address": True,
        }
        return {
            "name": name,
            "address": {"pipe": {"path": str(self.directory / f"{name}.sock")}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
        }

    def _cluster(self, service: str, subset: str) -> Json:
        name = f"outbound|{PORT}|{subset}|{service}.default.svc.cluster.local"
        servers = [f"{service}/{subset}"] if subset else [f"{service}/all-{index}" for index in range(ENDPOINTS_OF_ALL)]
        endpoints = [{"endpoint": {"address": {"pipe": {"path": str(self._serve(each))}}}} for each in servers]
        return {
            "name": name,
            "type": "STATIC",
            "lb_policy": "RING_HASH",
            "common_lb_config": {"healthy_panic_threshold": {}},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        }

    def _serve(self, name: str) -> Path:
        path = self.directory / name.replace("/", "-")
        server = self._servers[name] = _Server(name, self.log)
        listening = _UnixServer(os.fspath(path), type("Handler", (_Handler,), {"served": server}))
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        self._listening.append(listening)
        return path

    # -- traffic ----------------------------------------------------------------------------------------------

    def request(
        self,
        host: str,
        path: str = "/",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        table: str = "9080",
        body: bytes = b"",
    ) -> Answer:
        """Sends one request through a table on a connection of its own."""
        with Caller(self.directory / f"{table}.sock") as caller:
            return caller.request(host, path, method, headers or {}, body)

    def requests(
        self, host: str, times: int, path: str = "/", headers: Mapping[str, str] | None = None, table: str = "9080"
    ) -> Counter[str]:
        """How many of many requests on one connection each server answered; others by their status."""
        found: Counter[str] = Counter()
        with Caller(self.directory / f"{table}.sock") as caller:
            for _ in range(times):
                answer = caller.request(host, path, "GET", headers or {}, b"")
                found[answer.headers.get("x-server", "") if answer.status == 200 else str(answer.status)] += 1
        return found

    def wait_seen(self, count: int, deadline_s: float = 5) -> list[Seen]:
        """All requests the servers got, once there are so many; TimeoutError when they don't come."""
        end = time.monotonic() + deadline_s
        while len(self.log) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.log)} of {count} requests came")
            time.sleep(0.005)
        return list(self.log)


class Caller:
    """A client with one connection that stays open."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("unused", timeout=30)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(os.fspath(path))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(self, host: str, path: str, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One request; header names of the answer are in lower case."""
        started = time.monotonic()
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        lengths = {"content-length": str(len(body))} if body else {}
        for name, value in {"host": host, **lengths, **headers}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body or None)
        response = self._connection.getresponse()
        content = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, content, time.monotonic() - started)


RUNTIME = {"re2.max_program_size.error_level": 32768}


def services() -> list[Object]:
    """The services of every configuration here."""
    return objects("".join(service(name, PORT, f"10.96.1.{index}") for index, name in enumerate(SERVICES, 1)))


def _prefix(name: str) -> str:
    return name.replace(".", "_")
