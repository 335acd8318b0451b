"""Rules of the Istio kinds beside VirtualService, each with the smallest input that breaks it."""

# ruff: noqa: E501 -- one case a line

from __future__ import annotations

import pytest

from lateen.lib.findings import Level
from tests.unit.api.rule_cases import expect, findings

NETWORKING = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"

SERVER = "port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']"
HTTPS = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b]"
PORT = "ports: [{number: 80, name: http, protocol: HTTP}]"
HOST = "hosts: [a.b]"


def policy(text: str) -> str:
    return f"{{host: a, trafficPolicy: {{{text}}}}}"


def server(text: str) -> str:
    return f"{{servers: [{{{text}}}]}}"


GOOD = [
    ("ServiceEntry", "{hosts: [a.b, c.b], ports: [{number: 1, name: x, protocol: TCP}], resolution: DNS}"),
    ("ServiceEntry", "{hosts: [a.b, c.b], addresses: [1.2.3.4], ports: [{number: 1, name: x, protocol: TLS}], resolution: DNS}"),
    ("DestinationRule", "{host: a}"),
    ("DestinationRule", "{host: '*.a.b', exportTo: [.], subsets: [{name: v1, labels: {version: v1}}, {name: v2.x}]}"),
    ("DestinationRule", policy("loadBalancer: {simple: RANDOM}")),
    ("DestinationRule", policy("loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 0s}, maglev: {tableSize: 65537}}}")),
    ("DestinationRule", policy("loadBalancer: {localityLbSetting: {distribute: [{from: 'a/*', to: {a/b: 80, c: 20}}]}}")),
    ("DestinationRule", policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [x]}}")),
    ("DestinationRule", policy("loadBalancer: {warmup: {duration: 10s, aggression: 1}}")),
    ("DestinationRule", policy("connectionPool: {tcp: {maxConnections: 0, connectTimeout: 1ms, idleTimeout: 0s}}")),
    ("DestinationRule", policy("outlierDetection: {consecutiveGatewayErrors: 3, maxEjectionPercent: 100}")),
    ("DestinationRule", policy("tls: {mode: ISTIO_MUTUAL}")),
    ("DestinationRule", policy("tls: {mode: MUTUAL, clientCertificate: /a, privateKey: /b, caCertificates: /c}")),
    ("DestinationRule", policy("tls: {mode: MUTUAL, credentialName: a}")),
    ("DestinationRule", policy("tls: {mode: SIMPLE, insecureSkipVerify: true}")),
    ("DestinationRule", policy("portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]")),
    ("DestinationRule", policy("tunnel: {targetHost: a, targetPort: 80}")),
    ("Gateway", server(SERVER)),
    ("Gateway", server(f"{SERVER}, tls: {{httpsRedirect: true}}, bind: 127.0.0.1")),
    ("Gateway", server("port: {number: 1, name: a, protocol: tcp}, hosts: [./a, '*/b', ns/*.c, '*']")),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a}}")),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: PASSTHROUGH}}")),
    ("Gateway", server(f"{HTTPS}, tls: {{}}")),
    ("Gateway", server("port: {number: 0, name: a, protocol: HTTP}, hosts: ['*-x.a.b'], bind: 'unix://@a'")),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: ISTIO_MUTUAL, subjectAltNames: [a], minProtocolVersion: TLSV1_3}}")),
    ("Gateway", server(f"{SERVER}, tls: {{mode: PASSTHROUGH, httpsRedirect: true}}")),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: MUTUAL, serverCertificate: /a, privateKey: /b, caCertificates: /c}}")),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, tlsCertificates: [{{serverCertificate: /a, privateKey: /b}}]}}")),
    ("ServiceEntry", f"{{{HOST}, {PORT}}}"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{address: 1.2.3.4, ports: {{http: 8080}}}}]}}"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{address: 'unix:///a'}}]}}"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}}}"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, addresses: [10.0.0.0/8], resolution: NONE}}"),
    ("ServiceEntry", f"{{hosts: ['*.a.b'], {PORT}, resolution: DNS, endpoints: [{{address: c.d}}]}}"),
    ("ServiceEntry", f"{{hosts: ['*.a.b'], {PORT}, resolution: DYNAMIC_DNS}}"),
    ("WorkloadEntry", "{address: 1.2.3.4, ports: {http: 80}}"),
    ("WorkloadEntry", "{network: a}"),
    ("WorkloadEntry", "{address: 'unix://@a'}"),
    ("Sidecar", "{egress: [{hosts: [./*, istio-system/*, '~/a']}]}"),
    ("Sidecar", "{egress: [{hosts: ['~/*']}]}"),
    ("Sidecar", "{egress: [{hosts: ['*/*'], bind: 127.0.0.1}]}"),
    ("Sidecar", "{egress: [{hosts: ['*/*'], captureMode: NONE}]}"),
    ("Sidecar", "{egress: [{port: {protocol: HTTP}, bind: 'unix://@a', captureMode: DEFAULT, hosts: ['*/*', '~a/b']}]}"),
    ("Sidecar", "{egress: [{port: {number: 15002, protocol: HTTP_PROXY}, hosts: ['*/*']}]}"),
    ("Sidecar", "{ingress: [{port: {number: 1}, defaultEndpoint: ':80'}, {port: {number: 2}, defaultEndpoint: 'unix://@a'}]}"),
    ("Sidecar", "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b, port: {number: 1}}}}"),
    ("Sidecar", "{egress: [{port: {number: 80}, hosts: ['*/*'], bind: 127.0.0.1}, {hosts: ['*/a.b']}]}"),
    ("Sidecar", "{ingress: [{port: {number: 80, protocol: HTTP}, defaultEndpoint: '127.0.0.1:8080'}]}"),
    ("Sidecar", "{ingress: [{port: {number: 80}, tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b}}]}"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_good_networking(kind: str, spec: str) -> None:
    assert [each for each in findings(NETWORKING, kind, spec) if each.level is Level.ERROR] == []


BAD = [
    ("DestinationRule", "{host: ''}", "host: is not a host"),
    ("DestinationRule", "{host: a, subsets: [{name: a}, {name: a}]}", "subsets[1].name: subset a is there twice"),
    ("DestinationRule", "{host: a, subsets: [{name: 'a|b'}]}", "subsets[0].name: name of a subset"),
    ("DestinationRule", "{host: a, subsets: [{name: a, labels: {v: '*'}}]}", "subsets[0].labels.v: no wildcards"),
    ("DestinationRule", policy("portLevelSettings: [{port: {number: 1}}]"), "trafficPolicy.portLevelSettings[0]: of the port is empty"),
    (
        "DestinationRule",
        policy("tunnel: {targetHost: a, targetPort: 80}, proxyProtocol: {}"),
        "trafficPolicy.proxyProtocol: exclude each other",
    ),
    ("DestinationRule", policy("tunnel: {targetHost: a b, targetPort: 80}"), "trafficPolicy.tunnel.targetHost: no host"),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100, c: 0}}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.c: 1 to 100",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b/*: 50, b/c: 50}}]}}"),
        'trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to["b/c"]: overlap',
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {distribute: [{from: a/b/c, to: {b: 100}}, {from: a/b, to: {b: 100}}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.distribute[1].from: overlap",
    ),
    (
        "DestinationRule",
        policy(
            "outlierDetection: {}, loadBalancer: {localityLbSetting:"
            " {failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}}"
        ),
        "trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]: beside failover",
    ),
    (
        "DestinationRule",
        policy("tls: {mode: SIMPLE, credentialName: a, caCrl: /a}"),
        "trafficPolicy.tls.caCrl: exclude each other",
    ),
    (
        "DestinationRule",
        policy("tls: {mode: SIMPLE, credentialName: a, insecureSkipVerify: true}"),
        "trafficPolicy.tls.insecureSkipVerify: excludes what is to be verified",
    ),
    ("DestinationRule", policy(""), "trafficPolicy: the policy is empty"),
    ("DestinationRule", policy("portLevelSettings: [{tls: {mode: DISABLE}}]"), "trafficPolicy.portLevelSettings[0]: which port"),
    (
        "DestinationRule",
        policy("portLevelSettings: [{port: {number: 1}, tls: {}}, {port: {number: 1}, tls: {}}]"),
        "trafficPolicy.portLevelSettings[1].port.number: port 1 is there twice",
    ),
    ("DestinationRule", policy("connectionPool: {}"), "trafficPolicy.connectionPool: the limits are empty"),
    ("DestinationRule", policy("connectionPool: {http: {maxRetries: -1}}"), "trafficPolicy.connectionPool.http.maxRetries: negative"),
    ("DestinationRule", policy("connectionPool: {tcp: {maxConnections: -1}}"), "trafficPolicy.connectionPool.tcp.maxConnections: negative"),
    ("DestinationRule", policy("connectionPool: {tcp: {idleTimeout: -1s}}"), "trafficPolicy.connectionPool.tcp.idleTimeout: negative"),
    (
        "DestinationRule",
        policy("connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}"),
        "trafficPolicy.connectionPool.http.useClientProtocol: exclude each other",
    ),
    ("DestinationRule", policy("loadBalancer: {consistentHash: {}}"), "trafficPolicy.loadBalancer.consistentHash: what is hashed"),
    (
        "DestinationRule",
        policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}}"),
        "trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: not a prime",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 99999999}}}"),
        "trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize: too large",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {consistentHash: {httpCookie: {name: ''}}}"),
        "trafficPolicy.loadBalancer.consistentHash.httpCookie.name: no name",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {warmup: {duration: 1s, aggression: 0.5}}"),
        "trafficPolicy.loadBalancer.warmup.aggression: less than 1",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 90}}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to: the shares make 90",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {distribute: [{from: '*/a', to: {b: 100}}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.distribute[0]: is no locality",
    ),
    (
        "DestinationRule",
        policy("outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.failover[0].to: take over for itself",
    ),
    (
        "DestinationRule",
        policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], distribute: [{from: a, to: {b: 100}}]}}"),
        "trafficPolicy.loadBalancer.localityLbSetting.failover: exclude each other",
    ),
    ("DestinationRule", policy("outlierDetection: {maxEjectionPercent: 101}"), "trafficPolicy.outlierDetection.maxEjectionPercent: percentage"),
    (
        "DestinationRule",
        policy("outlierDetection: {consecutiveLocalOriginFailures: 1}"),
        "trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: only counts with",
    ),
    ("DestinationRule", policy("tls: {mode: MUTUAL, privateKey: /a, caCertificates: /b}"), "trafficPolicy.tls: needs clientCertificate"),
    ("DestinationRule", policy("tls: {mode: ISTIO_MUTUAL, privateKey: /a}"), "trafficPolicy.tls.privateKey: uses no privateKey"),
    ("DestinationRule", policy("tls: {mode: SIMPLE, credentialName: a, caCertificates: /a}"), "trafficPolicy.tls.caCertificates: exclude"),
    (
        "DestinationRule",
        policy("tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /a}"),
        "trafficPolicy.tls.insecureSkipVerify: excludes what is to be verified",
    ),
    ("DestinationRule", policy("tunnel: {targetHost: a, targetPort: 80, protocol: PUT}"), "trafficPolicy.tunnel.protocol: no way to tunnel"),
    ("DestinationRule", policy("tunnel: {targetHost: a, targetPort: 0}"), "trafficPolicy.tunnel.targetPort: not a port"),
    ("Gateway", "{}", ": has no servers"),
    ("Gateway", server("port: {number: 80, name: a, protocol: HTTP}, hosts: []"), "servers[0].hosts: has no hosts"),
    ("Gateway", server("port: {number: 0, name: a, protocol: HTTP}, hosts: [a]"), "servers[0].port.number: not a port"),
    ("Gateway", server("port: {number: 80, name: a, protocol: HTP}, hosts: [a]"), "servers[0].port.protocol: not a protocol"),
    ("Gateway", server("port: {number: 80, name: '', protocol: HTTP}, hosts: [a]"), "servers[0].port.name: no name"),
    ("Gateway", server("port: {number: 80, name: a, protocol: HTTP}, hosts: [A_/b]"), "servers[0].hosts[0]: is no namespace"),
    ("Gateway", server("port: {number: 80, name: a, protocol: HTTP}, hosts: ['a.*']"), "servers[0].hosts[0]: is not a host"),
    ("Gateway", f"{{servers: [{{{SERVER}}}, {{{SERVER}}}]}}", "servers[1].port.name: http is there twice"),
    ("Gateway", server(f"{SERVER}, bind: a"), "servers[0].bind: no address"),
    ("Gateway", server(HTTPS), "servers[0]: needs tls"),
    ("Gateway", server(f"{SERVER}, tls: {{mode: SIMPLE, credentialName: a}}"), "servers[0].tls: has no TLS"),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, serverCertificate: /a}}"), "servers[0].tls: privateKey is missing"),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: MUTUAL, serverCertificate: /a, privateKey: /b}}"),
        "servers[0].tls: needs the roots",
    ),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: ISTIO_MUTUAL, credentialName: a}}"), "servers[0].tls.credentialName: uses no"),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: ISTIO_MUTUAL, caCertificates: /a}}"), "servers[0].tls.caCertificates: uses no"),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, serverCertificate: /a, privateKey: /b}}"),
        "servers[0].tls.serverCertificate: exclude each other",
    ),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, caCrl: /a}}"),
        "servers[0].tls.caCrl: checks no certificates",
    ),
    ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_1}}"), "servers[0].tls.maxProtocolVersion: TLSV1_2, the default"),
    ("Gateway", server("port: {number: 80, name: a, protocol: HTTP, targetPort: 8080}, hosts: [a]"), "servers[0].port.targetPort: no target port"),
    ("Gateway", server(f"{SERVER}, bind: 'unix:///a'"), "servers[0].port.number: a socket has no port"),
    ("Gateway", server("port: {number: 0, name: a, protocol: HTTP}, hosts: [a], bind: 'unix://a'"), "servers[0].bind: no socket"),
    (
        "Gateway",
        server("port: {number: 443, name: a, protocol: TLS}, hosts: ['*-x.a.b'], tls: {mode: PASSTHROUGH}"),
        "servers[0].hosts[0]: cannot be the server name",
    ),
    ("Gateway", server("port: {number: 1, name: a, protocol: TCP}, hosts: [a], tls: {httpsRedirect: true}"), "servers[0].tls: has no TLS"),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: MUTUAL, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}"),
        "servers[0].tls.maxProtocolVersion: lower than",
    ),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: MUTUAL, credentialName: a, credentialNames: [b]}}"),
        "servers[0].tls.credentialNames: exclude each other",
    ),
    (
        "Gateway",
        server(f"{HTTPS}, tls: {{mode: MUTUAL, credentialName: a, verifyCertificateHash: [x]}}"),
        "servers[0].tls.verifyCertificateHash[0]: not the hash",
    ),
    (
        "ServiceEntry",
        "{hosts: [a.b, c.b], addresses: [1.2.3.4], ports: [{number: 1, name: x, protocol: TCP}], resolution: DNS}",
        "hosts: port x of these hosts look alike",
    ),
    ("ServiceEntry", f"{{hosts: ['*'], {PORT}}}", "hosts[0]: cannot be the host"),
    ("ServiceEntry", f"{{hosts: [a, A], {PORT}}}", "hosts[1]: host a is there twice"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, addresses: [a]}}", "addresses[0]: no address"),
    ("ServiceEntry", f"{{{HOST}, ports: [{{number: 1, name: a}}, {{number: 1, name: b}}]}}", "ports[1].number: port 1"),
    ("ServiceEntry", f"{{{HOST}, ports: [{{number: 1, name: a}}, {{number: 2, name: a}}]}}", "ports[1].name: a is there"),
    ("ServiceEntry", f"{{{HOST}, ports: [{{number: 1, name: a, protocol: x}}]}}", "ports[0].protocol: not a protocol"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: STATIC}}", ": needs endpoints"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, endpoints: [{{address: 1.2.3.4}}]}}", "endpoints: NONE has no endpoints"),
    ("ServiceEntry", f"{{hosts: ['*.a'], {PORT}, resolution: DNS}}", "hosts[0]: cannot be looked up"),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: DNS, addresses: [10.0.0.0/8]}}", "addresses[0]: no networks"),
    (
        "ServiceEntry",
        f"{{{HOST}, {PORT}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: a.b}}, {{address: c.d}}]}}",
        "endpoints: one endpoint at most",
    ),
    (
        "ServiceEntry",
        f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{address: a.b}}]}}",
        "endpoints[0].address: STATIC looks no names up",
    ),
    (
        "ServiceEntry",
        f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{address: 1.2.3.4, ports: {{x: 1}}}}]}}",
        "endpoints[0].ports.x: no port named x",
    ),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: DNS, endpoints: [{{address: 'unix:///a'}}]}}", "endpoints[0].address: needs resolution STATIC"),
    (
        "ServiceEntry",
        f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{address: 1.2.3.4}}], workloadSelector: {{labels: {{a: b}}}}}}",
        "endpoints: exclude each other",
    ),
    ("ServiceEntry", f"{{{HOST}, {PORT}, resolution: STATIC, endpoints: [{{}}]}}", 'endpoints[0]: "address" is missing'),
    ("WorkloadEntry", "{}", ': "address" is missing'),
    ("WorkloadEntry", "{address: a b}", "address: no address"),
    ("WorkloadEntry", "{address: 'unix://a'}", "address: its whole path"),
    ("WorkloadEntry", "{address: 'unix:///a/'}", "address: a directory"),
    ("WorkloadEntry", "{address: 'unix:///a', ports: {a: 1}}", "ports: has no ports"),
    ("WorkloadEntry", "{address: 1.2.3.4, ports: {a_b: 1}}", "ports.a_b: name of a port"),
    ("WorkloadEntry", "{address: 1.2.3.4, ports: {a: 0}}", "ports.a: expected 1 to 65535"),
    ("WorkloadGroup", "{template: {}, probe: {httpGet: {port: 1, scheme: x}}}", "probe.httpGet.scheme: not a scheme"),
    ("Sidecar", "{}", ": says nothing"),
    ("Sidecar", "{egress: [{hosts: []}]}", "egress[0].hosts: has no hosts"),
    ("Sidecar", "{egress: [{hosts: [a]}]}", "egress[0].hosts[0]: not namespace/host"),
    ("Sidecar", "{egress: [{hosts: [./a b]}]}", "egress[0].hosts[0]: is not a host"),
    ("Sidecar", "{egress: [{hosts: ['*/*']}, {port: {number: 1}, hosts: ['*/*']}]}", "egress[0]: must be the last"),
    ("Sidecar", "{egress: [{hosts: ['*/*'], bind: 'unix:///a'}]}", "egress[0].bind: needs a port with a protocol"),
    ("Sidecar", "{egress: [{port: {protocol: HTTP}, hosts: ['*/*']}]}", "egress[0].port: no number"),
    ("Sidecar", "{egress: [{port: {number: 1}, bind: 'unix:///a', hosts: ['*/*']}]}", "egress[0].port.number: has no number"),
    ("Sidecar", "{egress: [{port: {}, bind: 'unix://a', hosts: ['*/*']}]}", "egress[0].bind: no whole path"),
    ("Sidecar", "{egress: [{port: {}, bind: 'unix:///a/', hosts: ['*/*']}]}", "egress[0].bind: no whole path"),
    ("Sidecar", "{egress: [{port: {}, bind: 'unix:///a', captureMode: IPTABLES, hosts: ['*/*']}]}", "egress[0].captureMode: not captured"),
    (
        "Sidecar",
        "{egress: [{port: {}, bind: 'unix:///a', hosts: [./a]}, {port: {}, bind: 'unix:///a', hosts: [./b]}]}",
        "egress[1]: unix:///a has a listener already",
    ),
    (
        "Sidecar",
        "{egress: [{port: {number: 1}, bind: 127.0.0.1, hosts: [./a]}, {port: {number: 1}, hosts: [./b]}]}",
        "egress[1]: port 1 has a listener already",
    ),
    ("Sidecar", "{egress: [{hosts: ['*/*']}, {hosts: ['./*']}]}", "egress[1]: a second listener"),
    ("Sidecar", "{egress: [{port: {number: 1, protocol: x}, hosts: ['*/*']}]}", "egress[0].port.protocol: not a protocol"),
    ("Sidecar", "{egress: [{port: {number: 1, name: A}, hosts: ['*/*']}]}", "egress[0].port.name: no name of a port"),
    ("Sidecar", "{egress: [{port: {number: 1, targetPort: 2}, hosts: ['*/*']}]}", "egress[0].port.targetPort: no target"),
    ("Sidecar", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.b, port: {number: 1}}}}", "outboundTrafficPolicy.egressProxy: only mode ALLOW_ANY"),
    ("Sidecar", "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b}}}", "outboundTrafficPolicy.egressProxy: the port is missing"),
    ("Sidecar", "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a, port: {number: 1}}}}", "outboundTrafficPolicy.egressProxy.host: no full host name"),
    ("Sidecar", "{inboundConnectionPool: {}}", "inboundConnectionPool: the limits are empty"),
    ("Sidecar", "{ingress: [{port: {number: 1}, bind: 'unix:///a', captureMode: NONE}]}", "ingress[0].bind: no address"),
    ("Sidecar", "{ingress: [{port: {number: 1}, bind: 127.0.0.1, captureMode: NONE}]}", "ingress[0].defaultEndpoint: would call itself"),
    ("Sidecar", "{ingress: [{port: {number: 1}, bind: 127.0.0.1, captureMode: NONE, defaultEndpoint: '127.0.0.1:1'}]}", "ingress[0].defaultEndpoint: would call itself"),
    ("Sidecar", "{ingress: [{port: {number: 1}, defaultEndpoint: '127.0.0.1:0'}]}", "ingress[0].defaultEndpoint: not a port"),
    ("Sidecar", "{ingress: [{port: {number: 1}, defaultEndpoint: 'unix://a'}]}", "ingress[0].defaultEndpoint: no whole path"),
    ("Sidecar", "{ingress: [{port: {number: 1, targetPort: 2}}]}", "ingress[0].port.targetPort: no target"),
    ("Sidecar", "{ingress: [{port: {number: 1}, tls: {mode: SIMPLE, credentialName: a}}]}", "ingress[0].tls.credentialName: no certificates of Secrets"),
    ("Sidecar", "{ingress: [{port: {number: 1}, tls: {mode: SIMPLE, serverCertificate: /a}}]}", "ingress[0].tls: privateKey is missing"),
    (
        "Sidecar",
        "{ingress: [{port: {number: 1}, tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b, httpsRedirect: true}}]}",
        "ingress[0].tls.httpsRedirect: does not redirect",
    ),
    ("Sidecar", "{egress: [{port: {number: 1}, hosts: ['*/*'], bind: a}]}", "egress[0].bind: no address"),
    ("Sidecar", "{ingress: [{port: {}}]}", "ingress[0].port: no number"),
    ("Sidecar", "{ingress: [{port: {number: 1}}, {port: {number: 1}}]}", "ingress[1]: has a listener already"),
    ("Sidecar", "{ingress: [{port: {number: 1}, defaultEndpoint: '1.2.3.4:80'}]}", "ingress[0].defaultEndpoint: not possible"),
    ("Sidecar", "{ingress: [{port: {number: 1}, tls: {mode: PASSTHROUGH}}]}", "ingress[0].tls.mode: cannot do"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "expected"), BAD)
