"""A Pod in one network namespace for tests: a real Envoy with lateen's listeners, redirection, and applications.

The Pod calls itself through Service addresses. Its own proxy takes the call on the way out, sends it to the Pod's
address, redirection brings it back in, and the proxy hands it to the application: both ends of the mesh with one
Envoy. Applications and clients are programs inside the namespace; configuration is YAML that goes through
lateen's own queries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph
from lateen.envoy.resource import Resource, ResourceType
from lateen.envoy.types import TYPES
from lateen.intent.scope import Capabilities, HostSocket, ProxyKind, Scope
from lateen.platform import nft
from lateen.platform.pod import Redirect
from lateen.platform.settings import PlatformSettings
from tests.configuration import objects
from tests.envoy.harness import LISTENER, SECRET, Json, Validator

ADDRESS = "10.88.0.5"
READY_S = 15.0

HTTP_APPLICATION = """
import http.server, json, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"headers": dict(self.headers), "client": self.client_address[0]}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
class Server(http.server.ThreadingHTTPServer):
    server_bind = socketserver.TCPServer.server_bind  # without asking DNS for the name of the address
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
GREETING_APPLICATION = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\\n")
        for line in self.rfile: self.wfile.write(b"got " + line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
ECHO_APPLICATION = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(b"got " + line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
HTTP_CLIENT = """
import http.client, json, sys, time
host, port, name, mark = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
import socket
connection = http.client.HTTPConnection(host, port, timeout=5)
started = time.monotonic()
try:
    connection.sock = socket.socket()
    connection.sock.settimeout(5)
    if mark: connection.sock.setsockopt(1, 36, mark)
    connection.sock.connect((host, port))
    connection.request("GET", "/", headers={"Host": name})
    answer = connection.getresponse()
    print(json.dumps({"status": answer.status, "body": answer.read().decode(), "s": time.monotonic() - started}))
except OSError as error:
    print(json.dumps({"status": 0, "body": repr(error), "s": time.monotonic() - started}))
except http.client.HTTPException as error:
    print(json.dumps({"status": 0, "body": repr(error), "s": time.monotonic() - started}))
"""
TLS_CLIENT = """
import http.client, json, socket, ssl, sys
host, port, name, authority = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cadata=authority)
try:
    connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    connection.sock = context.wrap_socket(socket.create_connection((host, port), 5), server_hostname=name)
    connection.request("GET", "/", headers={"Host": name})
    answer = connection.getresponse()
    print(json.dumps({"status": answer.status, "body": answer.read().decode()}))
except OSError as error:
    print(json.dumps({"status": 0, "body": repr(error)}))
"""
LINES_CLIENT = """
import json, socket, sys, time
host, port, send, mark = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
started = time.monotonic()
try:
    connection = socket.socket(); connection.settimeout(7)
    if mark: connection.setsockopt(1, 36, mark)
    connection.connect((host, port))
    lines = connection.makefile("rb")
    if send: connection.sendall(send.encode() + b"\\n")
    print(json.dumps({"line": lines.readline().decode(), "s": time.monotonic() - started}))
except OSError as error:
    print(json.dumps({"line": "", "error": repr(error), "s": time.monotonic() - started}))
"""


class SinglePod(Validator):
    """One Pod with the address ADDRESS; use it as a context manager. `configure` before anything is called."""

    def __init__(self, labels: Iterable[tuple[str, str]], *, router: bool = False) -> None:
        super().__init__()
        self.graph = Graph()
        self.socket = self.directory / "gw.sock"
        kind = ProxyKind.ROUTER if router else ProxyKind.SIDECAR
        capabilities = Capabilities((HostSocket(8080, str(self.socket)),) if router else ())
        self.scope = Scope(kind, "default", tuple(sorted(labels)), capabilities=capabilities)
        self._objects: list[Object] = []
        self._programs: list[subprocess.Popen[bytes]] = []
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def bootstrap(self, xds: Path) -> Json:
        """The proxy's own connections are marked, so that redirection lets them out."""
        option = {"level": 1, "name": 36, "int_value": nft.PROXY_MARK, "state": "STATE_PREBIND"}
        return {
            **super().bootstrap(xds),
            "cluster_manager": {"upstream_bind_config": {"socket_options": [option]}},
        }

    def _prepare(self) -> None:
        self._run("ip", "link", "set", "lo", "up")
        self._run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        self._run("ip", "link", "set", "eth1", "up")
        self._run("ip", "address", "add", f"{ADDRESS}/16", "dev", "eth0")
        self._run("ip", "link", "set", "eth0", "up")
        self._run("ip", "route", "add", "default", "dev", "eth0")
        if not self.scope.router:
            self._run("nft", "-f", "-", stdin=nft.capture(Redirect(), PlatformSettings()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._programs:
            each.kill()
            each.wait()
        self.close()

    def configure(self, *texts: str) -> None:
        """Replaces the configuration and waits until Envoy has all of it; AssertionError for what it refuses."""
        wanted = [each for text in texts for each in objects(text)]
        gone = {each.ref for each in self._objects} - {each.ref for each in wanted}
        self._objects = wanted
        with self._changed:
            self.graph.commit(transaction(wanted, gone))
            before, self._errors = self._given, []
            self._given = {kind.type_url: dict(self._made(kind)) for kind in TYPES}
            for kind in TYPES:
                listed = self._given[kind.type_url]
                if kind.wildcard:
                    removed = [name for name in before.get(kind.type_url, {}) if name not in listed]
                    self._offer(kind.type_url, list(listed.values()), removed)
                else:
                    asked = [name for type_url, name in self._subscribed if type_url == kind.type_url]
                    known = [made for name in asked if (made := self._answer(kind.type_url, name)) is not None]
                    self._offer(kind.type_url, known, [])
            assert self._changed.wait_for(lambda: not self._sent, READY_S), "Envoy does not answer"
            assert not self._errors, self._errors
        deadline = time.monotonic() + READY_S
        while set(self._given[LISTENER]) != self._active():
            assert time.monotonic() < deadline, f"not active: {set(self._given[LISTENER]) ^ self._active()}"
            time.sleep(0.02)

    def _made(self, kind: ResourceType) -> Iterable[tuple[str, Resource]]:
        for name in self.graph.pull(kind.names, self.scope):
            made = self.graph.pull(kind.resource, self.scope, name)
            assert made is not None, f"{kind.short} {name} is listed and isn't there"
            yield name, made

    def _answer(self, type_url: str, name: str) -> Resource | None:
        """What is asked for by name: from the graph, secrets of the workload from the validator."""
        kind = next(each for each in TYPES if each.type_url == type_url)
        made = self.graph.pull(kind.resource, self.scope, name)
        return made if made is not None or type_url != SECRET else super()._answer(type_url, name)

    def application(self, source: str, port: int) -> None:
        """Starts an application on a port of the Pod's address and waits until it listens."""
        self._programs.append(self._start(source, ADDRESS, str(port)))
        deadline = time.monotonic() + READY_S
        while f"{ADDRESS}:{port} " not in self._run("ss", "-Hltn"):
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)

    def get(self, host: str, port: int, name: str, *, mark: int = 0) -> dict[str, Any]:
        """GET / with a Host header: status (0: no answer), body, seconds. `mark` is that of the client's socket."""
        return self._ask(HTTP_CLIENT, host, str(port), name, str(mark))

    def line(self, host: str, port: int, send: str = "", *, mark: int = 0) -> dict[str, Any]:
        """Sends a line, if any, and reads one: line (empty: none came), seconds."""
        return self._ask(LINES_CLIENT, host, str(port), send, str(mark))

    def tls(self, host: str, port: int, name: str, authority: bytes) -> dict[str, Any]:
        """GET / over TLS with a server name, trusting an authority (PEM): status (0: refused), body."""
        return self._ask(TLS_CLIENT, host, str(port), name, authority.decode())

    def _active(self) -> set[str]:
        found: set[str] = set()
        for each in self.envoy.dump("dynamic_listeners"):
            if "active_state" in each:
                found.add(str(each["name"]))
        return found

    def _ask(self, source: str, *arguments: str) -> dict[str, Any]:
        client = self._start(source, *arguments, output=True)
        output, _ = client.communicate(timeout=30)
        return json.loads(output)

    def _start(self, source: str, *arguments: str, output: bool = False) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._inside(), sys.executable, "-I", "-c", source, *arguments],
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
        )

    def _run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run([*self._inside(), *command], input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _inside(self) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.envoy.process.pid), *user, "--net"]
