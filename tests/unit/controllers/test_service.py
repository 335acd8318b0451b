"""Services: addresses that stay, and slices and tables that follow the Pods."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Patch
from lateen.platform.controllers.endpoints import MANAGED_LABEL, SERVICE_LABEL, reconcile
from lateen.platform.controllers.service import RESERVED, allocate, free_address, vips
from lateen.platform.pod import ServiceVip
from tests.unit.controllers.documents import Mesh, pod, set_ready

RANGE = "10.96.0.0/16"


def service(name: str = "web", ports: list[Json] | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": ports or [{"name": "http", "port": 80}], **spec},
    }


def settle(mesh: Mesh) -> list[Json]:
    """The slices once the controller is at rest; applying it again changes nothing."""
    one = mesh.all("Service")[0]
    mesh.perform(reconcile(one, mesh.pods, mesh.all("EndpointSlice")))
    assert reconcile(one, mesh.pods, mesh.all("EndpointSlice")).actions == ()
    return mesh.all("EndpointSlice")


@given(
    st.sets(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=20), st.sampled_from(["10.0.0.0/16", RANGE])
)
def test_addresses_are_distinct_inside_the_range_and_the_same_every_time(names: set[str], vip_range: str) -> None:
    services = [service(name) for name in names]
    given_out = {
        action.key: action.patch["spec"]["clusterIP"]
        for action in allocate(services, vip_range).actions
        if isinstance(action, Patch)
    }
    assert len(set(given_out.values())) == len(names)
    network = ipaddress.IPv4Network(vip_range)
    assert all(network[RESERVED] <= ipaddress.IPv4Address(address) < network[-1] for address in given_out.values())
    assert allocate(list(reversed(services)), vip_range) == allocate(services, vip_range)


def test_an_address_once_given_stays_and_is_not_given_again() -> None:
    first = free_address(("shop", "web"), set(), RANGE)
    assert allocate([service(clusterIP=first)], RANGE).actions == ()
    (action,) = allocate([service("other", clusterIP=first), service()], RANGE).actions
    assert isinstance(action, Patch)
    assert action.patch["spec"]["clusterIP"] != first


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName", "externalName": "example.org"}])
def test_headless_services_and_names_get_no_address(spec: dict[str, Any]) -> None:
    assert allocate([service(**spec)], RANGE).actions == ()


def test_a_full_range_is_an_error() -> None:
    with pytest.raises(LookupError, match="are taken"):
        free_address(("shop", "web"), {str(each) for each in ipaddress.IPv4Network("10.0.0.0/23")}, "10.0.0.0/23")


def test_slices_list_the_selected_pods_with_their_conditions() -> None:
    leaving = pod("c", ip="10.88.0.4")
    leaving["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    done = pod("d", ip="10.88.0.5")
    done["status"]["phase"] = "Succeeded"
    pods = [pod("a", ip="10.88.0.2"), pod("b", ip="10.88.0.3", ready=False), leaving, done]
    mesh = Mesh(service(), *pods, pod("without-address"), pod("other", {"app": "other"}, ip="10.88.0.6"))
    (found,) = settle(mesh)
    assert d.labels(found)[SERVICE_LABEL] == "web"
    assert d.labels(found)["team"] == "a"
    assert found["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
    said = {each["addresses"][0]: tuple(each["conditions"].values()) for each in found["endpoints"]}
    assert said == {
        "10.88.0.2": (True, True, False),
        "10.88.0.3": (False, False, False),
        "10.88.0.4": (False, True, True),
    }
    assert found["endpoints"][0]["targetRef"] == {"kind": "Pod", "name": "a", "namespace": "shop", "uid": "u-a"}


def test_a_change_of_readiness_changes_the_slice_in_place() -> None:
    mesh = Mesh(service(), one := pod("a", ip="10.88.0.2"))
    (before,) = settle(mesh)
    set_ready(one, False)
    (after,) = settle(mesh)
    assert d.name(before) == d.name(after)
    assert after["endpoints"][0]["conditions"]["ready"] is False


def test_pods_that_resolve_a_named_port_differently_get_slices_of_their_own() -> None:
    named = service(ports=[{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "http2"}])
    old = pod("old", ip="10.88.0.2", containers=[{"name": "x", "ports": [{"name": "web", "containerPort": 8080}]}])
    new = pod("new", ip="10.88.0.3", containers=[{"name": "x", "ports": [{"name": "web", "containerPort": 9090}]}])
    without = pod("without", ip="10.88.0.4")
    slices = settle(Mesh(named, old, new, without))
    found = {each["endpoints"][0]["addresses"][0]: each["ports"] for each in slices}
    assert found == {
        "10.88.0.2": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http2"}],
        "10.88.0.3": [{"name": "http", "port": 9090, "protocol": "TCP", "appProtocol": "http2"}],
        "10.88.0.4": [],
    }


def test_many_pods_are_split_over_slices() -> None:
    mesh = Mesh(service(), *(pod(f"p{n:03}", ip=f"10.88.1.{n}") for n in range(150)))
    assert sorted(len(each["endpoints"]) for each in settle(mesh)) == [50, 100]
    for each in mesh.pods[:100]:
        del mesh.objects["Pod"][d.key(each)]
    assert [len(each["endpoints"]) for each in settle(mesh)] == [50]


def test_slices_of_others_are_left_alone_and_none_are_made_without_a_selector() -> None:
    foreign: Json = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "by-hand", "namespace": "shop", "labels": {SERVICE_LABEL: "web", MANAGED_LABEL: "me"}},
        "endpoints": [],
        "ports": [],
    }
    assert len(settle(Mesh(service(), foreign))) == 2
    without = service()
    del without["spec"]["selector"]
    assert reconcile(without, [pod("a", ip="10.88.0.2")], [foreign]).actions == ()


def test_unready_pods_are_published_on_request() -> None:
    (found,) = settle(Mesh(service(publishNotReadyAddresses=True), pod("a", ip="10.88.0.2", ready=False)))
    assert found["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_the_table_sends_each_port_to_its_ready_endpoints() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    one = service(ports=ports, clusterIP="10.96.1.1")
    mesh = Mesh(one, pod("a", ip="10.88.0.2"), pod("b", ip="10.88.0.3"), pod("c", ip="10.88.0.4", ready=False))
    assert vips([one, service("headless", clusterIP="None"), service("new")], settle(mesh)) == (
        ServiceVip(vip="10.96.1.1", port=80, endpoints=(("10.88.0.2", 8080), ("10.88.0.3", 8080))),
        ServiceVip(vip="10.96.1.1", port=53, protocol="udp", endpoints=(("10.88.0.2", 53), ("10.88.0.3", 53))),
    )


def test_ending_pods_serve_when_there_are_no_others() -> None:
    one, last = service(clusterIP="10.96.1.1"), pod("a", ip="10.88.0.2")
    last["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    mesh = Mesh(one, last)
    assert vips([one], settle(mesh))[0].endpoints == (("10.88.0.2", 80),)
    mesh.put(pod("b", ip="10.88.0.3"))
    assert vips([one], settle(mesh))[0].endpoints == (("10.88.0.3", 80),)