def test_networking(kind: str, spec: str, expected: str) -> None:
    expect(findings(NETWORKING, kind, spec), expected)


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("DestinationRule", "{host: a, workloadSelector: {}}", "workloadSelector: for every workload"),
        (
            "DestinationRule",
            policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}"),
            "trafficPolicy.loadBalancer.localityLbSetting: without outlierDetection",
        ),
        (
            "DestinationRule",
            policy("portLevelSettings: [{port: {number: 1}, loadBalancer: {localityLbSetting: {failoverPriority: [x]}}}]"),
            "trafficPolicy.portLevelSettings[0].loadBalancer.localityLbSetting: without outlierDetection",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}], failoverPriority: [x]}}"),
            "trafficPolicy.loadBalancer.localityLbSetting.failoverPriority: beside distribute",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {consistentHash: {useSourceIp: true}, zoneAwareLbSetting: {enabled: true}}"),
            "trafficPolicy.loadBalancer.zoneAwareLbSetting: with consistentHash it has no effect",
        ),
        (
            "DestinationRule",
            policy(
                "loadBalancer: {simple: PASSTHROUGH, localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}"
            ),
            "trafficPolicy.loadBalancer.localityLbSetting: with PASSTHROUGH it has no effect",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {simple: RANDOM, warmup: {duration: 1s}}"),
            "trafficPolicy.loadBalancer.warmup: no effect",
        ),
        (
            "DestinationRule",
            policy("retryBudget: {percent: 1}, connectionPool: {http: {maxRetries: 1}}"),
            "trafficPolicy.connectionPool.http.maxRetries: beside retryBudget",
        ),
        ("DestinationRule", policy("tls: {mode: SIMPLE}"), "trafficPolicy.tls: system's roots"),
        ("DestinationRule", policy("loadBalancer: {simple: LEAST_CONN}"), "trafficPolicy.loadBalancer.simple: deprecated"),
        ("DestinationRule", policy("loadBalancer: {warmupDurationSecs: 1s}"), "trafficPolicy.loadBalancer.warmupDurationSecs: deprecated"),
        ("DestinationRule", policy("outlierDetection: {consecutiveErrors: 1}"), "trafficPolicy.outlierDetection.consecutiveErrors: deprecated"),
        (
            "DestinationRule",
            policy("outlierDetection: {consecutiveGatewayErrors: 5}"),
            "trafficPolicy.outlierDetection.consecutiveGatewayErrors: reached first",
        ),
        ("Sidecar", "{workloadSelector: {}, ingress: [{port: {number: 1}}]}", "workloadSelector: for every workload"),
        ("Sidecar", "{egress: [{hosts: [./a, ./a]}]}", "egress[0].hosts[1]: ./a has it already"),
        ("Sidecar", "{egress: [{hosts: [./a, ./*]}]}", "egress[0].hosts[0]: ./* has it already"),
        ("Sidecar", "{egress: [{hosts: ['*/*', ./a]}]}", "egress[0].hosts[1]: */* has it already"),
        ("Sidecar", "{outboundTrafficPolicy: {}}", "outboundTrafficPolicy: REGISTRY_ONLY"),
        (
            "Sidecar",
            "{ingress: [{port: {number: 1, protocol: TCP}, connectionPool: {http: {http2MaxRequests: 1}}}]}",
            "ingress[0].connectionPool.http: is not HTTP",
        ),
        ("ServiceEntry", f"{{{HOST}}}", ": nothing can be reached"),
        ("ServiceEntry", f"{{{HOST}, {PORT}, addresses: [10.1.2.3/8]}}", "addresses[0]: stands for all of 10.0.0.0/8"),
        ("Gateway", server(f"{SERVER}, defaultEndpoint: '127.0.0.1:1'"), "servers[0].defaultEndpoint: it is refused"),
        ("Gateway", server(f"{HTTPS}, tls: {{mode: PASSTHROUGH, caCrl: /a}}"), "servers[0].tls.caCrl: mode PASSTHROUGH uses no"),
        ("Gateway", server(f"{HTTPS}, tls: {{credentialName: a}}"), "servers[0].tls.credentialName: without mode (which means"),
        ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, subjectAltNames: [a]}}"), "servers[0].tls.subjectAltNames: uses no"),
        ("Gateway", server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, httpsRedirect: true}}"), "servers[0].tls.httpsRedirect: only plain HTTP"),
        ("Gateway", server(f"{HTTPS}, tls: {{mode: MUTUAL, credentialName: a, caCrl: /a}}"), "servers[0].tls.caCrl: has no effect"),
        (
            "Gateway",
            server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_1}}"),
            "servers[0].tls.minProtocolVersion: no cipher suite",
        ),
        (
            "Gateway",
            server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, cipherSuites: [TLS_AES_128_GCM_SHA256]}}"),
            "servers[0].tls.cipherSuites[0]: not a cipher suite",
        ),
        (
            "Gateway",
            server(f"{HTTPS}, tls: {{mode: SIMPLE, credentialName: a, cipherSuites: [AES128-SHA, AES128-SHA]}}"),
            "servers[0].tls.cipherSuites[1]: there twice",
        ),
        (
            "ServiceEntry",
            f"{{{HOST}, {PORT}, resolution: STATIC, workloadSelector: {{}}}}",
            "workloadSelector: every workload",
        ),
    ],
)  # fmt: skip
def test_networking_warnings(kind: str, spec: str, expected: str) -> None:
    expect(findings(NETWORKING, kind, spec), expected, Level.WARNING)


