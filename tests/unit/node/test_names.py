"""Which addresses names have, as Services, EndpointSlices and ServiceEntries come and go."""

from __future__ import annotations

from typing import Any

import pytest

from lateen.node.names import KINDS, Found, Names

Json = dict[str, Any]


def service(name: str, namespace: str = "default", **spec: Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoints(name: str, of: str, *each: Json) -> Json:
    labels = {"kubernetes.io/service-name": of}
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}, "endpoints": list(each)}


def entry(name: str, hosts: list[str], *addresses: str) -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"hosts": hosts, "addresses": list(addresses)}}


def addresses(names: Names, name: str) -> tuple[str, ...] | None:
    found = names.find(name)
    return found.addresses if found else None


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.mark.parametrize(
    "spelling",
    [
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "Reviews.Default.SVC.cluster.LOCAL.",
    ],
)
def test_a_service_by_all_its_names(names: Names, spelling: str) -> None:
    names.put("Service", service("reviews", clusterIP="10.96.0.5"))
    assert addresses(names, spelling) == ("10.96.0.5",)
    assert addresses(names, "ratings.default") is None


def test_a_change_and_an_end(names: Names) -> None:
    names.put("Service", service("reviews", clusterIP="10.96.0.5"))
    names.put("Service", service("reviews", clusterIP="10.96.0.6"))
    assert addresses(names, "reviews.default") == ("10.96.0.6",)
    assert names.reverse("10.96.0.5") is None
    assert names.reverse("10.96.0.6") == "reviews.default.svc.cluster.local"
    names.delete("Service", service("reviews"))
    assert addresses(names, "reviews.default") is None
    assert names.reverse("10.96.0.6") is None
    assert len(names) == 0


def test_a_headless_service_has_its_ready_endpoints(names: Names) -> None:
    names.put(
        "EndpointSlice",
        endpoints(
            "db-1",
            "db",
            {"addresses": ["10.88.1.2"], "hostname": "db-0", "conditions": {"ready": True}},
            {"addresses": ["10.88.1.3"], "hostname": "db-1", "conditions": {"ready": False}},
            {"addresses": ["10.88.1.4"]},
        ),
    )
    names.put("Service", service("db", clusterIP="None"))
    assert addresses(names, "db.default.svc.cluster.local") == ("10.88.1.2", "10.88.1.4")
    assert addresses(names, "db-0.db.default.svc.cluster.local") == ("10.88.1.2",)
    assert addresses(names, "db-1.db.default.svc.cluster.local") is None
    names.put("EndpointSlice", endpoints("db-2", "db", {"addresses": ["10.88.1.5"]}))
    assert addresses(names, "db.default") == ("10.88.1.2", "10.88.1.4", "10.88.1.5")
    names.delete("EndpointSlice", endpoints("db-1", "db"))
    assert addresses(names, "db.default") == ("10.88.1.5",)
    names.delete("EndpointSlice", endpoints("db-2", "db"))
    assert addresses(names, "db.default") == ()


def test_unready_endpoints_can_be_published(names: Names) -> None:
    names.put("Service", service("db", clusterIP="None", publishNotReadyAddresses=True))
    names.put("EndpointSlice", endpoints("a", "db", {"addresses": ["10.88.1.3"], "conditions": {"ready": False}}))
    assert addresses(names, "db.default") == ("10.88.1.3",)


def test_a_slice_that_moves_to_another_service(names: Names) -> None:
    for name in ("a", "b"):
        names.put("Service", service(name, clusterIP="None"))
    names.put("EndpointSlice", endpoints("s", "a", {"addresses": ["10.88.1.3"]}))
    names.put("EndpointSlice", endpoints("s", "b", {"addresses": ["10.88.1.3"]}))
    assert (addresses(names, "a.default"), addresses(names, "b.default")) == ((), ("10.88.1.3",))


def test_a_service_that_becomes_headless_and_back(names: Names) -> None:
    names.put("EndpointSlice", endpoints("s", "a", {"addresses": ["10.88.1.3"]}))
    for spec, expected in (
        ({"clusterIP": "10.96.0.1"}, "10.96.0.1"),
        ({"clusterIP": "None"}, "10.88.1.3"),
        ({"clusterIP": "10.96.0.2"}, "10.96.0.2"),
    ):
        names.put("Service", service("a", **spec))
        assert addresses(names, "a.default") == (expected,)
    names.put("EndpointSlice", endpoints("s", "a", {"addresses": ["10.88.1.9"]}))
    assert addresses(names, "a.default") == ("10.96.0.2",)


