"""PeerAuthentication through the real Envoy: one port for plain traffic, mutual TLS and the application's own TLS, who
wins, and what plain callers are to rules about principals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, MARK, Call, GuardedPod
from tests.envoy.single_pod import ADDRESS
from tests.envoy.test_security_authorization import ALICE, APPLICATION, policy, source

OWN_TLS = """
import socketserver, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        with context.wrap_socket(self.request, server_side=True) as inner: inner.sendall(b"own tls\\n")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
ITS_CLIENT = f"""
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[3])
with socket.socket() as raw:
    raw.settimeout(8); raw.setsockopt(1, 36, {MARK}); raw.connect((sys.argv[1], int(sys.argv[2])))
    try:
        with context.wrap_socket(raw, server_hostname="own.example") as inner: print(inner.recv(100).decode(), end="")
    except OSError as error: print(type(error).__name__, end="")
"""
TLS_PORT = 9443
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: secure}
spec: {clusterIP: 10.96.0.3, selector: {app: app}, ports: [{name: PROTOCOL, port: 9443}]}
---
"""


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        made.application(APPLICATION_OF_ALL_METHODS, 9081)
        certificate, key = made.directory / "own.crt", made.directory / "own.key"
        for path, content in zip((certificate, key), made.authority.leaf("", "own.example"), strict=True):
            path.write_bytes(content)
        (made.directory / "root.crt").write_bytes(made.authority.pem)
        arguments = [ADDRESS, str(TLS_PORT), str(certificate), str(key)]
        server = subprocess.Popen([*made.inside(), sys.executable, "-I", "-c", OWN_TLS, *arguments])
        try:
            made.listening(TLS_PORT)
            yield made
        finally:
            server.kill()
            server.wait()


def own_tls(pod: GuardedPod) -> str:
    arguments = [ADDRESS, str(TLS_PORT), str(pod.directory / "root.crt")]
    command = [*pod.inside(), sys.executable, "-I", "-c", ITS_CLIENT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def peers(mode: str, name: str = "p", namespace: str = "default", more: str = "", created: str = "2026-01-01") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}T00:00:00Z"}}
spec: {{mtls: {{mode: {mode}}}{more}}}
---
"""


OWN = ", selector: {matchLabels: {app: app}}"
WHO = [Call(ALICE), Call()]
TAKEN = {"STRICT": [200, 0], "PERMISSIVE": [200, 200], "DISABLE": [0, 200]}


@pytest.mark.parametrize("mode", TAKEN)
def test_modes(pod: GuardedPod, mode: str) -> None:
    pod.configure(APPLICATION, peers(mode))
    assert pod.statuses(WHO) == TAKEN[mode]


@pytest.mark.parametrize(
    ("policies", "mode"),
    [
        ((), "PERMISSIVE"),
        ((peers("STRICT", namespace="istio-system"),), "STRICT"),
        ((peers("STRICT", namespace="istio-system"), peers("DISABLE")), "DISABLE"),
        ((peers("DISABLE"), peers("STRICT", "own", more=OWN)), "STRICT"),
        ((peers("STRICT"), peers("UNSET", "own", more=OWN)), "STRICT"),
        ((peers("STRICT", namespace="istio-system"), peers("UNSET")), "STRICT"),
        ((peers("STRICT", namespace="elsewhere"),), "PERMISSIVE"),
        ((peers("STRICT", more=", selector: {matchLabels: {app: other}}"),), "PERMISSIVE"),
        ((peers("STRICT", "new", created="2026-02-02"), peers("DISABLE", "old")), "DISABLE"),
        ((peers("STRICT", "b", more=OWN), peers("DISABLE", "a", more=OWN, created="2026-02-02")), "STRICT"),
    ],
)
def test_who_wins(pod: GuardedPod, policies: tuple[str, ...], mode: str) -> None:
    pod.configure(APPLICATION, *policies)
    assert pod.statuses(WHO) == TAKEN[mode]


def test_ports_of_their_own(pod: GuardedPod) -> None:
    more = OWN + ", portLevelMtls: {'9081': {mode: DISABLE}, '9080': {mode: UNSET}}"
    pod.configure(APPLICATION, peers("STRICT", more=more))
    assert pod.statuses(WHO) == TAKEN["STRICT"]
    assert pod.statuses([Call(ALICE, port=9081), Call(port=9081)]) == TAKEN["DISABLE"]


@pytest.mark.parametrize("protocol", ["https", "tls", "tcp", "unknown"])
def test_the_applications_own_tls_passes_unless_the_policy_is_strict(pod: GuardedPod, protocol: str) -> None:
    service = SERVICE.replace("PROTOCOL", protocol)
    for mode, text in (("PERMISSIVE", "own tls\n"), ("DISABLE", "own tls\n")):
        pod.configure(APPLICATION, service, peers(mode))
        assert own_tls(pod) == text, mode
    pod.configure(APPLICATION, service, peers("STRICT"))
    assert "own" not in own_tls(pod)


def test_rules_about_principals_where_plain_traffic_is_taken(pod: GuardedPod) -> None:
    """Plain callers have no name: they match nothing that asks for one, and everything that asks for none."""
    pod.configure(APPLICATION, peers("PERMISSIVE"), policy("{" + source('principals: ["*"]') + "}"))
    assert pod.statuses(WHO) == [200, 403]
    pod.configure(APPLICATION, peers("PERMISSIVE"), policy("{action: DENY, " + source("notPrincipals: ['*']") + "}"))
    assert pod.statuses(WHO) == [200, 403]
    pod.configure(APPLICATION, peers("PERMISSIVE"), policy("{action: DENY, " + source('principals: ["*"]') + "}"))
    assert pod.statuses(WHO) == [403, 200]


def test_no_certificate_and_those_of_others_are_refused(pod: GuardedPod) -> None:
    pod.configure(APPLICATION, peers("STRICT"))
    others = [
        Call(ALICE, foreign=True),
        Call("spiffe://other.example/ns/a/sa/alice"),
        Call("spiffe://cluster.localx/a"),
    ]
    assert pod.statuses(others) == [0, 0, 0]
