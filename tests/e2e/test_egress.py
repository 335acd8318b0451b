"""The world outside through one gateway: who may call what, by name and by server name, and who did.

A Pod without a proxy stands for the world. Two clients, of which one may call; the mesh knows two hosts out there and
nothing else may be called. Everything is found by DNS.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.mesh import Mesh, eventually
from tests.envoy.certificates import Authority
from tests.envoy.world import HTTPS_SERVER

Json = dict[str, Any]
HERE = "egress"
PLAIN = "api.partner.example"
SECURE = "tls.partner.example"

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: egress}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: partner, namespace: outside, labels: {app: partner, sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: certificate, secret: {secretName: certificate}}]
  containers:
  - name: plain
    command: [python3, -m, lateen.demo.details, "8000"]
    readinessProbe: {tcpSocket: {port: 8000}}
  - name: secure
    command: [python3, -c, SERVER, 0.0.0.0, "8443", /certificate/tls.crt, /certificate/tls.key]
    readinessProbe: {tcpSocket: {port: 8443}}
    volumeMounts: [{name: certificate, mountPath: /certificate}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: egress-gateway, namespace: egress}
---
apiVersion: v1
kind: Service
metadata: {name: egress-gateway, namespace: egress}
spec:
  selector: {istio: egressgateway}
  ports: [{name: https, port: 443, targetPort: 8443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: egress-gateway, namespace: egress}
spec:
  selector: {matchLabels: {istio: egressgateway}}
  template:
    metadata:
      labels: {istio: egressgateway}
      annotations: {inject.istio.io/templates: gateway}
    spec:
      serviceAccountName: egress-gateway
      containers: [{name: istio-proxy, ports: [{name: https, containerPort: 8443}]}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: egress}
spec:
  egress: [{hosts: ["./*"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"""
RULES = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner, namespace: egress}
spec:
  hosts: [api.partner.example]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP, targetPort: 8000}]
  endpoints: [{address: PARTNER}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner-tls, namespace: egress}
spec:
  hosts: [tls.partner.example]
  resolution: STATIC
  ports: [{name: tls, number: 443, protocol: TLS, targetPort: 8443}]
  endpoints: [{address: PARTNER}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: egress}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [api.partner.example]
    tls: {mode: ISTIO_MUTUAL}
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: [tls.partner.example]
    tls: {mode: ISTIO_MUTUAL}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egress-gateway, namespace: egress}
spec:
  host: egress-gateway.egress.svc.cluster.local
  subsets:
  - name: partner
    trafficPolicy:
      portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL, sni: api.partner.example}}]
  - name: partner-tls
    trafficPolicy:
      portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL, sni: tls.partner.example}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner, namespace: egress}
spec:
  hosts: [api.partner.example]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route:
    - destination: {host: egress-gateway.egress.svc.cluster.local, subset: partner, port: {number: 443}}
  - match: [{gateways: [egress], port: 443}]
    route: [{destination: {host: api.partner.example, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner-tls, namespace: egress}
spec:
  hosts: [tls.partner.example]
  gateways: [mesh, egress]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [tls.partner.example]}]
    route:
    - destination: {host: egress-gateway.egress.svc.cluster.local, subset: partner-tls, port: {number: 443}}
  tcp:
  - match: [{gateways: [egress], port: 443}]
    route: [{destination: {host: tls.partner.example, port: {number: 443}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: buyers-only, namespace: egress}
spec:
  selector: {matchLabels: {istio: egressgateway}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/egress/sa/buyer]}}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: audit, namespace: egress}
spec:
  workloadSelector: {labels: {istio: egressgateway}}
  configPatches:
  - applyTo: NETWORK_FILTER
    match:
      context: GATEWAY
      listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}
    patch:
      operation: MERGE
      value:
        name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                text_format_source:
                  inline_string: "audit %DOWNSTREAM_PEER_URI_SAN% %REQ(:AUTHORITY)% %RESPONSE_CODE%\\n"
"""
ASK = """
import http.client, socket, ssl, sys
scheme, address, port, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
try:
    plain = socket.create_connection((address, port), 5)
    if scheme == "https":
        plain = ssl._create_unverified_context().wrap_socket(plain, server_hostname=name)
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.sock = plain
    connection.request("GET", "/details/0", headers={"Host": name})
    print(connection.getresponse().status)
except OSError as error:
    print(0, type(error).__name__)
except http.client.HTTPException as error:
    print(0, type(error).__name__)
"""


def client(name: str) -> str:
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {HERE}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {HERE}, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  terminationGracePeriodSeconds: 0
  containers: [{{name: program, command: [sleep, "1000"]}}]
---
"""


