"""Every check with the smallest mesh that it has something to say about, and one that it has nothing to say about."""

# ruff: noqa: E501 -- one case a line

from __future__ import annotations

import pytest

from lateen.analysis.checks import CHECKS
from lateen.analysis.findings import SUPPRESS_ANNOTATION, all_findings, findings
from lateen.api import codec
from lateen.api.core.service import Service
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import get, ref_of, transaction
from lateen.lib.findings import Level
from lateen.lib.yaml import documents
from tests.unit.analysis.mesh import BASE, graph, said


def vs(spec: str, name: str = "a", more: str = "") -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}{more}}}\nspec: {{{spec}}}\n"


def dr(spec: str, name: str = "d") -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def gw(spec: str, name: str = "g") -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def obj(api: str, kind: str, spec: str, name: str = "x", more: str = "") -> str:
    return f"apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{more}}}\nspec: {{{spec}}}\n"


def se(spec: str) -> str:
    return obj("networking.istio.io/v1", "ServiceEntry", spec)


def envoy_filter(patch: str) -> str:
    return obj("networking.istio.io/v1alpha3", "EnvoyFilter", f"configPatches: [{{{patch}}}]")


def tcp_entry(host: str, address: str, name: str = "x", protocol: str = "TCP") -> str:
    ports = f"ports: [{{number: 3306, name: it, protocol: {protocol}}}]"
    spec = f"hosts: [{host}], addresses: [{address}], {ports}, resolution: STATIC, endpoints: [{{address: 1.2.3.4}}]"
    return obj("networking.istio.io/v1", "ServiceEntry", spec, name)


def proxy_config(spec: str, name: str = "x", day: str = "2026-03-03") -> str:
    return obj("networking.istio.io/v1beta1", "ProxyConfig", spec, name, f", creationTimestamp: '{day}T00:00:00Z'")


def extension(kind: str, spec: str) -> str:
    return obj("extensions.istio.io/v1alpha1", kind, spec)


def deployment(annotations: str) -> str:
    metadata = f"metadata: {{labels: {{a: b}}, annotations: {{{annotations}}}}}"
    spec = f"selector: {{matchLabels: {{a: b}}}}, template: {{{metadata}, spec: {{containers: [{{name: a, command: [x]}}]}}}}"
    return obj("apps/v1", "Deployment", spec)