def test_an_external_name_is_an_alias(names: Names) -> None:
    names.put("Service", service("db", type="ExternalName", externalName="DB.example.com."))
    assert names.find("db.default") == Found(alias="db.example.com")


def test_service_entries_with_addresses(names: Names) -> None:
    names.put("ServiceEntry", entry("one", ["API.example.com", "*.wild.io"], "240.0.0.1", "10.0.0.0/8", "240.0.0.2/32"))
    names.put("ServiceEntry", entry("none", ["resolved.example.com"]))
    assert addresses(names, "api.example.com") == ("240.0.0.1", "240.0.0.2")
    assert addresses(names, "a.b.wild.io") == ("240.0.0.1", "240.0.0.2")
    assert addresses(names, "wild.io") is None
    assert addresses(names, "resolved.example.com") is None


def test_the_longest_wildcard_wins_and_a_full_name_wins_over_both(names: Names) -> None:
    names.put("ServiceEntry", entry("short", ["*.io"], "240.0.0.1"))
    names.put("ServiceEntry", entry("long", ["*.wild.io"], "240.0.0.2"))
    names.put("ServiceEntry", entry("full", ["a.wild.io"], "240.0.0.3"))
    assert [addresses(names, name) for name in ("a.io", "b.wild.io", "a.wild.io")] == [
        ("240.0.0.1",),
        ("240.0.0.2",),
        ("240.0.0.3",),
    ]


def test_two_objects_of_one_name_add_up_and_part_again(names: Names) -> None:
    names.put("ServiceEntry", entry("one", ["api.example.com"], "240.0.0.1"))
    names.put("ServiceEntry", entry("two", ["api.example.com"], "240.0.0.2"))
    assert addresses(names, "api.example.com") == ("240.0.0.1", "240.0.0.2")
    names.delete("ServiceEntry", entry("one", []))
    assert addresses(names, "api.example.com") == ("240.0.0.2",)


def test_a_listing_replaces_everything_of_its_kind(names: Names) -> None:
    names.put("Service", service("old", clusterIP="10.96.0.1"))
    names.put("Service", service("headless", clusterIP="None"))
    names.put("EndpointSlice", endpoints("s", "headless", {"addresses": ["10.88.1.3"]}))
    names.put("ServiceEntry", entry("kept", ["api.example.com"], "240.0.0.1"))
    assert names.replace("Service", [service("new", clusterIP="10.96.0.2")]) == []
    assert names.replace("EndpointSlice", []) == []
    assert addresses(names, "old.default") is addresses(names, "headless.default") is None
    assert addresses(names, "new.default") == ("10.96.0.2",)
    assert addresses(names, "api.example.com") == ("240.0.0.1",)
    names.put("Service", service("headless", clusterIP="None"))
    assert addresses(names, "headless.default") == ()


def test_one_broken_object_does_not_take_the_others_along(names: Names) -> None:
    problems = names.replace("Service", [service("bad", clusterIP=7), service("good", clusterIP="10.96.0.1")])
    assert len(problems) == 1
    assert problems[0].startswith("Service default/bad: Expected `str | null`")
    assert addresses(names, "good.default") == ("10.96.0.1",)


def test_until_all_kinds_are_listed_an_earlier_table_helps(names: Names) -> None:
    names.put("Service", service("kept", clusterIP="10.96.0.1"))
    names.put("Service", service("moved", clusterIP="10.96.0.2"))
    later = Names()
    later.restore(names.snapshot())
    assert not later.complete
    later.put("Service", service("moved", clusterIP="10.96.0.3"))
    assert (addresses(later, "kept.default"), addresses(later, "moved.default")) == (("10.96.0.1",), ("10.96.0.3",))
    for kind in KINDS:
        later.replace(kind, [])
    assert later.complete
    assert addresses(later, "kept.default") is None


def test_whose_names_are_whose(names: Names) -> None:
    assert names.owns("x.default.svc.cluster.local.")
    assert names.owns("Cluster.Local")
    assert not names.owns("xcluster.local")
    assert not names.owns("example.com")
