"""A workload behind the real Envoy for the oracle: callers of many identities, external authorizers, one issuer.

Every answer says which configuration it went through (the `server` header), and what policies of AUDIT and policies
on trial made of the request (`x-seen`), so that no answer is taken for another one's.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import yaml
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from lateen.api.codec import decode
from tests.configuration import objects
from tests.lab.lab import OUTSIDE, Lab
from tests.lab.world import APPLICATION, WORLD
from tests.oracle.drawing import CALLERS, CLAIMS, DOMAINS, HTTP_PORTS, ISSUER, TCP_PORTS
from tests.oracle.semantics import Caller, Json, Mesh, Request
from tests.paths import REPOSITORY

AUTHORIZER: Final = "10.88.2.2"
OVER_HTTP: Final = 8000
OVER_GRPC: Final = 9500
GREETS: Final = TCP_PORTS[0]
READY_S: Final = 15.0
AT_ONCE: Final = 6
"""How many connections are used at the same time."""
_ANSWER_S: Final = 10.0
_RBAC = "envoy.filters.http.rbac"
_TYPE = "type.googleapis.com/envoy.extensions.filters"


def mesh_of(normalization: str) -> Mesh:
    """What the oracle knows of the mesh that `Workload` is in."""

    def over_grpc(request: Request) -> bool:
        if request.tcp:
            return request.caller is not None and request.caller.account == "alice"
        return request.header("x-ext-authz") == "allow"

    return Mesh(
        DOMAINS,
        normalization,
        {
            "first": lambda request: request.header("x-first") == "allow",
            "second": lambda request: request.header("x-second") == "allow",
            "over-grpc": over_grpc,
        },
        frozenset({"first", "second"}),
        labels={"app": "app"},
    )


@dataclass(frozen=True)
class Answer:
    """What came back: `status` of a request; `heard` whether a connection said anything. `seen` is what policies
    that enforce nothing made of a request: AUDIT, then those on trial."""

    status: int = 0
    heard: bool = False
    turn: str = ""
    seen: tuple[str, ...] = ()


class Workload:
    """The workload, its callers and its authorizers. Use it as a context manager."""

    def __init__(self) -> None:
        self.lab = Lab()
        self._stop: list[socket.socket] = []
        self._programs: list[subprocess.Popen[bytes]] = []
        key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
        self._keys = json.dumps(KeySet([key]).as_dict(private=False))
        now = int(time.time())
        self._tokens = {
            json.dumps(each): jwt.encode({"alg": "ES256", "kid": "one"}, {**each, "exp": now + 36000}, key)
            for each in CLAIMS
        }
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._contexts: dict[tuple[Caller, bool], ssl.SSLContext] = {}
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        for number, caller in enumerate(CALLERS):
            uri = f"spiffe://{caller.domain}/ns/{caller.namespace}/sa/{caller.account}"
            self.lab.certificates.leaf(f"caller-{number}", "root", uri=uri)
            for tcp in (False, True):
                alpn = ("istio-peer-exchange", "istio") if tcp else ("istio-http/1.1", "istio", "http/1.1")
                self._contexts[caller, tcp] = self.lab.certificates.client_context(f"caller-{number}", alpn)
        for port in {*HTTP_PORTS, *TCP_PORTS} - {9080, 9081, 9000}:
            self.lab.listen(port)
        self.lab.servers.greeting, self.lab.servers.greeting_port = b"hello\n", GREETS
        over_http = self.lab.socket()
        over_http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        over_http.bind((AUTHORIZER, OVER_HTTP))
        over_http.listen(64)
        self._stop.append(over_http)
        threading.Thread(target=_authorize, args=(over_http,), daemon=True).start()
        command = [sys.executable, "-m", "tests.envoy.authorizer", "grpc", AUTHORIZER, str(OVER_GRPC)]
        self._programs.append(subprocess.Popen([*self.lab.sidecar.inside(), *command], cwd=REPOSITORY))
        self.lab.wait(self._grpc_listens, 60)
        self._base = objects(WORLD.objects + _services() + _tokens(self._keys))

    def _grpc_listens(self) -> bool:
        with self.lab.socket(OUTSIDE) as one:
            return one.connect_ex((AUTHORIZER, OVER_GRPC)) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything."""
        self._threads.shutdown()
        for each in self._stop:
            each.shutdown(socket.SHUT_RDWR)
            each.close()
        for each in self._programs:
            each.kill()
            each.wait()
        self.lab.close()

    def configure(self, documents: Sequence[Json], normalization: str, turn: str) -> None:
        """Puts policies in force, and returns when a request has been answered by that configuration."""
        more = [_settings(normalization), _marks(turn), *documents]
        self.lab.servers.reset()
        self.lab.sidecar.configure([*self._base, *map(decode, more)])
        deadline = time.monotonic() + READY_S
        while self.ask([Request()])[0].turn != turn:
            assert time.monotonic() < deadline, "the configuration is not in use"

    def ask(self, requests: Sequence[Request], *, speak_first: bool = False) -> list[Answer]:
        """The answers to some requests, several at once; those of one caller go over one connection.

        `speak_first`: callers of the server that speaks first say something before it does; those without a certificate
        always do, since a port that takes both waits for their first bytes.
        """
        shared: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            who = (request.caller, request.source, request.sni, request.port)
            shared.setdefault((index,) if request.tcp else who, []).append(index)

        def over_one(indexes: list[int]) -> list[tuple[int, Answer]]:
            first = requests[indexes[0]]
            if first.tcp:
                return [(indexes[0], self._listen(first, speak_first=speak_first))]
            with self._connect(first) as connection:
                return [(index, self._request(connection, requests[index])) for index in indexes]

        answers = dict(each for found in self._threads.map(over_one, shared.values()) for each in found)
        return [answers[index] for index in range(len(requests))]

    def _connect(self, request: Request) -> socket.socket:
        tls = self._contexts[request.caller, request.tcp] if request.caller is not None else None
        return self.lab.connect(
            APPLICATION, request.port, source=request.source, tls=tls, sni=request.sni, mark=OUTSIDE
        )

    def _request(self, connection: socket.socket, request: Request) -> Answer:
        headers = [("host", request.host), *request.headers]
        if request.claims is not None:
            headers.append(("authorization", f"Bearer {self._tokens[json.dumps(request.claims)]}"))
        if request.method != "GET":
            headers.append(("content-length", "0"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.settimeout(_ANSWER_S)
        connection.sendall(f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += _more(connection)
        head, _, body = got.partition(b"\r\n\r\n")
        status, *found = head.decode("latin-1").split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in found)}
        while len(body) < int(named.get("content-length", 0)):
            body += _more(connection)
        seen = tuple(named.get("x-seen", "").split(","))
        return Answer(int(status.split()[1]), turn=named.get("server", ""), seen=seen)

    def _listen(self, request: Request, *, speak_first: bool) -> Answer:
        try:
            with self._connect(request) as connection:
                connection.settimeout(_ANSWER_S)
                if request.port != GREETS or speak_first or request.caller is None:
                    connection.sendall(b"hello there\n")
                return Answer(heard=bool(connection.recv(65536)))
        except TimeoutError:
            raise
        except OSError:
            return Answer()


def _more(connection: socket.socket) -> bytes:
    found = connection.recv(65536)
    assert found, "the connection ended before the answer"
    return found


def _authorize(listening: socket.socket) -> None:
    """External authorizers over HTTP, until the socket is closed: `/first/...` wants `x-first: allow`."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            name = line.split()[1].split(b"/")[1]
            wanted = b"x-" + name + b": allow"
            allowed = False
            while (header := lines.readline().strip().lower()) != b"":
                allowed = allowed or header == wanted
            said = b"200 OK" if allowed else b"403 Forbidden"
            connection.sendall(b"HTTP/1.1 " + said + b"\r\ncontent-length: 0\r\n\r\n")


# -- configuration --------------------------------------------------------------------------------------------------


def _services() -> str:
    ports: Iterable[tuple[str, int]] = (
        *((f"http-{port}", port) for port in HTTP_PORTS if port not in (9080, 9081)),
        *((f"tcp-{port}", port) for port in TCP_PORTS if port != 9000),
    )
    listed = ", ".join(f"{{name: {name}, port: {port}}}" for name, port in ports)
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: more}}
spec: {{clusterIP: 10.96.0.7, selector: {{app: app}}, ports: [{listed}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: more-1, labels: {{kubernetes.io/service-name: more}}}}
endpoints:
- {{addresses: [{APPLICATION}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: app, namespace: default}}}}
ports: [{listed}]
---
apiVersion: v1
kind: Service
metadata: {{name: ext-authz}}
spec: {{clusterIP: 10.96.0.9, ports: [{{name: http, port: {OVER_HTTP}}}, {{name: grpc, port: {OVER_GRPC}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: ext-authz-1, labels: {{kubernetes.io/service-name: ext-authz}}}}
endpoints: [{{addresses: [{AUTHORIZER}], conditions: {{ready: true}}}}]
ports: [{{name: http, port: {OVER_HTTP}}}, {{name: grpc, port: {OVER_GRPC}}}]
---
"""


def _tokens(keys: str) -> str:
    rule = {"issuer": ISSUER, "jwks": keys}
    return yaml.safe_dump(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "one"},
            "spec": {"jwtRules": [rule]},
        }
    )


