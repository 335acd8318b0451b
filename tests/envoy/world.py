"""A Pod and the world outside of its mesh: a second network namespace with real servers, behind one link.

The world has no redirection and no proxy: what arrives there left the mesh. Its servers are programs with an address
of WORLD each; they can be ended and started again, which is how an outage looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lateen.intent.scope import Scope
from lateen.model.workloads import Locality
from tests.envoy.certificates import Authority
from tests.envoy.single_pod import READY_S, SinglePod

WORLD = "192.0.2."
"""The network of the world; the Pod's end of the link is .1."""
SERVERS = range(10, 30)

HTTPS_SERVER = """
import http.server, json, socketserver, ssl, sys
address, port, certificate, key = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = getattr(self.connection, "asked_for", "")
        body = json.dumps({"server": address, "host": self.headers["host"], "sni": name}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    server_bind = socketserver.TCPServer.server_bind
    def handle_error(self, *arguments): pass
server = Server((address, port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
def note(connection, name, _): connection.asked_for = name or ""
context.sni_callback = note
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""
LOAD_CLIENT = """
import collections, http.client, json, sys, threading, time
host, port, name, seconds, clients = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
end = time.monotonic() + seconds
seen, lock = [], threading.Lock()
def run():
    connection = http.client.HTTPConnection(host, port, timeout=10)
    while time.monotonic() < end:
        try:
            connection.request("GET", "/", headers={"Host": name})
            answer = connection.getresponse()
            text = answer.read().decode()
            who = json.loads(text)["server"] if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            who = repr(error); connection.close()
        with lock: seen.append((round(time.time(), 3), who))
        time.sleep(0.005)
threads = [threading.Thread(target=run) for _ in range(clients)]
for each in threads: each.start()
for each in threads: each.join()
print(json.dumps(seen))
"""


class World(SinglePod):
    """The Pod of `SinglePod` with a world outside. `authority` signs the certificates of its servers."""

    def __init__(self, labels: Iterable[tuple[str, str]], locality: Locality | None = None) -> None:
        self._outside: subprocess.Popen[bytes] | None = None
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self.authority = Authority("world")
        super().__init__(labels)
        self.scope = Scope(self.scope.kind, "default", self.scope.labels, locality=locality or Locality())
        self.ca = self.directory / "world-ca.pem"
        self.ca.write_bytes(self.authority.pem)

    def _prepare(self) -> None:
        super()._prepare()
        self._outside = subprocess.Popen([*self._inside(), "unshare", "--net", "sleep", "infinity"])
        pid = self._outside.pid
        deadline = time.monotonic() + READY_S
        own = Path(f"/proc/{self.envoy.process.pid}/ns/net")
        while _namespace(Path(f"/proc/{pid}/ns/net")) in (_namespace(own), _namespace(Path("/proc/self/ns/net"))):
            assert time.monotonic() < deadline, "the world has no network of its own"
            time.sleep(0.01)
        self._run("ip", "link", "add", "world", "type", "veth", "peer", "name", "mesh", "netns", str(pid))
        self._run("ip", "address", "add", f"{WORLD}1/24", "dev", "world")
        self._run("ip", "link", "set", "world", "up")
        self.outside("ip", "link", "set", "lo", "up")
        self.outside("ip", "link", "set", "mesh", "up")
        for number in SERVERS:
            self.outside("ip", "address", "add", f"{WORLD}{number}/24", "dev", "mesh")
        self.outside("ip", "route", "add", "10.88.0.0/16", "via", f"{WORLD}1")

    def close(self) -> None:
        """Ends the world too."""
        for each in (*self._servers.values(), *([self._outside] if self._outside else [])):
            each.kill()
            each.wait()
        super().close()

    def certificate(self, *names: str) -> tuple[str, str]:
        """The files of a certificate of the world's authority for some DNS names, and of its key."""
        certificate, key = self.authority.leaf(f"spiffe://world/{names[-1]}", *names)
        files = self.directory / f"{names[-1]}.pem", self.directory / f"{names[-1]}.key"
        files[0].write_bytes(certificate)
        files[1].write_bytes(key)
        return str(files[0]), str(files[1])

    def serve(self, number: int, port: int, command: Sequence[str]) -> None:
        """Starts a program as the server of one address and waits until it listens on a port."""
        server = [*self._in_world(), *command]
        self._servers[f"{WORLD}{number}"] = subprocess.Popen(server, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while f"{WORLD}{number}:{port} " not in self.outside("ss", "-Hltn"):
            assert time.monotonic() < deadline, f"nothing listens on {number}:{port}"
            time.sleep(0.02)

    def serve_https(self, number: int, port: int, *names: str) -> None:
        """An HTTPS server that answers with its address, the Host header and the server name it was asked for."""
        python = [sys.executable, "-I", "-c", HTTPS_SERVER, f"{WORLD}{number}", str(port)]
        self.serve(number, port, [*python, *self.certificate(*names, f"server-{number}")])

    def end(self, number: int) -> None:
        """Kills the server of an address."""
        server = self._servers.pop(f"{WORLD}{number}")
        server.kill()
        server.wait()

    def start_load(self, host: str, port: int, name: str, seconds: float, clients: int = 4) -> subprocess.Popen[bytes]:
        """Requests from inside the Pod on connections that stay; for `load_seen`."""
        return self._start(LOAD_CLIENT, host, str(port), name, str(seconds), str(clients), output=True)

    def load_seen(self, load: subprocess.Popen[bytes]) -> list[tuple[float, str]]:
        """When each request of a load ended, and who answered (or the status, or the error)."""
        output, _ = load.communicate(timeout=120)
        seen: list[Any] = json.loads(output)
        return sorted((float(at), str(who)) for at, who in seen)

    def run(self, *command: str) -> str:
        """What a program prints that runs inside the Pod as its application."""
        return self._run(*command)

    def outside(self, *command: str) -> str:
        """What a program prints that runs in the world."""
        done = subprocess.run([*self._in_world(), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _in_world(self) -> list[str]:
        assert self._outside is not None
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._outside.pid), *user, "--net"]


def _namespace(path: Path) -> int:
    return path.stat().st_ino