def test_all_findings_of_a_gateway_come_at_once() -> None:
    """Whatever is wrong in one server hides nothing in another."""
    bad = "{port: {number: 0, name: a, protocol: HTP, targetPort: 1}, hosts: ['a b'], bind: x}"
    worse = "{port: {number: 1, name: a, protocol: HTTPS}, hosts: [], tls: {mode: MUTUAL, cipherSuites: [x]}}"
    paths = [
        each.path.removeprefix("spec.") for each in findings(NETWORKING, "Gateway", f"{{servers: [{bad}, {worse}]}}")
    ]
    assert paths == [
        "servers[0].bind",
        "servers[0].hosts[0]",
        "servers[0].port.number",
        "servers[0].port.protocol",
        "servers[0].port.targetPort",
        "servers[1].hosts",
        "servers[1].port.name",
        "servers[1].tls",
        "servers[1].tls",
        "servers[1].tls",
        "servers[1].tls.cipherSuites[0]",
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}", "portLevelMtls: need a selector"),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {x: {mode: STRICT}}}",
            "portLevelMtls.x: not a port",
        ),
        ("PeerAuthentication", "{selector: {matchLabels: {a: '*'}}}", "selector.matchLabels.a: no wildcards"),
        ("RequestAuthentication", "{jwtRules: [{}]}", 'jwtRules[0]: "issuer" is missing'),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwks: x}]}", "jwtRules[0].jwks: not a JSON Web Key Set"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: 'ftp://a'}]}", "jwtRules[0].jwksUri: not a URL"),
        (
            "RequestAuthentication",
            "{jwtRules: [{issuer: a, jwksUri: 'https://a', jwks: '{\"keys\": []}'}]}",
            "jwtRules[0].jwksUri: exclude each other",
        ),
        (
            "RequestAuthentication",
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}]}",
            "targetRefs: exclude each other",
        ),
        ("RequestAuthentication", "{targetRef: {kind: Service, name: a, namespace: b}}", "targetRef.namespace: another namespace"),
        ("AuthorizationPolicy", "{action: CUSTOM}", ": needs a provider"),
        ("AuthorizationPolicy", "{provider: {name: a}}", "provider: only action CUSTOM"),
        ("AuthorizationPolicy", "{rules: [{from: [{}]}]}", "rules[0].from[0]: the source is empty"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {}}]}]}", "rules[0].to[0]: the operation is empty"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: source.ip}]}]}", "rules[0].when[0]: must be is missing"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: x, values: [a]}]}]}", "rules[0].when[0].key: not an attribute"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: source.ip, values: [a]}]}]}", "rules[0].when[0].values[0]: no address"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: destination.port, values: [a]}]}]}", "rules[0].when[0].values[0]: not a port"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {ports: [x]}}]}]}", "rules[0].to[0].operation.ports[0]: not a port"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{**}/a']}}]}]}", "rules[0].to[0].operation.paths[0]: last segment"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{a}']}}]}]}", "rules[0].to[0].operation.paths[0]: whole segment"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{*}/*']}}]}]}", "rules[0].to[0].operation.paths[0]: no plain"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {ipBlocks: [a]}}]}]}", "rules[0].from[0].source.ipBlocks[0]: no address"),
        (
            "AuthorizationPolicy",
            "{rules: [{from: [{source: {serviceAccounts: [a/b], namespaces: [a]}}]}]}",
            "rules[0].from[0].source: serviceAccounts excludes",
        ),
        (
            "AuthorizationPolicy",
            "{rules: [{from: [{source: {serviceAccounts: ['a/*']}}]}]}",
            "rules[0].from[0].source.serviceAccounts[0]: no service account",
        ),
    ],
)  # fmt: skip
def test_security(kind: str, spec: str, expected: str) -> None:
    expect(findings(SECURITY, kind, spec), expected)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("PeerAuthentication", "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: STRICT}}}"),
        (
            "RequestAuthentication",
            "{jwtRules: [{issuer: a, jwksUri: 'https://a/b'}, {fromHeaders: [{name: x}], issuer: b}]}",
        ),
        ("AuthorizationPolicy", "{}"),
        ("AuthorizationPolicy", "{action: DENY, rules: [{}]}"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{*}/a/{**}', '/x*']}}]}]}"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: 'request.auth.claims[a][b]', notValues: [c]}]}]}"),
    ],
)
def test_good_security(kind: str, spec: str) -> None:
    assert findings(SECURITY, kind, spec) == []


