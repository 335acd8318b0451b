"""A Pod behind security policies, and callers of any identity: certificates of the mesh or of others, or none.

Callers run inside the Pod's network namespace with the proxy's mark, so they come in from outside, through the
inbound listener. They write requests byte by byte, to try what no HTTP library would send.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret

from tests.envoy.certificates import Authority
from tests.envoy.single_pod import ADDRESS, READY_S, SinglePod

MARK = 0x539

APPLICATION_OF_ALL_METHODS = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def __getattr__(self, name):
        if name.startswith("do_"): return self.answer
        raise AttributeError(name)
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"headers": self.headers.items(), "path": self.path}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""

CALLER = """
import json, socket, ssl, sys, time
def call(one):
    started = time.monotonic()
    got, error = b"", ""
    try:
        raw = socket.socket(); raw.settimeout(one["timeout_s"])
        raw.setsockopt(1, 36, one["mark"])
        if one["source"]: raw.bind((one["source"], 0))
        raw.connect((one["host"], one["port"]))
        if one["tls"]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(one["alpn"])
            if one["certificate"]: context.load_cert_chain(one["certificate"], one["key"])
            raw = context.wrap_socket(raw, server_hostname=one["sni"] or None)
        if one["send"]: raw.sendall(one["send"].encode("latin-1"))
        if one["line"]:
            while not got.endswith(b"\\n"):
                more = raw.recv(65536)
                if not more: break
                got += more
        else:
            while b"\\r\\n\\r\\n" not in got:
                more = raw.recv(65536)
                if not more: break
                got += more
            head, _, body = got.partition(b"\\r\\n\\r\\n")
            lines = head.lower().split(b"\\r\\n")
            length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
            while len(body) < length:
                more = raw.recv(65536)
                if not more: break
                got += more; body += more
        raw.close()
    except OSError as problem:
        error = repr(problem)
    return {"got": got.decode("latin-1"), "error": error, "seconds": time.monotonic() - started}
print(json.dumps([call(each) for each in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class Call:
    """What a caller does. `by`: the SPIFFE path after the trust domain (`ns/a/sa/b`), a whole id, or empty for plain
    traffic. With `line` bytes are sent and one line is read, else a request and its answer."""

    by: str = ""
    path: str = "/"
    method: str = "GET"
    host: str = "app"
    headers: Sequence[tuple[str, str]] = ()
    port: int = 9080
    line: bool = False
    send: str = ""
    body: str = ""
    sni: str = "app"
    source: str = ""
    address: str = ADDRESS
    timeout_s: float = 8
    foreign: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came back: status 0 for no answer; header names in lower case."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    text: str = ""
    error: str = ""
    seconds: float = 0

    @property
    def seen(self) -> dict[str, Any]:
        """What the application says it got: `path`, and `headers` as pairs."""
        return json.loads(self.body)

    @property
    def seen_headers(self) -> dict[str, str]:
        """The headers the application got, names in lower case."""
        return {name.lower(): value for name, value in self.seen["headers"]}


class GuardedPod(SinglePod):
    """A SinglePod with callers."""

    def __init__(self, labels: Iterable[tuple[str, str]] = (("app", "app"),), *, router: bool = False) -> None:
        self.authority = Authority()
        self._foreign = Authority("another mesh")
        self._leaves: dict[str, tuple[str, str]] = {}
        super().__init__(labels, router=router)
        certificate, key = self.authority.leaf("spiffe://cluster.local/ns/default/sa/default")
        own = Secret(name="default")
        own.tls_certificate.certificate_chain.inline_bytes = certificate
        own.tls_certificate.private_key.inline_bytes = key
        root = Secret(name="ROOTCA")
        root.validation_context.trusted_ca.inline_bytes = self.authority.pem
        self._identity = {"default": own, "ROOTCA": root}

    def __enter__(self) -> Self:
        return self

    def calls(self, calls: Sequence[Call]) -> list[Outcome]:
        """Makes calls one after the other, each on a connection of its own."""
        inside = [*self._inside(), sys.executable, "-I", "-c", CALLER]
        client = subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        output, _ = client.communicate(json.dumps([self._raw(each) for each in calls]).encode(), timeout=120)
        return [_outcome(call, answer) for call, answer in zip(calls, json.loads(output), strict=True)]

    def call(self, **fields: Any) -> Outcome:
        """Makes one call."""
        return self.calls([Call(**fields)])[0]

    def statuses(self, calls: Sequence[Call]) -> list[int]:
        """The statuses of some calls."""
        return [each.status for each in self.calls(calls)]

    def inside(self) -> list[str]:
        """The command prefix that runs a program in the Pod's network namespace."""
        return self._inside()

    def listening(self, *ports: int) -> None:
        """Waits until something listens on each of the ports."""
        deadline = time.monotonic() + READY_S
        while not all(f":{port} " in self._run("ss", "-Hltn") for port in ports):
            assert time.monotonic() < deadline, f"nobody listens on some of {ports}"
            time.sleep(0.05)

    def _raw(self, call: Call) -> dict[str, Any]:
        raw = asdict(call)
        certificate, key = self._leaf(call) if call.by else ("", "")
        request = f"{call.method} {call.path} HTTP/1.1\r\n" + (f"host: {call.host}\r\n" if call.host else "")
        request += "".join(f"{name}: {value}\r\n" for name, value in call.headers) + "\r\n" + call.body
        alpn = ["istio-peer-exchange", "istio"] if call.line else ["istio-http/1.1", "istio", "http/1.1"]
        return raw | {
            "host": call.address,
            "mark": MARK,
            "tls": bool(call.by),
            "certificate": certificate,
            "key": key,
            "alpn": alpn,
            "send": call.send if call.line else request,
        }

    def _leaf(self, call: Call) -> tuple[str, str]:
        uri = call.by if call.by.startswith("spiffe://") else f"spiffe://cluster.local/{call.by}"
        name = f"{'foreign' if call.foreign else 'own'}-{uri}"
        if name not in self._leaves:
            certificate, key = (self._foreign if call.foreign else self.authority).leaf(uri)
            paths = tuple(self.directory / f"caller-{len(self._leaves)}.{suffix}" for suffix in ("crt", "key"))
            for path, content in zip(paths, (certificate, key), strict=True):
                Path(path).write_bytes(content)
            self._leaves[name] = (str(paths[0]), str(paths[1]))
        return self._leaves[name]


def _outcome(call: Call, answer: Mapping[str, Any]) -> Outcome:
    text = str(answer["got"])
    if call.line or not text.startswith("HTTP/"):
        return Outcome(text=text, error=answer["error"], seconds=answer["seconds"])
    head, _, body = text.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Outcome(int(status.split()[1]), headers, body, text, answer["error"], answer["seconds"])