class Outside:
    """The mesh with the world around it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def pod(self, name: str, namespace: str = HERE) -> Json:
        def ready() -> Json | None:
            for each in self.mesh.get("pods", "-n", namespace):
                conditions = each.get("status", {}).get("conditions", ())
                said = {str(one["type"]): str(one["status"]) for one in conditions}
                if str(each["metadata"]["name"]).startswith(name) and said.get("Ready") == "True":
                    return each
            return None

        found = eventually(ready, within_s=40)
        assert found is not None
        return found

    def status(self, who: str, scheme: str, address: str, port: int, name: str) -> int:
        """What a client gets that calls an address as some name; 0 for no answer."""
        _, output = self.mesh.inside(self.pod(who), "program", ["python3", "-c", ASK, scheme, address, str(port), name])
        return int(output.split()[0])

    def plain(self, who: str, name: str = PLAIN, host: str = "", port: int = 80) -> int:
        return self.status(who, "http", name, port, host or name)

    def secure(self, who: str, name: str = SECURE, server_name: str = "", port: int = 443) -> int:
        return self.status(who, "https", name, port, server_name or name)

    def logs(self, pod: Json) -> str:
        return self.mesh.lateen("logs", pod["metadata"]["name"], "-n", pod["metadata"]["namespace"]).stdout


@pytest.fixture(scope="module")
def outside(mesh: Mesh) -> Iterator[Outside]:
    made = Outside(mesh)
    certificate, key = Authority("partner").leaf("", SECURE)
    documents = [each for each in yaml.safe_load_all(PODS + "---\n" + client("buyer") + client("other")) if each]
    for each in documents:
        if each["metadata"]["name"] == "partner":
            each["spec"]["containers"][1]["command"][2] = HTTPS_SERVER
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "certificate", "namespace": "outside"},
        "stringData": {"tls.crt": certificate.decode(), "tls.key": key.decode()},
    }
    documents.insert(2, secret)
    mesh.lateen("apply", "-f", "-", stdin="\n---\n".join(json.dumps(each) for each in documents))
    partner = made.pod("partner", "outside")["status"]["podIP"]
    mesh.lateen("apply", "-f", "-", stdin=RULES.replace("PARTNER", partner))
    made.pod("egress-gateway")
    eventually(lambda: made.plain("buyer"), lambda status: status == 200, within_s=20)
    yield made
    for namespace in (HERE, "outside"):
        mesh.lateen("delete", "namespace", namespace)
    eventually(
        lambda: {each["metadata"]["name"] for each in mesh.get("namespaces")},
        lambda found: not {HERE, "outside"} & found,
        within_s=60,
    )


def test_only_who_may_reaches_the_host_and_the_gateway_says_who_did(outside: Outside) -> None:
    assert outside.plain("buyer") == 200
    assert outside.plain("other") == 403
    gateway = outside.pod("egress-gateway")
    lines = eventually(
        lambda: [line for line in outside.logs(gateway).splitlines() if "audit " in line],
        lambda found: any("sa/other" in line for line in found),
    )
    assert any("ns/egress/sa/buyer" in line and PLAIN in line and " 200" in line for line in lines)
    assert any("ns/egress/sa/other" in line and PLAIN in line and " 403" in line for line in lines)


def test_only_who_may_reaches_the_server_name(outside: Outside) -> None:
    """TLS of the application's own, carried inside of mutual TLS to the gateway, which so knows who calls."""
    eventually(lambda: outside.secure("buyer"), lambda status: status == 200)
    assert outside.secure("other") == 0


def test_ways_around_it_fail(outside: Outside) -> None:
    partner = outside.pod("partner", "outside")["status"]["podIP"]
    assert outside.plain("other", partner, host="unknown.example", port=8000) in (0, 502), "by address"
    assert outside.plain("other", partner, host=PLAIN, port=8000) in (0, 502), "by address and its port"
    assert outside.plain("other", host="evil.example") in (0, 502), "by another Host"
    assert outside.plain("other", host=PLAIN) == 403
    assert outside.secure("other", partner, SECURE, port=8443) == 0, "by address with the right server name"
    assert outside.secure("buyer", server_name="evil.example") == 0, "by another server name"


def told(name: str, annotations: Mapping[str, str]) -> str:
    """A client with annotations, which would be of no use to it elsewhere."""
    pod = next(each for each in yaml.safe_load_all(client(name)) if each and each["kind"] == "Pod")
    pod["metadata"]["annotations"] = dict(annotations)
    pod["spec"]["serviceAccountName"] = "other"
    return yaml.safe_dump(pod) + "---\n"