@pytest.mark.parametrize(
    ("api_version", "kind", "spec", "expected"),
    [
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "{configPatches: [{patch: {operation: REMOVE}}]}", "configPatches[0]: applyTo"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "{configPatches: [{applyTo: CLUSTER}]}", "configPatches[0]: patch.operation"),
        (
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            "{configPatches: [{applyTo: CLUSTER, patch: {operation: MERGE}}]}",
            "configPatches[0].patch: needs a value",
        ),
        (
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            "{configPatches: [{applyTo: CLUSTER, match: {listener: {name: a}}, patch: {operation: REMOVE}}]}",
            "configPatches[0].match.listener: CLUSTER is not in a listener",
        ),
        (
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            "{configPatches: [{applyTo: CLUSTER, match: {proxy: {proxyVersion: '('}}, patch: {operation: REMOVE}}]}",
            "configPatches[0].match.proxy.proxyVersion: not RE2",
        ),
        ("telemetry.istio.io/v1", "Telemetry", "{tracing: [{providers: [{name: a}, {name: b}]}]}", "tracing[0].providers: one provider"),
        (
            "telemetry.istio.io/v1",
            "Telemetry",
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: x}}}]}]}",
            "metrics[0].overrides[0].tagOverrides.a.value: has no value",
        ),
        (
            "telemetry.istio.io/v1",
            "Telemetry",
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]}",
            "metrics[0].overrides[0].tagOverrides.a: value of the label is missing",
        ),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "{url: 'ftp://a'}", "url: not a URL"),
        ("extensions.istio.io/v1alpha1", "TrafficExtension", "{}", ": the code is missing"),
        ("extensions.istio.io/v1alpha1", "TrafficExtension", "{lua: {inlineCode: x}, wasm: {url: a}}", "lua: exclude each other"),
        (
            "extensions.istio.io/v1alpha1",
            "WasmPlugin",
            "{url: a, vmConfig: {env: [{name: a, value: b, valueFrom: HOST}]}}",
            "vmConfig.env[0].value: from the host",
        ),
    ],
)  # fmt: skip
def test_extensions(api_version: str, kind: str, spec: str, expected: str) -> None:
    expect(findings(api_version, kind, spec), expected)
