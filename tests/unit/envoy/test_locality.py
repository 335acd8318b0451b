"""Which endpoints come first for a client at a place."""

from __future__ import annotations

import pytest

from lateen.api.istio.destination_rule import Distribute, Failover, LocalityLoadBalancerSetting
from lateen.intent.locality import by_setting
from lateen.model.endpoints import Endpoint
from lateen.model.workloads import Locality, parse_locality

PLACES = ("eu/eu-1/a", "eu/eu-1/b", "eu/eu-2/a", "us/us-1/a", "asia/as-1/a")
ENDPOINTS = tuple(
    Endpoint(address=f"10.0.0.{number}", port=80, locality=parse_locality(place), labels=(("version", place[:2]),))
    for number, place in enumerate(PLACES)
)
HERE = parse_locality("eu/eu-1/a")


def _priorities(setting: LocalityLoadBalancerSetting, client: Locality = HERE) -> dict[str, int]:
    return {str(each.locality): each.priority for each in by_setting(setting, client, (("version", "us"),), ENDPOINTS)}


def test_the_nearer_the_sooner() -> None:
    assert _priorities(LocalityLoadBalancerSetting()) == {
        "eu/eu-1/a": 0,
        "eu/eu-1/b": 1,
        "eu/eu-2/a": 2,
        "us/us-1/a": 3,
        "asia/as-1/a": 3,
    }


def test_a_region_may_fail_over_to_one_before_others() -> None:
    setting = LocalityLoadBalancerSetting(failover=(Failover(from_="eu", to="us"),))
    assert _priorities(setting)["us/us-1/a"] == 3
    assert _priorities(setting)["asia/as-1/a"] == 4


@pytest.mark.parametrize("label", ["version", "version=us"])
def test_labels_may_decide(label: str) -> None:
    """The client has version us."""
    found = _priorities(LocalityLoadBalancerSetting(failover_priority=(label,)))
    assert {place for place, priority in found.items() if priority == 0} == {"us/us-1/a"}


def test_a_distribution_sets_weights_and_leaves_others_out() -> None:
    to = {"eu/eu-1/*": 80, "us/*": 20}
    setting = LocalityLoadBalancerSetting(distribute=(Distribute(from_="eu/*", to=to),))
    groups = by_setting(setting, HERE, (), ENDPOINTS)
    assert {str(each.locality): each.weight for each in groups} == {
        "eu/eu-1/a": 4000,
        "eu/eu-1/b": 4000,
        "us/us-1/a": 2000,
    }
    assert all(each.priority == 0 for each in groups)