def test_a_sidecar_told_to_leave_traffic_alone_opens_no_way_around(outside: Outside) -> None:
    """The Pods' own network holds what is locked: only a proxy opens connections that leave a Pod."""
    partner = outside.pod("partner", "outside")["status"]["podIP"]
    prefix = "traffic.sidecar.istio.io/"
    pods = {
        "by-port": {f"{prefix}excludeOutboundPorts": "8000,8443,80,443"},
        "by-range": {f"{prefix}excludeOutboundIPRanges": "0.0.0.0/0"},
        "as-gateway": {"inject.istio.io/templates": "gateway"},
    }
    outside.mesh.lateen("apply", "-f", "-", stdin="".join(told(*each) for each in pods.items()), expect=None)
    for name in pods:
        outside.pod(name)
        assert outside.status(name, "http", partner, 8000, PLAIN) == 0, name
        assert outside.status(name, "http", partner, 8000, "unknown.example") == 0, name
        assert outside.status(name, "https", partner, 8443, SECURE) == 0, name
        assert outside.plain(name) in (0, 403), name
    said = outside.mesh.lateen("get", "pod", "by-port", "-n", HERE).stdout
    assert "LTN0260" in said
    # unlocked, the same Pods reach it at once: it was the lock that held
    unlocked = next(each for each in yaml.safe_load_all(PODS) if each["kind"] == "Sidecar")
    unlocked["spec"]["outboundTrafficPolicy"]["mode"] = "ALLOW_ANY"
    outside.mesh.lateen("apply", "-f", "-", stdin=json.dumps(unlocked))
    for name in pods:
        eventually(lambda name=name: outside.status(name, "http", partner, 8000, PLAIN), lambda status: status == 200)
    unlocked["spec"]["outboundTrafficPolicy"]["mode"] = "REGISTRY_ONLY"
    outside.mesh.lateen("apply", "-f", "-", stdin=json.dumps(unlocked))
    for name in pods:
        eventually(lambda name=name: outside.status(name, "http", partner, 8000, PLAIN), lambda status: status == 0)
        outside.mesh.lateen("delete", "pod", name, "-n", HERE)


REFUSED = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: refused, namespace: egress}
spec:
  workloadSelector: {labels: {app: buyer}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_OUTBOUND}
    patch:
      operation: INSERT_FIRST
      value:
        name: broken
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "this is no Lua"}
"""


def test_a_patch_that_envoy_refuses_is_dropped_and_named_and_the_rest_lives(outside: Outside) -> None:
    outside.mesh.lateen("apply", "-f", "-", stdin=REFUSED, expect=None)

    def shown() -> str:
        return outside.mesh.lateen("get", "envoyfilter", "refused", "-n", HERE).stdout

    assert "Lua" in eventually(shown, lambda text: "LTN0020" in text, within_s=20)
    assert outside.plain("buyer") == 200
    assert outside.plain("other") == 403
    outside.mesh.lateen("delete", "envoyfilter", "refused", "-n", HERE)


BY_NAME = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-name, namespace: egress}
spec:
  hosts: [by-name.example]
  resolution: DNS
  ports: [{name: http, number: 80, protocol: HTTP, targetPort: 9080}]
  endpoints: [{address: details.default.svc.cluster.local}]
"""


def test_proxies_look_names_up_where_applications_get_virtual_addresses(outside: Outside) -> None:
    outside.mesh.lateen("apply", "-f", "-", stdin=BY_NAME)
    eventually(lambda: outside.plain("buyer", "by-name.example"), lambda status: status == 200)
    looked_up = ["python3", "-c", "import socket; print(socket.gethostbyname('by-name.example'))"]
    _, address = outside.mesh.inside(outside.pod("buyer"), "program", looked_up)
    assert address.startswith("240.240.")
    lookup = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET)[0][4][0])"
    partner = outside.pod("partner", "outside")  # without a sidecar a virtual address would lead nowhere
    found, said = outside.mesh.inside(partner, "plain", ["python3", "-c", lookup, "by-name.example"])
    assert not found, said
    found, said = outside.mesh.inside(partner, "plain", ["python3", "-c", lookup, "details.default.svc.cluster.local"])
    assert found, said
    assert said.startswith("10.96.")


SETTLED = """
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: settled, namespace: egress}
spec:
  selector: {matchLabels: {app: settled}}
  concurrency: 2
  environmentVariables: {ISTIO_META_TEAM: buyers, GREETING: hello}
---
"""


def test_proxies_start_with_the_settings_of_their_proxy_config(outside: Outside) -> None:
    annotated = {"proxy.istio.io/config": "{drainDuration: 7s, proxyMetadata: {GREETING: annotated}}"}
    outside.mesh.lateen("apply", "-f", "-", stdin=SETTLED + told("settled", annotated))
    pod = outside.pod("settled")
    uid = pod["metadata"]["uid"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(outside.mesh.settings.layout().pod(uid) / "admin.sock"))
        admin = HTTPConnection("admin")
        admin.sock = connection
        admin.request("GET", "/server_info")
        info = json.loads(admin.getresponse().read())
    assert info["command_line_options"]["concurrency"] == 2
    assert info["command_line_options"]["drain_time"] == "7s"
    assert info["node"]["metadata"]["TEAM"] == "buyers"
    proxies = [
        path.parent.joinpath("environ").read_bytes().split(b"\0")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if uid.encode() in _read(path) and b"envoy" in _read(path)
    ]
    assert any(b"GREETING=annotated" in each for each in proxies), "the annotation comes before the ProxyConfig"
    outside.mesh.lateen("delete", "pod", "settled", "-n", HERE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