def _settings(normalization: str) -> Json:
    service = "ext-authz.default.svc.cluster.local"
    providers: list[Json] = [
        {
            "name": name,
            "envoyExtAuthzHttp": {
                "service": service,
                "port": OVER_HTTP,
                "timeout": "10s",
                "pathPrefix": f"/{name}",
                "includeRequestHeadersInCheck": [f"x-{name}"],
            },
        }
        for name in ("first", "second")
    ]
    grpc = {"service": service, "port": OVER_GRPC, "timeout": "10s"}
    providers.append({"name": "over-grpc", "envoyExtAuthzGrpc": grpc})
    said: Json = {
        "trustDomain": DOMAINS[0],
        "trustDomainAliases": list(DOMAINS[1:]),
        "pathNormalization": {"normalization": normalization},
        "extensionProviders": providers,
    }
    metadata = {"name": "istio", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": yaml.safe_dump(said)}}


SEEN: Final = ("istio_audit_", *(f"istio_dry_run_{each}_" for each in ("custom", "deny", "allow")))
"""What the parts of `x-seen` are about."""


def _marks(turn: str) -> Json:
    results = ",".join(f"%DYNAMIC_METADATA({_RBAC}:{each}shadow_engine_result)%" for each in SEEN)
    metadata_namespace = "envoy.filters.http.header_to_metadata"
    kind = {"metadata_namespace": metadata_namespace, "key": "kind", "type": "STRING"}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "server_name": turn,
        "server_header_transformation": "OVERWRITE",
    }
    inbound = {"context": "SIDECAR_INBOUND"}
    filters: list[Json] = [
        {
            "name": "seen",
            "typed_config": {
                "@type": f"{_TYPE}.http.header_mutation.v3.HeaderMutation",
                "mutations": {"response_mutations": [{"append": {"header": {"key": "x-seen", "value": results}}}]},
            },
        },
        {
            "name": metadata_namespace,
            "typed_config": {
                "@type": f"{_TYPE}.http.header_to_metadata.v3.Config",
                "request_rules": [{"header": "x-kind", "on_header_present": kind}],
            },
        },
    ]
    name = "envoy.filters.network.http_connection_manager"
    patches: list[Json] = [
        {
            "applyTo": "NETWORK_FILTER",
            "match": {**inbound, "listener": {"filterChain": {"filter": {"name": name}}}},
            "patch": {"operation": "MERGE", "value": {"typed_config": manager}},
        },
        *(
            {"applyTo": "HTTP_FILTER", "match": inbound, "patch": {"operation": "INSERT_FIRST", "value": each}}
            for each in filters
        ),
    ]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "marks", "namespace": "default"},
        "spec": {"configPatches": patches},
    }
