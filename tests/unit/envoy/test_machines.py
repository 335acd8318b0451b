"""What a machine of a group becomes, and what that means for services."""

from __future__ import annotations

import pytest
import yaml

from lateen.engine import Graph
from lateen.envoy.endpoint import through
from lateen.intent.cluster import Transport
from lateen.intent.inbound import inbound_ports
from lateen.intent.scope import MeshGateway, Proxy, ProxyKind, scope_of
from lateen.lib.ids import Ref
from lateen.model.endpoints import Endpoint, endpoints, identities
from lateen.model.registration import entry_document, entry_name
from tests.configuration import graph_of, objects

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm, uid: u1}
spec:
  metadata: {labels: {app: hello}, annotations: {team: blue}}
  template: {labels: {app: lost, version: v1}, serviceAccount: hello, ports: {http: 9082}, %s}
  %s
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {clusterIP: 10.96.0.1, selector: {app: hello}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
"""
HOST = "hello.default.svc.cluster.local"
REF = Ref("", "Service", "default", "hello")


def entry(address: str = "10.77.1.2", template: str = "weight: 1", more: str = "", status: str = "") -> str:
    """The entry of a machine as a document; `status` of its condition Healthy."""
    (group,) = objects(GROUP % (template, more))
    document = entry_document(group, address)  # pyright: ignore[reportArgumentType] (it is one)
    if status:
        document["status"] = {"conditions": [{"type": "Healthy", "status": status}]}
    return yaml.safe_dump(document) + "---\n"


def found(graph: Graph) -> tuple[Endpoint, ...]:
    return graph.pull(endpoints, REF, HOST, 80)


@pytest.mark.parametrize(
    ("address", "template", "name"),
    [
        ("10.77.1.2", "weight: 1", "vm-10.77.1.2"),
        ("10.77.1.2", "network: west", "vm-10.77.1.2-west"),
        ("2001:db8::1", "weight: 1", "vm-2001-db8--1"),
    ],
)
def test_an_entry_is_named_after_group_address_and_network(address: str, template: str, name: str) -> None:
    (group,) = objects(GROUP % (template, ""))
    assert entry_name(group, address) == name  # pyright: ignore[reportArgumentType]


def test_a_service_selects_machines_by_the_labels_of_their_group() -> None:
    (one,) = found(graph_of(SERVICE, entry()))
    assert (one.address, one.port, one.tls, one.identity) == ("10.77.1.2", 9082, True, ("default", "hello"))
    assert one.workload == "vm"
    assert dict(one.labels)["version"] == "v1"


def test_a_probed_machine_takes_traffic_while_it_is_healthy() -> None:
    probed = "probe: {tcpSocket: {port: 1}}"
    for status, count in (("", 0), ("False", 0), ("Unknown", 0), ("True", 1)):
        graph = graph_of(SERVICE, entry(more=probed, status=status))
        assert len(found(graph)) == count
        assert graph.pull(identities, REF, HOST, 80) == (("default", "hello"),), "who may answer is known before"
    assert len(found(graph_of(SERVICE, entry(status="False")))) == 1, "nobody probes it"


def test_a_machine_sees_pods_at_the_gateway_of_the_mesh_and_machines_where_they_are() -> None:
    gateway = MeshGateway("192.0.2.1", 15443)

    def pod(name: str, *, tls: bool = True) -> Endpoint:
        return Endpoint(address=f"10.88.0.{name}", port=9080, weight=1, tls=tls, source=Ref("", "Pod", "default", name))

    (machine,) = found(graph_of(SERVICE, entry()))
    listed = through(gateway, (pod("1"), pod("2"), pod("3", tls=False), machine), Transport.AUTO)
    assert [(each.address, each.port, each.weight, each.tls) for each in listed] == [
        ("10.77.1.2", 9082, 1, True),
        ("192.0.2.1", 15443, 2, True),
    ]
    assert through(gateway, (pod("1"), machine), Transport.PLAIN) == (machine,), "the gateway takes mutual TLS only"
    assert through(gateway, (pod("3", tls=False),), Transport.AUTO) == ()


def test_a_machines_own_port_outranks_the_target_port_at_both_ends() -> None:
    graph = graph_of(SERVICE, entry())
    scope = graph.pull(scope_of, Proxy(ProxyKind.SIDECAR, "default", "vm-10.77.1.2"))
    assert [(each.port, each.service_port) for each in graph.pull(inbound_ports, scope)] == [(9082, 80)]
