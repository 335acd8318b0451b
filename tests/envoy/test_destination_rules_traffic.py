"""Which DestinationRule counts, what several make together, and revocation lists of Secrets, on the real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.lab.client import ask, line, shares
from tests.lab.lab import Lab

OTHER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shared, namespace: other}
spec:
  hosts: [shared.test]
  addresses: [10.97.0.9]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints: [{address: 10.88.2.1}]
---
"""


def rule(name: str, spec: str, namespace: str = "default", created: str = "2026-01-01T00:00:00Z") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def marked(lab: Lab) -> str:
    """The mark that a rule leaves on connections."""
    return str(ask(lab, "10.97.0.9", authority="shared.test").seen["proxy"]).partition(" ")[0]


def test_the_clients_namespace_counts_before_the_services_and_that_before_the_root(lab: Lab) -> None:
    own = rule("own", "{host: shared.test, trafficPolicy: {proxyProtocol: {version: V1}}}")
    theirs = rule("theirs", "{host: shared.test, trafficPolicy: {proxyProtocol: {version: V2}}}", "other")
    root = rule(
        "root", "{host: '*.test', trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}", "istio-system"
    )
    lab.configure(OTHER, own, theirs, root)
    assert marked(lab) == "V1"
    lab.configure(OTHER, theirs, root)
    assert marked(lab) == "V2"
    hidden = theirs.replace("{host: shared.test,", "{exportTo: [.], host: shared.test,")
    lab.configure(OTHER, hidden, root)
    seen = ask(lab, "10.97.0.9", authority="shared.test").seen
    assert (seen["proxy"], seen["protocol"]) == ("", "h2"), "the first level that has a rule counts wholly"


def test_rules_of_one_host_are_one(lab: Lab) -> None:
    """Subsets of both by name, the older first; the policy of the older one that has any."""
    first = rule("first", "{host: reviews, subsets: [{name: a, labels: {version: v1}}]}")
    second = rule(
        "second",
        "{host: reviews.default.svc.cluster.local, trafficPolicy: {proxyProtocol: {}},"
        " subsets: [{name: a, labels: {version: v3}}, {name: b, labels: {version: v2}}]}",
        created="2026-01-02T00:00:00Z",
    )
    routes = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews, port: {number: 9080}, subset: a}}]}
  - {route: [{destination: {host: reviews, port: {number: 9080}, subset: b}}]}
---
"""
    nothing = rule("reviews", "{host: nobody.test}")  # in place of the rule that the world has
    lab.configure(nothing, first, second, routes)
    assert set(shares(lab, 10, path="/a")) == {"reviews-v1"}
    assert set(shares(lab, 10, path="/b")) == {"reviews-v2"}
    assert ask(lab, path="/b").seen["proxy"].startswith("V1 ")


def test_a_rule_for_some_workloads_counts_before_one_for_all(lab: Lab) -> None:
    everyone = rule("all", "{host: ratings, trafficPolicy: {proxyProtocol: {version: V2}}}")
    labels = "workloadSelector: {{matchLabels: {{app: {}}}}}"
    some = f"{{{{host: ratings, {labels}, trafficPolicy: {{{{proxyProtocol: {{{{version: V1}}}}}}}}}}}}"
    for app, mark in (("app", "V1"), ("other", "V2")):
        lab.configure(everyone, rule("some", some.format(app)))
        assert ask(lab, "ratings").seen["proxy"].startswith(mark)


def test_the_source_address_of_streams_is_hashed(lab: Lab) -> None:
    spread = rule("reviews", "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}")
    lab.configure(spread)
    assert len({line(lab)["server"] for _ in range(12)}) == 1
    lab.configure()
    assert len({line(lab)["server"] for _ in range(24)}) > 1


def test_a_revocation_list_of_a_secret(lab: Lab) -> None:
    """`ca.crl` beside the authorities of `credentialName`."""
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  addresses: [10.97.0.1]
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP, targetPort: 443}]
  endpoints: [{address: 10.88.3.1}]
---
"""
    named = rule(
        "outside",
        "{host: outside.test, workloadSelector: {matchLabels: {app: app}},"
        " trafficPolicy: {tls: {mode: SIMPLE, credentialName: roots}}}",
    )
    for revoked, status in (("revoked-client.pem", 200), ("revoked-server.pem", 503)):
        data = {"ca.crt": lab.certificates.read("root.pem"), "ca.crl": lab.certificates.read(revoked)}
        metadata = {"name": "roots", "namespace": "default"}
        secret = yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
        lab.configure()  # connections that are open have been checked already
        lab.configure(entry, named, "---\n" + secret + "---\n")
        assert ask(lab, "10.97.0.1", authority="outside.test").status == status, revoked
