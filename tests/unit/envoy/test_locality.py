"""Which endpoints come first for a client at a place."""

from __future__ import annotations

import pytest

from lateen.api.istio.load_balancer import Distribute, Failover
from lateen.intent.locality import Preference, Whereabouts, by_preference
from lateen.model.endpoints import Endpoint
from lateen.model.workloads import Locality, parse_locality

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
