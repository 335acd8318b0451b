"""Which endpoints come first for a client at a place."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from lateen.api.istio.load_balancer import Distribute, Failover
from lateen.envoy.endpoint import endpoint_resource
from lateen.intent.locality import Preference, Whereabouts, by_preference
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.ids import OWN_CLUSTER
from lateen.model.endpoints import Endpoint
from lateen.model.workloads import Locality, parse_locality
from tests.configuration import graph_of

PLACES = ("eu/eu-1/a", "eu/eu-1/b", "eu/eu-2/a", "us/us-1/a", "asia/as-1/a")
ENDPOINTS = tuple(
    Endpoint(address=f"10.0.0.{number}", port=80, locality=parse_locality(place), labels=(("version", place[:2]),))
    for number, place in enumerate(PLACES)
)
HERE = parse_locality("eu/eu-1/a")


def _priorities(preference: Preference, client: Locality = HERE) -> dict[str, int]:
    where = Whereabouts(client, (("version", "us"),))
    return {str(each.locality): each.priority for each in by_preference(preference, where, ENDPOINTS)}


def test_the_nearer_the_sooner() -> None:
    assert _priorities(Preference()) == {
        "eu/eu-1/a": 0,
        "eu/eu-1/b": 1,
        "eu/eu-2/a": 2,
        "us/us-1/a": 3,
        "asia/as-1/a": 3,
    }


def test_a_region_may_fail_over_to_one_before_others() -> None:
    setting = Preference(failover=(Failover(from_="eu", to="us"),))
    assert _priorities(setting)["us/us-1/a"] == 3
    assert _priorities(setting)["asia/as-1/a"] == 4


@pytest.mark.parametrize("label", ["version", "version=us"])
def test_labels_may_decide(label: str) -> None:
    """The client has version us."""
    found = _priorities(Preference(labels=(label,)))
    assert {place for place, priority in found.items() if priority == 0} == {"us/us-1/a"}


def test_a_distribution_sets_weights_and_leaves_others_out() -> None:
    to = {"eu/eu-1/*": 80, "us/*": 20}
    setting = Preference(distribute=(Distribute(from_="eu/*", to=to),))
    groups = by_preference(setting, Whereabouts(HERE), ENDPOINTS)
    assert {str(each.locality): each.weight for each in groups} == {
        "eu/eu-1/a": 4000,
        "eu/eu-1/b": 4000,
        "us/us-1/a": 2000,
    }
    assert all(each.priority == 0 for each in groups)


def test_labels_decide_before_regions() -> None:
    """With both, the regions order endpoints whose labels are alike."""
    found = _priorities(Preference(labels=("version",), failover=(Failover(from_="eu", to="asia"),)))
    assert found == {"us/us-1/a": 0, "eu/eu-1/a": 1, "eu/eu-1/b": 2, "eu/eu-2/a": 3, "asia/as-1/a": 4}


def test_zones_of_the_own_region_are_alike_and_come_first() -> None:
    """Subzones don't count; the client's own zone is called as the client's place is."""
    assert _priorities(Preference(zones=6)) == {"eu/eu-1/a": 0, "eu/eu-2": 0, "us/us-1": 1, "asia/as-1": 1}
    ordered = Preference(zones=6, failover=(Failover(from_="eu", to="asia"),))
    assert _priorities(ordered) == {"eu/eu-1/a": 0, "eu/eu-2": 0, "asia/as-1": 1, "us/us-1": 2}
    labelled = Preference(zones=6, labels=("version=us",))
    assert _priorities(labelled) == {"eu/eu-1/a": 0, "eu/eu-2": 0, "us/us-1": 1, "asia/as-1": 2}


def _pod(name: str, address: str, locality: str, app: str = "shop") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {app}, topology.istio.io/locality: {locality}}}}}
spec: {{containers: [{{name: it}}]}}
status: {{podIP: {address}, conditions: [{{type: Ready, status: "True"}}]}}
---"""


@pytest.mark.parametrize("served", [False, True])
def test_a_proxy_belongs_to_a_cluster_of_its_like(served: bool) -> None:
    """The endpoints of the Service before it, or the Pods with its labels; its own zone by the name of its place."""
    service = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: shop-1, namespace: default, labels: {kubernetes.io/service-name: shop}}
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a, namespace: default}}]
ports: [{name: http, port: 80}]
---"""
    pods = _pod("a", "10.0.0.1", "eu.a.x") + _pod("b", "10.0.0.2", "eu.b.y") + _pod("c", "10.0.0.3", "eu.a", "else")
    graph = graph_of(pods, service if served else "")
    scope = Scope(ProxyKind.SIDECAR, "default", (("app", "shop"),), locality=Locality("eu", "a", "z"))
    made = graph.pull(endpoint_resource, scope, OWN_CLUSTER)
    assert made is not None
    found = {
        (each.locality.zone, each.locality.sub_zone): [
            one.endpoint.address.socket_address.address for one in each.lb_endpoints
        ]
        for each in ClusterLoadAssignment.FromString(made.body).endpoints
    }
    assert found == ({("a", "z"): ["10.0.0.1"]} if served else {("a", "z"): ["10.0.0.1"], ("b", ""): ["10.0.0.2"]})
    assert graph.pull(endpoint_resource, Scope(ProxyKind.ROUTER, "edge"), OWN_CLUSTER) is not None, "never unanswered"