LOCKED = obj("networking.istio.io/v1", "Sidecar", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "locked")
SELECTING = se(
    "hosts: [a.b], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC,"
    " workloadSelector: {labels: {app: db}}"
)
IN_THE_MESH = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: a, command: [x]}]}
"""
MACHINE = obj(
    "networking.istio.io/v1",
    "WorkloadEntry",
    "address: 10.9.9.9",
    "db-1",
    ", annotations: {istio.io/autoRegistrationGroup: db}",
)
TO = "http: [{route: [{destination: {host: reviews}}]}]"
FULL = "reviews.default.svc.cluster.local"
THERE = TO.replace("reviews", "reviews.default.svc.cluster.local")
NARROW = "http: [{match: [{uri: {prefix: /b}}], route: [{destination: {host: reviews}}]}]"
SUBSETS = "host: reviews, subsets: [{name: v1, labels: {version: v1}}]"
SERVER = "port: {number: 80, name: http, protocol: HTTP}"
HTTPS = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b]"
HTTPS2 = HTTPS.replace("name: https", "name: other")
CLAIM = (
    "http: [{match: [{headers: {'@request.auth.claims.group': {exact: a}}}], route: [{destination: {host: reviews}}]}]"
)
TOKENS = obj(
    "security.istio.io/v1",
    "RequestAuthentication",
    "selector: {matchLabels: {istio: ingress}}, jwtRules: [{issuer: me, jwks: '{\"keys\": []}'}]",
    "tokens",
    ", namespace: edge",
)
TWO_PORTS = obj("v1", "Service", "ports: [{name: http-a, port: 1}, {name: http-b, port: 2}]", "two")
POD = "containers: [{name: a, command: [x], "


def secret(keys: str, name: str = "c") -> str:
    data = ", ".join(f"{each}: x" for each in keys.split())
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: edge}}\nstringData: {{{data}}}\n"


def test_the_base_has_nothing_wrong() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            [vs(f"hosts: [reviews.default.svc.cluster.local], {THERE}", more=", namespace: guest")],
            "LTN0320 VirtualService a spec.hosts[0]: clients of other namespaces call reviews of default by these rules "
            "(write it in default, or set exportTo: [.])",
        ),
        ([vs(f"hosts: [reviews], gateways: [wb], {TO}")], "IST0101 VirtualService a spec.gateways[0]: there is no Gateway default/wb (did you mean default/web?)"),
        ([vs(f"hosts: [a.example.com], gateways: [edge/web], {TO}")], "IST0101 VirtualService a spec.gateways[0]: there is no Gateway edge/web (did you mean default/web?)"),
        (
            [vs("hosts: [reviews], http: [{match: [{gateways: [nope]}], route: [{destination: {host: reviews}}]}]")],
            "IST0101 VirtualService a spec.http[0].match[0].gateways[0]: there is no Gateway default/nope (create the Gateway)",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: reviws}}]}]")],
            "IST0101 VirtualService a spec.http[0].route[0].destination.host: there is no service reviws.default.svc.cluster.local"
            " (did you mean reviews.default.svc.cluster.local?)",
        ),
        (
            [vs("hosts: [reviews], http: [{mirror: {host: zzz.qq}, route: [{destination: {host: reviews}}]}]")],
            "IST0101 VirtualService a spec.http[0].mirror.host: there is no service zzz.qq (create a Service or a ServiceEntry for it)",
        ),
        (
            [vs("hosts: [reviews], tcp: [{route: [{destination: {host: qqq}}]}]")],
            "IST0101 VirtualService a spec.tcp[0].route[0].destination.host: there is no service qqq.default",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: hid.edge.svc.cluster.local}}]}]"),
             obj("v1", "Service", "ports: [{name: http, port: 1}]", "hid", ", namespace: edge, annotations: {networking.istio.io/exportTo: .}")],
            "hid.edge.svc.cluster.local (Service edge/hid has it, but does not export it to namespace default)",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 80}}}]}]")],
            "IST0101 VirtualService a spec.http[0].route[0].destination.port.number: reviews.default.svc.cluster.local has no port 80 (it has 9080)",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]")],
            "IST0101 VirtualService a spec.http[0].route[0].destination.subset: there is no subset v1: no DestinationRule",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]"), dr(SUBSETS)],
            "IST0101 VirtualService a spec.http[0].route[0].destination.subset: DestinationRule default/d has no subset v2 (it has v1)",
        ),
        (
            [vs("hosts: [reviews], http: [{delegate: {name: b}}]"), vs(f"exportTo: [x], {TO}", "b")],
            "IST0101 VirtualService a spec.http[0].delegate: VirtualService default/b is not exported to namespace default",
        ),
        (
            [vs("hosts: [reviews], http: [{match: [{uri: {prefix: /a}}], delegate: {name: b}}]"), vs(NARROW, "b")],
            "LTN0240 VirtualService a spec.http[0].delegate: VirtualService default/b http[0] is left out: its match[0]",
        ),
        (
            [vs("hosts: [reviews], http: [{match: [{uri: {prefix: /a}}], delegate: {name: b}}]"), vs(NARROW, "b")],
            "LTN0240 VirtualService b spec.http[0]: VirtualService default/a http[0] leaves this rule out: its match[0]",
        ),
        ([vs(TO)], "LTN0241 VirtualService a spec: it has no hosts and no VirtualService delegates to it"),
        ([vs("hosts: [reviews], http: [{delegate: {name: b}}]")], "IST0101 VirtualService a spec.http[0].delegate: there is no VirtualService default/b"),
        (
            [vs("hosts: [reviews], http: [{delegate: {name: b}}]"), vs(f"hosts: [b.c], {TO}", "b")],
            "IST0101 VirtualService a spec.http[0].delegate: VirtualService default/b names hosts",
        ),
        (
            [vs("hosts: [reviews], http: [{route: [{destination: {host: two}}]}]"), TWO_PORTS],
            "IST0112 VirtualService a spec.http[0].route[0].destination: two.default.svc.cluster.local has several ports",
        ),
        (
            [vs(f"hosts: [a.example.org], gateways: [web], {TO}")],
            "IST0132 VirtualService a spec.hosts[0]: no server of default/web accepts a.example.org (accepted from this namespace: *.example.com)",
        ),
        (
            [vs(f"hosts: [reviews], {TO}", "new", ", creationTimestamp: '2026-02-02T00:00:00Z'"), vs(f"hosts: [reviews.default.svc.cluster.local], {TO}", "old", ", creationTimestamp: '2026-01-02T00:00:00Z'")],
            "IST0109 VirtualService new spec.hosts[0]: requests for reviews follow VirtualService default/old",
        ),
        (
            [
                vs(f"hosts: ['*.example.com'], {TO}", "new", ", creationTimestamp: '2026-02-02T00:00:00Z'"),
                vs(f"hosts: ['*.example.com'], {TO}", "old", ", creationTimestamp: '2026-01-02T00:00:00Z'"),
            ],
            "IST0109 VirtualService new spec.hosts[0]: requests for *.example.com follow VirtualService default/old and not this one, being older (merge the two)",
        ),
        (
            [
                vs(f"hosts: [reviews], {TO}", "all", ", creationTimestamp: '2026-01-02T00:00:00Z'"),
                vs(f"hosts: [{FULL}], exportTo: [.], {TO.replace('reviews', FULL)}", "own", ", namespace: edge"),
            ],
            "IST0109 VirtualService all spec.hosts[0]: requests for reviews follow VirtualService edge/own and not this one, being exported more narrowly, for clients in edge",
        ),
        ([dr("host: review")], "IST0174 DestinationRule d spec.host: there is no service review.default.svc.cluster.local (did you mean reviews"),
        ([dr("host: '*.example.org'")], "IST0174 DestinationRule d spec.host: *.example.org covers no host"),
        (
            [dr("host: reviews, subsets: [{name: v9, labels: {version: v9}}]")],
            "IST0173 DestinationRule d spec.subsets[0].labels: no workload of reviews.default.svc.cluster.local is in subset v9 (workloads with app: reviews have version: v1)",
        ),
        (
            [dr("host: a.b, subsets: [{name: v1, labels: {version: v1}}]"),
             se("hosts: [a.b], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 1.2.3.4, labels: {version: v2}}]")],
            "IST0173 DestinationRule d spec.subsets[0].labels: no endpoint of a.b is in subset v1",
        ),
        ([dr("host: reviews, workloadSelector: {matchLabels: {app: x}}")], "LTN0101 DestinationRule d spec.workloadSelector: no workload has these labels (workloads of default have app: reviews)"),
        ([gw(f"selector: {{istio: x}}, servers: [{{{SERVER}, hosts: [q.r]}}]")], "IST0101 Gateway g spec.selector: no workload has the labels istio: x"),
        (
            [gw("selector: {istio: ingress}, servers: [{port: {number: 81, name: http, protocol: HTTP}, hosts: [q.r]}]")],
            "IST0104 Gateway g spec.servers[0].port.number: port 81 is not open on the gateway's workload (open are 80, 443, 8080, 8443)",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: SIMPLE, credentialName: c}}}}]")],
            "IST0101 Gateway g spec.servers[0].tls.credentialName: there is no Secret edge/c",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: SIMPLE, credentialNames: [c]}}}}]"), secret("tls.crt")],
            "IST0101 Gateway g spec.servers[0].tls.credentialNames[0]: Secret edge/c has no certificate and key",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: MUTUAL, credentialName: c}}}}]"), secret("tls.crt tls.key")],
            "IST0101 Gateway g spec.servers[0].tls.credentialName: Secret edge/c has no roots",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{SERVER}, hosts: ['*.example.com']}}]")],
            "IST0145 Gateway g spec.servers[0].hosts[0]: Gateway default/web claims *.example.com on port 80 too",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: SIMPLE, credentialName: c}}}}, {{{HTTPS2}, tls: {{mode: MUTUAL, credentialName: c}}}}]"), secret("tls.crt tls.key ca.crt")],
            "LTN0200 Gateway g spec.servers[1].hosts[0]: server 0 of Gateway default/g has a.b on port 443 with other TLS settings",
        ),
        (
            [gw("selector: {istio: ingress}, servers: [{port: {number: 80, name: t, protocol: TCP}, hosts: ['*']}]", "young"), gw(f"selector: {{istio: ingress}}, servers: [{{{SERVER}, hosts: [q.r]}}]", "old")],
            "LTN0200 Gateway young spec.servers[0]: server 0 of Gateway default/old has port 80 and treats it in another way",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: MUTUAL, credentialName: c}}}}]"), secret("tls.crt tls.key ca.crt"),
             "apiVersion: v1\nkind: Service\nmetadata: {name: udp, namespace: edge}\nspec: {selector: {istio: ingress}, ports: [{name: http3, port: 443, protocol: UDP}]}\n"],
            "LTN0201 Gateway g spec.servers[0].tls.mode: port 443 is also a UDP port",
        ),
        (
            [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: MUTUAL, credentialName: c, caCertCredentialName: d}}}}]"), secret("tls.crt tls.key")],
            "IST0101 Gateway g spec.servers[0].tls.caCertCredentialName: there is no Secret or ConfigMap edge/d with roots",
        ),
        (
            [vs(f"hosts: [shop.example.com], gateways: [web], {CLAIM}")],
            "IST0149 VirtualService a spec.http[0].match[0].headers[\"@request.auth.claims.group\"]: nothing verifies tokens there",
        ),
        ([obj("networking.istio.io/v1", "Sidecar", "workloadSelector: {labels: {app: x}}")], "IST0101 Sidecar x spec.workloadSelector: no workload"),
        (
            [obj("networking.istio.io/v1", "Sidecar", "workloadSelector: {labels: {app: reviews}}", "new", ", creationTimestamp: '2026-02-02T00:00:00Z'"),
             obj("networking.istio.io/v1", "Sidecar", "workloadSelector: {labels: {version: v1}}", "old", ", creationTimestamp: '2026-01-02T00:00:00Z'")],
            "IST0110 Sidecar new spec.workloadSelector: Sidecar default/old applies to reviews-v1",
        ),
        (
            [obj("networking.istio.io/v1", "Sidecar", "egress: [{hosts: [./*]}]"), obj("networking.istio.io/v1", "Sidecar", "egress: [{hosts: [./*]}]", "other")],
            "IST0111 Sidecar x : other is for the whole namespace default too",
        ),
        (
            [obj("v1", "Service", "selector: {app: reviews}, ports: [{name: http, port: 80}]", "x", ", annotations: {networking.istio.io/traffic-distribution: Near}")],
            'LTN0223 Service x metadata.annotations["networking.istio.io/traffic-distribution"]: "Near" means nothing (use PreferSameZone)',
        ),
        (
            [obj("networking.istio.io/v1", "Sidecar", "ingress: [{port: {number: 9443, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b}}]")],
            "LTN0220 Sidecar x spec.ingress[0].tls: port 9443 of reviews-v1 takes mutual TLS of the mesh, so this TLS is not ended"
            " (a PeerAuthentication with portLevelMtls: {9443: {mode: DISABLE}})",
        ),
        (
            [
                se("hosts: [b.test], ports: [{number: 3306, name: a, protocol: TCP}], addresses: [10.1.1.1]"),
                obj("networking.istio.io/v1", "ServiceEntry", "hosts: [a.test], ports: [{number: 3306, name: a, protocol: TCP}], addresses: [10.1.1.2]", "a"),
                obj("networking.istio.io/v1", "Sidecar", "egress: [{port: {number: 3306, protocol: MYSQL}, captureMode: NONE, hosts: [./*]}]"),
            ],
            "LTN0221 Sidecar x spec.egress[0].hosts: connections to 127.0.0.1 go to a.test, never to b.test (name one service, or leave bind out)",
        ),
        (
            [obj("security.istio.io/v1", "PeerAuthentication", "selector: {matchLabels: {app: x}}")],
            "LTN0101 PeerAuthentication x spec.selector: no workload has these labels (workloads of default have app: reviews)",
        ),
        (
            [obj("security.istio.io/v1", "PeerAuthentication", "selector: {matchLabels: {app: reviews}}, portLevelMtls: {80: {mode: STRICT}}")],
            'LTN0102 PeerAuthentication x spec.portLevelMtls["80"]: no selected workload has port 80 (they have 9080)',
        ),
        (
            [obj("security.istio.io/v1", "PeerAuthentication", "mtls: {mode: STRICT}", "b"), obj("security.istio.io/v1", "PeerAuthentication", "mtls: {mode: STRICT}", "a")],
            "LTN0103 PeerAuthentication b : a is for the same workloads",
        ),
        ([obj("v1", "Service", "selector: {app: x}, ports: [{name: http, port: 80}]")], "LTN0104 Service x spec.selector: no workload"),
        (
            [obj("v1", "Service", "selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: wbe}]")],
            "LTN0105 Service x spec.ports[0].targetPort: no selected workload has a port named wbe (they have web)",
        ),
        ([obj("v1", "Service", "ports: [{name: web, port: 80}]")], "IST0118 Service x spec.ports[0]: port web does not say its protocol"),
        (
            [se("hosts: [a.b], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: x}}")],
            "LTN0101 ServiceEntry x spec.workloadSelector: no workload",
        ),
        ([se("hosts: [a.b], ports: [{number: 3306, name: tcp, protocol: TCP}]")], "IST0134 ServiceEntry x spec.ports[0]: every connection to port 3306"),
        ([obj("v1", "Pod", "containers: [{name: a, image: b}]")], "LTN0106 Pod x spec.containers[0]: container a has no command"),
        (
            [obj("apps/v1", "Deployment", "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {initContainers: [{name: i}], containers: [{name: a, command: [x]}]}}")],
            "LTN0106 Deployment x spec.template.spec.initContainers[0]: container i has no command",
        ),
        (
            [obj("v1", "Pod", f"{POD}env: [{{name: e, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]}}]")],
            "LTN0107 Pod x spec.containers[0].env[0].valueFrom.configMapKeyRef: there is no ConfigMap default/c",
        ),
        (
            [obj("v1", "Pod", f"{POD}env: [{{name: e, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]}}]"),
             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {other: v}\n"],
            "LTN0107 Pod x spec.containers[0].env[0].valueFrom.configMapKeyRef: ConfigMap default/c has no key k (it has other)",
        ),
        ([obj("v1", "Pod", f"{POD}envFrom: [{{secretRef: {{name: s}}}}]}}]")], "LTN0107 Pod x spec.containers[0].envFrom[0].secretRef: there is no Secret default/s"),
        ([obj("v1", "Pod", "volumes: [{name: v, secret: {secretName: s}}], containers: [{name: a, command: [x]}]")], "LTN0107 Pod x spec.volumes[0].secret: there is no Secret default/s"),
        (
            [envoy_filter("applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: soon}}")],
            "LTN0110 EnvoyFilter x spec.configPatches[0].patch.value: it is left out: ",
        ),
        (
            [envoy_filter("applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {subFilter: {name: istio.stats}}}}}, patch: {operation: ADD, value: {name: a}}")],
            "LTN0111 EnvoyFilter x spec.configPatches[0].match.listener: there is no istio.stats here: ",
        ),
        (
            [IN_THE_MESH, envoy_filter("applyTo: CLUSTER, match: {cluster: {service: revews}}, patch: {operation: REMOVE}")],
            "LTN0112 EnvoyFilter x spec.configPatches[0].match: nothing of default/web-1 is what it is for",
        ),
        (
            [IN_THE_MESH, envoy_filter("applyTo: CLUSTER, match: {proxy: {metadata: {TEAM: shop}}}, patch: {operation: MERGE, value: {}}")],
            "LTN0112 EnvoyFilter x spec.configPatches[0].match: no proxy states that metadata: not default/web-1",
        ),
        (
            [IN_THE_MESH, envoy_filter("applyTo: BOOTSTRAP, match: {context: GATEWAY}, patch: {operation: MERGE, value: {header_prefix: x}}")],
            "LTN0112 EnvoyFilter x spec.configPatches[0].match: nothing of default/web-1 is what it is for",
        ),
        (
            [envoy_filter("applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}")],
            "LTN0269 EnvoyFilter x spec.configPatches[0].patch.operation: REMOVE is not done with a ROUTE_CONFIGURATION (use MERGE, MERGE_AND_REPLACE_LIST)",
        ),
        (
            [MACHINE, IN_THE_MESH, obj("v1", "Service", "selector: {app: web}, ports: [{name: http, port: 80}]")],
            "LTN0272 Service x spec.selector: machines do not reach Pod web-1: it has no sidecar",
        ),
        (
            [MACHINE, IN_THE_MESH, obj("v1", "Service", "clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]")],
            "LTN0272 Service x spec.clusterIP: machines do not reach a headless Service",
        ),
        (
            [MACHINE, envoy_filter("applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {header_prefix: x}}")],
            "LTN0270 EnvoyFilter x spec.configPatches[0]: WorkloadEntry default/db-1 is a machine, and starts without it",
        ),
        (
            [LOCKED, obj("v1", "Pod", f"{POD}}}]", "x", ", annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: '3306'}")],
            'LTN0260 Pod x metadata.annotations["traffic.sidecar.istio.io/excludeOutboundPorts"]: only known hosts may be called from here',
        ),
        (
            [LOCKED, deployment("traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.0.0.0/8")],
            'LTN0260 Deployment x spec.template.metadata.annotations["traffic.sidecar.istio.io/excludeOutboundIPRanges"]: only known hosts',
        ),
        (
            [LOCKED, obj("v1", "Pod", f"{POD}}}]", "x", ", labels: {sidecar.istio.io/inject: 'false'}")],
            'LTN0271 Pod x metadata.labels["sidecar.istio.io/inject"]: only known hosts may be called from here, and without a proxy',
        ),
        (
            [LOCKED, deployment("sidecar.istio.io/inject: 'false'")],
            'LTN0271 Deployment x spec.template.metadata.annotations["sidecar.istio.io/inject"]: only known hosts',
        ),
        (
            [LOCKED, obj("batch/v1", "Job", "template: {metadata: {labels: {sidecar.istio.io/inject: 'false'}}, spec: {restartPolicy: Never, containers: [{name: a, command: [x]}]}}")],
            'LTN0271 Job x spec.template.metadata.labels["sidecar.istio.io/inject"]: only known hosts',
        ),
        ([obj("v1", "Pod", f"{POD}}}]", "x", ", annotations: {proxy.istio.io/config: 'concurrency: many'}")], "LTN0261 Pod x metadata.annotations"),
        ([deployment("proxy.istio.io/config: 'statusPort: 1'")], 'LTN0261 Deployment x spec.template.metadata.annotations["proxy.istio.io/config"]: statusPort has no effect'),
        ([deployment("proxy.istio.io/config: 'proxyMetadata: {LD_PRELOAD: x}'")], 'LTN0261 Deployment x spec.template.metadata.annotations["proxy.istio.io/config"]: LD_PRELOAD cannot be set for a proxy'),
        ([proxy_config("selector: {matchLabels: {app: x}}")], "LTN0101 ProxyConfig x spec.selector: no workload has these labels"),
        ([proxy_config("concurrency: 1", "x", "2026-02-02"), proxy_config("concurrency: 2", "old", "2026-01-01")], "LTN0262 ProxyConfig x : ProxyConfig default/old counts for the whole namespace"),
        (
            [proxy_config("selector: {matchLabels: {app: reviews}}", "x", "2026-02-02"), proxy_config("selector: {matchLabels: {version: v1}}", "old", "2026-01-01")],
            "LTN0262 ProxyConfig x spec.selector: ProxyConfig default/old counts for reviews-v1",
        ),
        ([se("hosts: [reviews.default.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS")], "LTN0263 ServiceEntry x spec.hosts[0]: Service default/reviews counts for this host, a Service comes before"),
        ([tcp_entry("a.b", "10.1.2.3"), tcp_entry("b.b", "10.1.2.3", "z")], "LTN0264 ServiceEntry z spec.addresses[0]: ServiceEntry default/x (a.b) gets connections to port 3306 there: its host sorts first"),
        ([tcp_entry("a.b", "10.1.0.0/16"), tcp_entry("b.b", "10.1.2.0/24", "z")], "LTN0264 ServiceEntry x spec.addresses[0]: ServiceEntry default/z (b.b) gets connections to port 3306 there: its range is narrower"),
        ([tcp_entry("a.b", "10.1.2.3", protocol="HTTP"), tcp_entry("b.b", "10.1.2.3", "z")], "LTN0264 ServiceEntry x spec.addresses[0]: ServiceEntry default/z (b.b) gets connections to port 3306 there: its port is not HTTP"),
        (
            [SELECTING, obj("networking.istio.io/v1", "WorkloadEntry", "address: db.internal, labels: {app: db}", "named"), obj("networking.istio.io/v1", "WorkloadEntry", "address: 10.1.1.1, labels: {app: db}")],
            "LTN0265 ServiceEntry x spec.workloadSelector: WorkloadEntry named is left out: db.internal cannot be used with this resolution",
        ),
        (
            [SELECTING, obj("networking.istio.io/v1", "WorkloadEntry", "network: far, labels: {app: db}", "bare")],
            "LTN0265 ServiceEntry x spec.workloadSelector: WorkloadEntry bare is left out: it has no address",
        ),
        (
            [se("hosts: [a.b], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{network: far}, {address: 10.1.1.1}]")],
            "LTN0265 ServiceEntry x spec.endpoints[0]: the endpoint is left out: it has no address",
        ),
        ([extension("WasmPlugin", "url: file:///m")], "LTN0266 WasmPlugin x spec.url: the module is not there: it is not fetched yet; what it would see is refused"),
        ([extension("TrafficExtension", "wasm: {url: file:///m, failStrategy: FAIL_OPEN}")], "LTN0266 TrafficExtension x spec.wasm.url: the module is not there: it is not fetched yet; traffic passes without it"),
        ([extension("TrafficExtension", "lua: {inlineCode: a}, selector: {matchLabels: {app: x}}")], "LTN0101 TrafficExtension x spec.selector: no workload has these labels"),
    ],
)  # fmt: skip
def test_finding(texts: list[str], expected: str) -> None:
    found = said(*texts)
    assert any(expected in each for each in found), found
    assert {each.split(" ", 1)[0] for each in found} == {expected.split(" ", 1)[0]} or expected.startswith("hid"), found


@pytest.mark.parametrize(
    "texts",
    [
        [vs(f"hosts: [reviews], gateways: [mesh, web], {TO}")],
        [vs(f"hosts: [reviews.default.svc.cluster.local], exportTo: [.], {THERE}", more=", namespace: guest")],
        [vs(f"hosts: [reviews.default.svc.cluster.local], {THERE}", more=", namespace: istio-system")],
        [vs(f"hosts: [shop.example.com, '*.example.com'], gateways: [default/web], {TO}")],
        [vs("hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1, port: {number: 9080}}}]}]"), dr(SUBSETS)],
        [vs("hosts: [w.x], http: [{route: [{destination: {host: a.w.x}}]}]"), se("hosts: ['*.w.x'], ports: [{number: 80, name: http, protocol: HTTP}]")],
        [vs("hosts: [reviews], http: [{delegate: {name: b}}]"), vs(TO, "b")],
        [vs("hosts: [reviews], http: [{route: [{destination: {host: two, port: {number: 1}}}]}]"), TWO_PORTS],
        [dr("host: '*.default.svc.cluster.local'"), dr("host: reviews, subsets: [{name: all}]", "e")],
        [dr("host: reviews, workloadSelector: {matchLabels: {app: reviews}}")],
        [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: SIMPLE, credentialName: c}}}}]"), secret("tls.crt tls.key")],
        [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: MUTUAL, credentialName: c}}}}]"), secret("cert key"), secret("cacert", "c-cacert")],
        [gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: PASSTHROUGH}}}}]")],
        [
            gw(f"selector: {{istio: ingress}}, servers: [{{{HTTPS}, tls: {{mode: MUTUAL, credentialName: c, caCertCredentialName: d}}}}]"), secret("tls.crt tls.key"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: edge}\ndata: {ca.crt: x}\n",
        ],
        [vs(f"hosts: [shop.example.com], gateways: [web], {CLAIM}"), TOKENS],
        [gw("selector: {istio: ingress}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: [q.r]}]")],
        [obj("networking.istio.io/v1", "Sidecar", "workloadSelector: {labels: {app: reviews}}"), obj("networking.istio.io/v1", "Sidecar", "egress: [{hosts: [./*]}]", "all")],
        [obj("security.istio.io/v1", "PeerAuthentication", "selector: {matchLabels: {app: reviews}}, portLevelMtls: {9080: {mode: STRICT}}")],
        [obj("v1", "Service", "selector: {app: reviews}, ports: [{name: tcp-a, port: 80, targetPort: web}, {name: udp, port: 53, protocol: UDP}]")],
        [obj("v1", "Service", "ports: [{name: web, port: 80, appProtocol: http}]")],
        [se("hosts: [a.b], ports: [{number: 3306, name: tcp, protocol: TCP}], resolution: DNS")],
        [se("hosts: [a.b], ports: [{number: 443, name: tls, protocol: TLS}]")],
        [obj("v1", "Pod", f"{POD}env: [{{name: e, valueFrom: {{configMapKeyRef: {{name: c, key: k, optional: true}}}}}}]}}]")],
        [obj("v1", "Pod", "containers: [{name: a}]", "x", ", ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: d}]")],
        [IN_THE_MESH, envoy_filter("applyTo: CLUSTER, match: {cluster: {service: reviews.default.svc.cluster.local}}, patch: {operation: REMOVE}")],
        [IN_THE_MESH, envoy_filter("applyTo: CLUSTER, patch: {operation: ADD, value: {name: mine}}")],
        [envoy_filter("applyTo: LISTENER, match: {listener: {name: none}}, patch: {operation: REMOVE}")],
        [deployment("traffic.sidecar.istio.io/excludeOutboundPorts: '3306', proxy.istio.io/config: 'concurrency: 2'")],
        [obj("v1", "Pod", f"{POD}}}]", "x", ", labels: {sidecar.istio.io/inject: 'false'}")],
        [proxy_config("concurrency: 1"), proxy_config("selector: {matchLabels: {app: reviews}}", "z")],
        [tcp_entry("a.b", "10.1.2.3"), tcp_entry("b.b", "10.1.2.4", "z")],
        [
            IN_THE_MESH,
            proxy_config("environmentVariables: {ISTIO_META_TEAM: shop}"),
            envoy_filter("applyTo: CLUSTER, match: {proxy: {metadata: {TEAM: shop, CLUSTER_ID: Kubernetes}}}, patch: {operation: MERGE, value: {connect_timeout: 1s}}"),
        ],
        [IN_THE_MESH, obj("v1", "Service", "selector: {app: web}, ports: [{name: http, port: 80}]")],
        [
            MACHINE,
            IN_THE_MESH.replace("app: web", "app: web, security.istio.io/tlsMode: istio"),
            obj("v1", "Service", "selector: {app: web}, ports: [{name: http, port: 80}]"),
        ],
        [IN_THE_MESH, envoy_filter("applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {header_prefix: x}}")],
        [tcp_entry("a.b", "10.1.2.3", protocol="HTTP"), tcp_entry("b.b", "10.1.2.3", "z", protocol="HTTP")],
    ],
)  # fmt: skip
def test_no_finding(texts: list[str]) -> None:
    assert said(*texts) == []


ELSEWHERE = ("Job", "AuthorizationPolicy", "RequestAuthentication")
"""The checks of the last two are in tests/unit/security_policies/test_checks.py."""


SAME_CODE = {"WasmPlugin": "LTN0101"}
"""Codes that are tested for another kind with the same function."""


def test_every_check_is_tested_and_documented() -> None:
    marks = [mark for mark in getattr(test_finding, "pytestmark", []) if mark.name == "parametrize"]
    tested = {
        expected.split(" ")[0] + expected.split(" ")[1]
        for _, expected in marks[0].args[1]
        if expected[:3] in ("IST", "LTN")
    }
    for each in CHECKS:
        assert len(each.text.splitlines()) >= 3, each
        assert each.level in (Level.WARNING, Level.INFO)
        if each.kind.KIND not in ELSEWHERE:
            assert f"{each.code}{each.kind.KIND}" in tested or each.code in (
                "LTN0107",
                SAME_CODE.get(each.kind.KIND),
            ), each


def test_findings_change_with_what_they_refer_to() -> None:
    subject = vs("hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]")
    made = graph(BASE, dr(SUBSETS), subject)
    watch = made.watch(findings, ref_of(VirtualService, "default", "a"))
    assert watch.value() == ()
    reviews = made.pull(lambda q: get(q, Service, "default", "reviews"))
    assert reviews is not None
    made.commit(transaction(delete=[reviews.ref]))
    assert [each.code for changed in made.drain() for each in changed.value()] == ["IST0101"]
    made.commit(transaction(put=[reviews]))
    assert [changed.value() for changed in made.drain()] == [()]


def test_an_unrelated_object_runs_no_check() -> None:
    made = graph(BASE, vs(f"hosts: [reviews], {TO}"))
    made.watch(all_findings)
    other = codec.decode(
        documents(obj("v1", "Service", "ports: [{name: http, port: 1}]", "other", ", namespace: far"))[0].raw
    )
    with made.tracing() as ran:
        made.commit(transaction(put=[other]))
        list(made.drain())
    assert [each for each in ran if each.startswith("findings(")] == [f"findings({ref_of(Service, 'far', 'other')})"]


def test_findings_can_be_silenced() -> None:
    for pattern in ("IST0101", "IST*", "LTN0001, IST0101"):
        text = vs(
            f"hosts: [reviews], gateways: [nope], {TO}", "a", f", annotations: {{{SUPPRESS_ANNOTATION}: '{pattern}'}}"
        )
        assert said(text) == []


def test_nothing_about_what_is_not_there() -> None:
    assert graph().pull(findings, ref_of(Service, "a", "b")) == ()
