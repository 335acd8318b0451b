"""Conflicts of each kind: who wins, which fields lose, and what nothing is left of; and what `describe` says of it."""

from __future__ import annotations

import pytest

from lateen.analysis.conflicts import losses
from lateen.analysis.describe import Section, pod_sections, service_sections
from lateen.api import kinds
from lateen.engine import Graph, Transaction
from lateen.lib.ids import Ref
from tests.unit.analysis.mesh import BASE, graph

_ISTIO = "networking.istio.io/v1"


def lost(made: Graph, kind: str, name: str, namespace: str = "default") -> tuple[list[str], bool]:
    found = kinds.by_name(kind)
    assert found is not None
    said = made.pull(losses, Ref(found.group, found.kind, namespace, name))
    return [str(each) for each in said.fields], said.shadowed


def obj(kind: str, name: str, spec: str, day: int = 1, namespace: str = "default", api: str = _ISTIO) -> str:
    created = f"2026-01-{day:02}T00:00:00Z"
    return f"""
apiVersion: {api}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
"""


TO = "http: [{route: [{destination: {host: reviews}}]}]"
VS = "VirtualService"
DR = "DestinationRule"
PA = "security.istio.io/v1"

CASES: dict[str, tuple[list[str], tuple[str, str], list[str], bool]] = {
    "the older VirtualService of a host counts": (
        [
            obj(VS, "old", f"{{hosts: [reviews], {TO}}}"),
            obj(VS, "new", f"{{hosts: [other.example, reviews], {TO}}}", 2),
        ],
        ("vs", "new"),
        ["spec.hosts[1]: VirtualService default/old counts, being older"],
        False,
    ),
    "a VirtualService that lost all its hosts": (
        [obj(VS, "old", f"{{hosts: [reviews], {TO}}}"), obj(VS, "new", f"{{hosts: [reviews], {TO}}}", 2)],
        ("vs", "new"),
        ["spec.hosts[0]: VirtualService default/old counts, being older"],
        True,
    ),
    "one of the same age": (
        [obj(VS, "a", f"{{hosts: [reviews], {TO}}}"), obj(VS, "b", f"{{hosts: [reviews], {TO}}}")],
        ("vs", "b"),
        ["spec.hosts[0]: VirtualService default/a counts, coming first by name, as both are of one age"],
        True,
    ),
    "one that is exported more narrowly": (
        [
            obj(VS, "old", f"{{hosts: [reviews], {TO}}}"),
            obj(VS, "own", f"{{hosts: [reviews], exportTo: [.], {TO}}}", 2),
        ],
        ("vs", "old"),
        [
            "spec.hosts[0]: VirtualService default/own counts, being exported more narrowly, for clients in default",
        ],
        False,
    ),
    "the winner loses nothing": (
        [obj(VS, "old", f"{{hosts: [reviews], {TO}}}"), obj(VS, "new", f"{{hosts: [reviews], {TO}}}", 2)],
        ("vs", "old"),
        [],
        False,
    ),
    "behind a rule that takes every request of a gateway": (
        [
            obj(VS, "old", f"{{hosts: [a.example.com], gateways: [web], {TO}}}"),
            obj(VS, "new", f"{{hosts: [a.example.com], gateways: [web], {TO}}}", 2),
        ],
        ("vs", "new"),
        [
            "spec.hosts[0]: VirtualService default/old counts, its rule 0 takes every request for a.example.com before",
        ],
        True,
    ),
    "a rule before that takes some requests hides nothing": (
        [
            obj(
                VS,
                "old",
                "{hosts: [a.example.com], gateways: [web], http: [{match: [{uri: {prefix: /a}}], "
                "route: [{destination: {host: reviews}}]}]}",
            ),
            obj(VS, "new", f"{{hosts: [a.example.com], gateways: [web], {TO}}}", 2),
        ],
        ("vs", "new"),
        [],
        False,
    ),
    "subsets are united, of the same name the older counts": (
        [
            obj(DR, "old", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}"),
            obj(
                DR,
                "new",
                "{host: reviews, trafficPolicy: {tls: {mode: DISABLE}}, subsets: "
                "[{name: v2, labels: {version: v2}}, {name: v1, labels: {version: v9}}]}",
                2,
            ),
        ],
        ("dr", "new"),
        ["spec.subsets[1]: DestinationRule default/old counts, being older"],
        False,
    ),
    "the traffic policy of the oldest that has one": (
        [
            obj(DR, "old", "{host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}"),
            obj(DR, "new", "{host: reviews.default.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}", 2),
        ],
        ("dr", "new"),
        ["spec.trafficPolicy: DestinationRule default/old counts, being older"],
        True,
    ),
    "a ServiceEntry for the host of a Service": (
        [
            obj(
                "ServiceEntry",
                "e",
                "{hosts: [reviews.default.svc.cluster.local], resolution: STATIC, "
                "ports: [{number: 9080, name: http, protocol: HTTP}], endpoints: [{address: 1.2.3.4}]}",
            ),
        ],
        ("se", "e"),
        ["spec.hosts[0]: Service default/reviews counts, a Service comes before a ServiceEntry"],
        True,
    ),
    "a port of a Gateway that is another kind of traffic": (
        [
            obj(
                "Gateway",
                "late",
                "{selector: {istio: ingress}, servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]}",
                9,
            ),
        ],
        ("gw", "web"),
        ["spec.servers[0]: Gateway default/late counts, it treats port 80 as another kind of traffic and is older"],
        True,
    ),
    "two Sidecars for all workloads": (
        [
            obj("Sidecar", "one", "{egress: [{hosts: ['./*']}]}"),
            obj("Sidecar", "two", "{egress: [{hosts: ['./*']}]}", 2),
        ],
        ("sidecar", "two"),
        ["spec: Sidecar default/one counts, being older with the same selector"],
        True,
    ),
    "two PeerAuthentications with one selector": (
        [
            obj("PeerAuthentication", "one", "{selector: {matchLabels: {app: reviews}}}", api=PA),
            obj("PeerAuthentication", "two", "{selector: {matchLabels: {app: reviews}}}", 2, api=PA),
            obj("PeerAuthentication", "all", "{mtls: {mode: STRICT}}", 3, api=PA),
        ],
        ("pa", "two"),
        ["spec: PeerAuthentication default/one counts, being older with the same selector"],
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_conflict(case: str) -> None:
    objects, (kind, name), expected, shadowed = CASES[case]
    assert lost(graph(BASE, *objects), kind, name) == (expected, shadowed)


def test_a_change_asks_only_for_the_losses_of_rivals() -> None:
    made = graph(BASE, *(obj(VS, f"v{n}", f"{{hosts: [h{n}.example], {TO}}}") for n in range(50)))
    refs = [Ref("networking.istio.io", VS, "default", f"v{n}") for n in range(50)]
    for ref in refs:
        made.pull(losses, ref)
    changed = graph(obj(VS, "v7", f"{{hosts: [h8.example], {TO}}}", 2)).input(refs[7])

    made.commit(Transaction(put=[(refs[7], changed)]))
    with made.tracing() as ran:
        answers = [made.pull(losses, ref) for ref in refs]
    assert sorted(each for each in ran if each.startswith("losses(")) == [
        f"losses(VirtualService.networking.istio.io/default/v{n})" for n in (7, 8)
    ]
    assert answers[7].shadowed


# -- describe ----------------------------------------------------------------------------------------------


def told(sections: tuple[Section, ...] | None) -> list[str]:
    assert sections is not None
    return [
        f"{line.what.strip()}: {line.value} <{line.ref.short if line.ref else 'default'} {line.path}>"
        for section in sections
        for line in section.lines
    ]


def test_describe_service() -> None:
    made = graph(
        BASE,
        obj(
            VS,
            "r",
            "{hosts: [reviews], http: [{match: [{uri: {prefix: /a}}, {uri: {exact: /b}}], timeout: 2s, "
            "route: [{destination: {host: reviews, subset: v1}}]}, {route: [{destination: {host: reviews}}]}]}",
        ),
        obj(VS, "lost", f"{{hosts: [reviews], {TO}}}", 2),
        obj(
            DR,
            "d",
            "{host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, subsets: "
            "[{name: v1, labels: {version: v1}, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}]}",
        ),
        obj("PeerAuthentication", "all", "{mtls: {mode: STRICT}}", 3, api=PA),
        obj("AuthorizationPolicy", "deny", "{action: DENY, rules: [{}]}", 3, api=PA),
    )
    said = told(made.pull(service_sections, "default", "reviews", "default"))
    to_v1 = "to reviews.default.svc.cluster.local:9080 (subset v1)"
    for line in (
        "requests follow: VirtualService default/r <VirtualService default/r >",
        "lost: VirtualService default/lost: VirtualService default/r counts, being older "
        "<VirtualService default/lost spec.hosts[0]>",
        f"requests with path prefix /a: {to_v1} <VirtualService default/r spec.http[0].route>",
        f"requests with path exact /b: {to_v1} <VirtualService default/r spec.http[0].route>",
        "every request: to reviews.default.svc.cluster.local:9080 <VirtualService default/r spec.http[1].route>",
        'subset v1: connectionPool: {"tcp":{"maxConnections":7}} '
        "<DestinationRule default/d spec.trafficPolicy.connectionPool>",
        'subset v1: outlierDetection: {"consecutive5xxErrors":3} '
        "<DestinationRule default/d spec.subsets[0].trafficPolicy.outlierDetection>",
        "mutual TLS: STRICT <PeerAuthentication default/all spec.mtls.mode>",
        "authorization: DENY, 1 rules <AuthorizationPolicy default/deny spec.rules>",
    ):
        assert line in said, "\n".join(said)
    (timeout,) = {each for each in said if each.startswith("timeout") and "2" in each}
    assert timeout.endswith("<VirtualService default/r spec.http[0].timeout>")
    assert any(each.startswith("retries") and each.endswith("<default >") for each in said)
    assert made.pull(service_sections, "default", "none", "default") is None


def test_describe_pod() -> None:
    made = graph(BASE, obj("PeerAuthentication", "all", "{mtls: {mode: STRICT}}", 3, "edge", PA))
    said = told(made.pull(pod_sections, "edge", "ingress-1"))
    assert "behind: ingress.edge.svc.cluster.local <default >" in said
    assert "gateway: opens ports here <Gateway default/web spec.servers>" in said
    assert "mutual TLS: STRICT <PeerAuthentication edge/all spec.mtls.mode>" in said
    assert made.pull(pod_sections, "edge", "none") is None
